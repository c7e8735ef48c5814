"""What the cases of the specification's conformance suite share: a repository and the node's client, and what is asked.

Each case is driven through the node's own verifier, a child for each judgement, over metadata as the controller serves
them. Which case is which, and which do not apply, says docs/node-trust.md.
"""

from __future__ import annotations

from securesystemslib.signer import CryptoSigner

from tests.security import judged, repository, warm

FIRST = judged.bundle()
ROLES = ("root", "timestamp", "snapshot", "targets")
BEFORE = {"root": (), "timestamp": ("root",), "snapshot": ("root", "timestamp"), "targets": ROLES[:3], "web": ROLES}


def versions(signed: repository.Repository) -> dict[str, int]:
    """Version of each role, as it is served."""
    return {role: signed.version(role) for role in ROLES}


def publish(signed: repository.Repository, *roles: str) -> None:
    """New versions of roles, and what the controller signs after them."""
    for role in roles:
        signed.commit(role)
    signed.refresh()


def check(client: warm.Client, signed: repository.Repository) -> str:
    """What the node says of web 1.0.0: "" where it vouches, else the code."""
    return client.judges(signed.served("web"), FIRST)


def add_keys(signed: repository.Repository, role: str, added: list[CryptoSigner], threshold: int) -> None:
    """Let the next root name more keys of a role, and how many of all it takes."""
    root = signed.metadata["root"].signed
    for signer in added:
        root.add_key(signer.public_key, role)
    root.roles[role].threshold = threshold
