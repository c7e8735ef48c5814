"""Who is who: authorities, certificates and join tokens. Left out: what anybody may do (`controller.rpc`)."""
