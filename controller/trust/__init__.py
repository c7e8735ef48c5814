"""Whom a fleet trusts: who is who by certificates, and what may exist by The Update Framework.

Rules kept: whatever comes from outside is verified before it is kept, and kept before it counts; keys of people never
come near a controller, which holds the authorities' and the two that vouch for freshness. Left out: what nodes believe,
which is theirs, and what anybody may do (`controller.rpc`).
"""
