"""Occasions on which triggers fired, what became of each, and what a trigger remembers.

Rules kept: what a trigger remembers is apart from its definition, and a node's part of that apart once more, so that a
heartbeat writes no more than it changed. Left out: definitions (`trigger`), and how any of it moves
(`controller.core.triggers`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from rpds import HashTrieMap

from controller.core.model.fleet import Reason
from controller.core.model.words import (
    ApprovalState,
    FiringId,
    FiringState,
    NodeId,
    RolloutId,
    TriggerActionKind,
    TriggerId,
)


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event that somebody sent; a CloudEvent, or one alert of an Alertmanager.

    Args:
        source: Who sent it; with the id it tells events apart.
        type: As senders name it.
        subject: What it is about; may be empty.
        at: When it happened, as the sender says; None where it does not say.
        data: JSON text of an object; ``{}`` for none.
    """

    source: str
    id: str
    type: str
    subject: str = ""
    at: datetime | None = None
    data: str = "{}"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a trigger fired.

    Args:
        message: One sentence for people.
        node_ids: On which nodes the condition held, at most ten of them.
        event_source: Of the event; empty for other kinds.
        event_id: Of the event; of what was fired by hand, the identity of the request.
        version: The one that has become available.
        due_at: Of a schedule.
        actor: Who fired it by hand.
    """

    message: str
    node_ids: tuple[NodeId, ...] = ()
    event_source: str = ""
    event_id: str = ""
    version: str = ""
    due_at: datetime | None = None
    actor: str = ""


@dataclass(frozen=True, slots=True)
class FiringApproval:
    """Somebody's word that a firing may act: asked for once, given once, used once."""

    requester: str
    requested_at: datetime
    expires_at: datetime
    state: ApprovalState = ApprovalState.WAITING
    decider: str = ""
    decided_at: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Firing:
    """One occasion on which a trigger fired; one state row.

    Args:
        id: Identity of the trigger, a dot, and the number: what the action is idempotent by.
        number: The how-manieth of the trigger.
        reason: Why it stands where it does.
        held_until: It is given up then, while it is held.
        released_at: When it had passed cooldown, cap and the firings before it; None before that.
        attempts: How often the action was begun.
        next_try_at: When it is begun again after a failure; None where it is under way, or was not begun.
        rollout_id: What came of it.
    """

    id: FiringId
    trigger_id: TriggerId
    trigger: str
    number: int
    state: FiringState
    does: TriggerActionKind
    cause: Cause
    fired_at: datetime
    reason: Reason
    held_until: datetime
    released_at: datetime | None = None
    approval: FiringApproval | None = None
    attempts: int = 0
    next_try_at: datetime | None = None
    rollout_id: RolloutId | None = None
    ended_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """True until nothing more comes of it."""
        return self.ended_at is None


@dataclass(frozen=True, slots=True)
class Signal:
    """How the condition of a trigger stands on one node, where it holds or has not cleared; one state row.

    Args:
        since: Since when it holds.
        seen_at: When that was last seen.
        raised_at: Since when it has held for long enough; None before that.
        clear_since: Since when it is over, on one that was raised.
    """

    since: datetime
    seen_at: datetime
    raised_at: datetime | None = None
    clear_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Debounced:
    """Events that have come, and wait for the silence after them.

    Args:
        event: The latest.
        count: How many.
    """

    event: ReceivedEvent
    count: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class EvaluationFault:
    """An evaluation that failed in itself.

    Args:
        count: How often without a success in between.
        retry_at: When it is tried again; None where that has no sense before the definition has changed.
    """

    code: str
    message: str
    at: datetime
    count: int
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class TriggerStatus:
    """What a trigger remembers; one state row, without the signals, which have rows of their own.

    Args:
        number: Firings so far.
        signals: Nodes on which the condition holds or has not cleared; None is the fleet.
        raised: Nodes on which it has held for long enough.
        is_raised: Whether these are enough: it fires when this begins.
        released: Instants within the last hour at which a firing was released, oldest first.
        cooling_since: The latest instant that a cooldown counts from.
        next_run_at: Of a schedule.
        seen_version: What was available last.
        open: Firings that are not at their end, oldest first.
    """

    trigger_id: TriggerId
    number: int = 0
    signals: HashTrieMap[NodeId | None, Signal] = field(default_factory=HashTrieMap)
    raised: int = 0
    is_raised: bool = False
    released: tuple[datetime, ...] = ()
    cooling_since: datetime | None = None
    next_run_at: datetime | None = None
    debounced: Debounced | None = None
    seen_version: str = ""
    open: tuple[Firing, ...] = ()
    fault: EvaluationFault | None = None
