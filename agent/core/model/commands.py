"""What a node is asked: changes with their numbers, words about them, and looks at a log.

Rules kept here: as the controller says it, whole; a fence tells stale from fresh. Left out: what becomes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.core.model.words import ChangeKind, Method, Step


@dataclass(frozen=True, slots=True)
class Assignment:
    """One change asked of this node.

    Args:
        fence: The node's counter at the time of the assignment; lower than the highest seen is stale.
        attempt: How-manieth operation for the same change, from 1.
        from_digest: What the node must run now; empty for INSTALL.
        to_digest: What it shall run; empty for REMOVE; START, STOP and RESTART leave it as it is, and may leave it out.
        to_version: Version of ``to_digest``, for people.
        hold_before: SWITCH, COMMIT or None: where to wait for Proceed, which names the next one.
        start_by: Instant after which the node refuses to begin.
        deadline: Time from the first sight of the assignment until COMMIT; past it the node aborts.
        soak_requests_min: Requests that the new instance must have answered in the soak; fewer aborts.
        min_healthy_duration: Time without a break that the new version must be healthy after COMMIT.
        healthy_deadline: Time after COMMIT within which that must come true.
        discard_writes: Going back to an older state schema may drop what was written since the rollback point.
    """

    operation_id: str
    fence: int
    attempt: int
    component: str
    kind: ChangeKind
    method: Method
    from_digest: str
    to_digest: str
    to_version: str
    hold_before: Step | None
    start_by: datetime | None
    deadline: timedelta
    soak_duration: timedelta
    soak_requests_min: int
    min_healthy_duration: timedelta
    healthy_deadline: timedelta
    traceparent: str = ""
    discard_writes: bool = False

    @property
    def new_digest(self) -> str:
        """What shall serve afterwards; empty where nothing shall."""
        if self.kind in {ChangeKind.REMOVE, ChangeKind.STOP}:
            return ""
        return self.to_digest or self.from_digest

    @property
    def old_digest(self) -> str:
        """What serves before, and is gone back to; empty where nothing does."""
        return "" if self.kind in {ChangeKind.INSTALL, ChangeKind.START} else self.from_digest


@dataclass(frozen=True, slots=True)
class Assign:
    """The controller wants a change."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Proceed:
    """A held operation may go on.

    Args:
        step: The hold that it ends; an operation that is to wait before another step is left as it is.
        hold_before: Where it waits next; None for nowhere.
    """

    operation_id: str
    fence: int
    step: Step
    hold_before: Step | None


@dataclass(frozen=True, slots=True)
class Cancel:
    """An operation shall be given up; too late after COMMIT."""

    operation_id: str
    fence: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Somebody wants the end of a component's log; answered by LogText with the same number."""

    request_id: int
    component: str
    max_bytes: int


Order = Assign | Proceed | Cancel
Command = Order | ReadLog


@dataclass(frozen=True, slots=True)
class LogText:
    """The end of a log, or why there is none."""

    request_id: int
    instance_id: str = ""
    text: str = ""
    error: str = ""
