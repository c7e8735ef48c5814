"""What may happen to a trigger: a closed union; each event carries the instant at which it is taken to happen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from controller.core import model


@dataclass(frozen=True, slots=True)
class Seen:
    """The condition of a THRESHOLD was evaluated on a node.

    Args:
        is_met: None where that is unknown.
        is_over: Whether what tells that it is over holds; None where that is unknown.
    """

    at: datetime
    node_id: model.NodeId
    is_met: bool | None
    is_over: bool | None


@dataclass(frozen=True, slots=True)
class Looked:
    """The monitor has looked by the rule of a DEGRADATION.

    Args:
        node_id: None for the fleet.
        is_met: Whether the rule fires there; None where nobody can tell, which leaves what was.
    """

    at: datetime
    node_id: model.NodeId | None
    is_met: bool | None


@dataclass(frozen=True, slots=True)
class Gone:
    """A node is not looked at any more."""

    at: datetime
    node_id: model.NodeId


@dataclass(frozen=True, slots=True)
class Arrived:
    """An event arrived that matches, for the first time."""

    at: datetime
    event: model.ReceivedEvent


@dataclass(frozen=True, slots=True)
class Moved:
    """A version is available: where the channel points, or the highest within the range.

    Args:
        version: Empty for none.
    """

    at: datetime
    version: str


@dataclass(frozen=True, slots=True)
class FiredByHand:
    """Somebody says that it shall fire.

    Args:
        request_id: Chosen by the caller; empty for none.
    """

    at: datetime
    actor: str
    reason: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Decided:
    """Somebody lets a firing act, or does not."""

    at: datetime
    firing_id: model.FiringId
    actor: str
    reason: str
    is_approved: bool


@dataclass(frozen=True, slots=True)
class Acted:
    """What a firing does was begun, or there was nothing to do.

    Args:
        rollout_id: None where there was nothing to do.
    """

    at: datetime
    firing_id: model.FiringId
    rollout_id: model.RolloutId | None
    message: str


@dataclass(frozen=True, slots=True)
class ActFailed:
    """What a firing does could not be begun."""

    at: datetime
    firing_id: model.FiringId
    code: str
    message: str
    is_retryable: bool


@dataclass(frozen=True, slots=True)
class RolloutEnded:
    """The rollout of a firing is at its end."""

    at: datetime
    firing_id: model.FiringId
    state: model.RolloutState
    message: str


@dataclass(frozen=True, slots=True)
class EvaluationFailed:
    """Whether there is an occasion could not be found out, and not for want of data."""

    at: datetime
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed, or a freeze has come or gone."""

    at: datetime


Event: TypeAlias = (
    Seen
    | Looked
    | Gone
    | Arrived
    | Moved
    | FiredByHand
    | Decided
    | Acted
    | ActFailed
    | RolloutEnded
    | EvaluationFailed
    | Tick
)
