"""What may happen to an operation: a closed union; each event carries the moment at which it is taken to happen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, unique

from agent.core import model


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant on both clocks of this node.

    Args:
        monotonic_seconds: What deadlines are compared with; counts from the start of the kernel.
        wall: What records show; never compared with a deadline of this node.
    """

    monotonic_seconds: float
    wall: datetime


@unique
class KeeperDecision(Enum):
    """What the keeper knows of a swap after the agent was away; ON_TRIAL where this agent is itself what it tries."""

    NONE = "NONE"
    ON_TRIAL = "ON_TRIAL"
    COMMITTED = "COMMITTED"
    ROLLED_BACK_INSTANCE_DIED = "ROLLED_BACK_INSTANCE_DIED"
    ROLLED_BACK_AGENT_AWAY = "ROLLED_BACK_AGENT_AWAY"


@dataclass(frozen=True, slots=True)
class Began:
    """The operation is in the journal and its work may begin."""

    at: Moment


@dataclass(frozen=True, slots=True)
class Succeeded:
    """A step did what it should, or found that it was so already."""

    at: Moment
    step: model.Step
    evidence: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """A step did not do what it should."""

    at: Moment
    step: model.Step
    fault: model.Fault
    reason: str
    message: str
    evidence: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The keeper has gone back by itself before COMMIT was decided."""

    at: Moment
    fault: model.Fault
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """A new agent has found the operation in the journal."""

    at: Moment
    decision: KeeperDecision


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time went on; deadlines up to ``at`` are due."""

    at: Moment


@dataclass(frozen=True, slots=True)
class Observed:
    """The new instance was looked at.

    Args:
        healthy_for: Time without a break for which it has been healthy.
        served: Requests that it has answered since it started.
        is_flapping: It is unhealthy because it was now well, now not, too often.
    """

    at: Moment
    health: model.Health
    healthy_for: timedelta
    served: int
    is_flapping: bool = False


@dataclass(frozen=True, slots=True)
class InstanceLost:
    """The new instance has ended without being told to."""

    at: Moment
    message: str


@dataclass(frozen=True, slots=True)
class Proceeded:
    """The controller ends the hold before a step.

    Args:
        hold_before: Where the operation waits next; None for nowhere.
    """

    at: Moment
    step: model.Step
    hold_before: model.Step | None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The controller wants the operation given up."""

    at: Moment
    reason: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """A later operation takes over what this one still drains or bakes."""

    at: Moment


Work = Began | Succeeded | Failed | RolledBack | Recovered
Watch = Ticked | Observed | InstanceLost
Order = Proceeded | Cancelled | Superseded
Event = Work | Watch | Order
