"""The disposable child that looks at a bundle before anything of it is unpacked or run.

Rules kept here: the digest is checked first and the whole archive is judged before the first byte of it is written;
only the one canonical form of a bundle passes, so whatever tar allows beyond it is refused without being understood; a
release appears by one rename, whole and durable. It dies after one bundle. Left out: signatures.
"""
