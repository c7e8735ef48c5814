"""What a step owes the world: a closed union; each effect is idempotent by its operation id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.core import model


@dataclass(frozen=True, slots=True)
class Assign:
    """An operation for a node; the shell adds the fence in the transaction that stores it.

    Args:
        change: What the node shall do; for a revert, what undoes the planned change.
        start_by: Instant after which the agent refuses to begin.
        deadline: Time that the agent has, from its first sight of the command until COMMIT.
        hold_before: SWITCH, COMMIT or None: where the node waits for a Proceed.
    """

    operation_id: model.OperationId
    change: model.Change
    attempt: int
    is_reverting: bool
    wave: int
    policy: model.Policy
    start_by: datetime
    deadline: timedelta
    hold_before: model.Step | None = None


@dataclass(frozen=True, slots=True)
class Proceed:
    """Let a node that is held before a step go on.

    Args:
        step: The hold that it ends.
        hold_before: Where the node waits next; None for nowhere.
    """

    operation_id: model.OperationId
    node_id: model.NodeId
    step: model.Step
    hold_before: model.Step | None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ask a node to give an operation up; too late once it has committed."""

    operation_id: model.OperationId
    node_id: model.NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class RememberBad:
    """The node left this digest for cause and is not offered it again (G9)."""

    node_id: model.NodeId
    digest: model.Digest
    reason: str


@dataclass(frozen=True, slots=True)
class BlockEdge:
    """A version from which no way leads back failed: no node shall go there any more."""

    component: model.ComponentName
    to_version: str
    reason: str


Effect = Assign | Proceed | Cancel | RememberBad | BlockEdge
