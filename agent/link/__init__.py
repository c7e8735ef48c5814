"""The link: the agent's end of the one stream to the controller, and the download of bundles.

Rules kept here: protobuf stops in `convert`; gRPC stops in `transport`; what to say and what an answer means is decided
by `agent.core.session`; the link outlives every error of the controller. Left out: what a command does (the runner).
"""
