"""Signed release metadata: what may exist, by The Update Framework, apart from who runs what.

Rules kept: whatever comes from outside is verified before it is kept, and kept before it counts; keys of people never
come near a controller, which holds only the two that vouch for freshness. Left out: what nodes believe; it is theirs.
"""
