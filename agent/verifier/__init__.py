"""The disposable child that looks at a bundle before anything of it is unpacked or run.

Rules kept here: the digest is checked first, then whether what the node trusts vouches for it, and the whole archive is
judged before the first byte of it is written; only the one canonical form of a bundle passes, so whatever tar allows
beyond it is refused without being understood; a release appears by one rename, whole and durable. It has no
capabilities, and dies after one bundle. Only here the agent's code meets python-tuf and cryptography (G12).
"""
