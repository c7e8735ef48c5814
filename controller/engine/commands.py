"""What the controller asks of an agent, and what it grants to one: the values that the link carries.

A command is level-triggered truth: it stands until the operation has left the node, and saying it again is harmless,
because it is idempotent by its operation id and fence.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.core import model


@dataclass(frozen=True, slots=True)
class AssignCommand:
    """An operation for a node.

    Args:
        hold_before: Step before which the agent waits for a ``ProceedCommand``; None for none.
        start_by: Instant after which the agent refuses to begin.
        deadline: Time from the agent's first sight of it until COMMIT, on the agent's clock.
        traceparent: Context of the operation's "upgrade node" span.
        discard_writes: Going back to an older state schema may drop what was written since the rollback point.
    """

    operation_id: model.OperationId
    fence: int
    attempt: int
    component: model.ComponentName
    kind: model.ChangeKind
    method: model.Method
    from_digest: model.Digest
    to_digest: model.Digest
    to_version: str
    hold_before: model.Step | None
    start_by: datetime
    deadline: timedelta
    soak_duration: timedelta
    soak_requests_min: int
    min_healthy_duration: timedelta
    healthy_deadline: timedelta
    traceparent: str
    discard_writes: bool


@dataclass(frozen=True, slots=True)
class ProceedCommand:
    """A held operation may go on.

    Args:
        step: The hold that it ends; an operation that waits before another step stays there.
        hold_before: Step before which the agent waits next; None for none.
    """

    operation_id: model.OperationId
    fence: int
    step: model.Step
    hold_before: model.Step | None


@dataclass(frozen=True, slots=True)
class CancelCommand:
    """An operation shall be given up; too late once it has committed."""

    operation_id: model.OperationId
    fence: int
    reason: str


Command = AssignCommand | ProceedCommand | CancelCommand


@dataclass(frozen=True, slots=True)
class SessionGrant:
    """The answer to an agent's Hello.

    Args:
        generation: Number of this session among those of the node; a later one replaces an earlier one.
    """

    session_id: model.SessionId
    generation: int
    heartbeat_period: timedelta
    server_time: datetime
