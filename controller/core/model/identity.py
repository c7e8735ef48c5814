"""What is known of a node's certificate, and of the tokens by which nodes come in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controller.core.model.words import NodeId


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token by which one node comes in once.

    Args:
        secret_hash: Of its secret, which is stored nowhere.
        key_hash: Of the public key that has used it; empty as long as none has.
        certificate: What that key was given, PEM.
    """

    id: str
    node_id: NodeId
    secret_hash: str
    expires_at: datetime
    key_hash: str = ""
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """The certificates of a node: the latest, and the one before, which is good until the latest has arrived.

    Args:
        serial: How many it has had.
        key_hash: Of the public key of the latest.
        certificate: The latest, PEM.
        recoveries_left: So often it may come back by itself once its certificate has run out.
        locked_because: Why it gets no certificate and opens no stream; empty where it does.
    """

    node_id: NodeId
    serial: int
    key_hash: str
    certificate: str
    previous_key_hash: str = ""
    previous_certificate: str = ""
    recoveries_left: int = 0
    locked_because: str = ""
