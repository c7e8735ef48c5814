"""Who calls: a person or service that uses the API, or the agent of one node.

Rules kept here: a caller is what its proof says and nothing that it says of itself; what it was granted comes with it,
and without a grant it may do nothing. Left out: proofs (`callers`, `register`, `issuers`), and which method wants which
role (`policies`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, unique

from controller.core import roles


@unique
class Kind(Enum):
    """What a caller is: a person or service that uses the API, or the agent of one node."""

    API = "api"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller that showed who it is; the name of an agent is its node's identity.

    Args:
        grants: What it may do; an agent needs none.
        until: When its proof ends; None for not at all.
    """

    kind: Kind
    name: str
    grants: tuple[roles.Grant, ...] = ()
    until: datetime | None = None

    @property
    def sight(self) -> roles.Scope:
        """The nodes that it may see, whatever its roles."""
        return roles.scope(self.grants, tuple(roles.Role))

    def __str__(self) -> str:
        return f"{self.kind.value} {self.name!r}"
