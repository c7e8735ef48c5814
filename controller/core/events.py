"""What may happen to a rollout: a closed union; each event carries the instant at which it is taken to happen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.core import model


@dataclass(frozen=True, slots=True)
class Began:
    """A controller owns the rollout and may send operations.

    Args:
        plan: The plan as it is now, in the place of the one that waited; None where that stands.
    """

    at: datetime
    plan: model.Plan | None = None


@dataclass(frozen=True, slots=True)
class Approved:
    """Somebody lets the rollout begin.

    Args:
        fingerprint: Of the plan that the fleet gives now.
        requester_may: True where the controller lets who asked for a rollout approve it.
    """

    at: datetime
    actor: str
    reason: str
    fingerprint: str
    requester_may: bool = False


@dataclass(frozen=True, slots=True)
class Denied:
    """Somebody does not let the rollout begin."""

    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodeReported:
    """A node spoke: of an operation of this rollout, of a component of it, of everything, or only of other things.

    Each message of a node that has an operation of the rollout is one, also an empty one: it ends the node's silence.

    Args:
        operations: Those of this rollout only.
        components: The components that the message told of; of these the rollout reads its own.
        is_full: True when the node told everything: what it did not name, it does not have.
        conditions: All that is wrong with the node after the message, whether this one told of it or not.
    """

    at: datetime
    node_id: model.NodeId
    operations: tuple[model.OperationStatus, ...] = ()
    components: tuple[model.InstalledComponent, ...] = ()
    is_full: bool = False
    conditions: tuple[model.Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time went on; deadlines up to ``at`` are due."""

    at: datetime


@dataclass(frozen=True, slots=True)
class ControllerAbsent:
    """No controller was up from ``since`` until ``at``: what passed in between is judged later (G8).

    Args:
        judge_from: Instant from which a silent node may be judged all the same: the reconnect window plus
            ``unknown_deadline`` after ``at``.
        standings: Nodes of which it is news what stands against them, as in ``StandingChanged``: what fell due in the
            absence is decided in the knowledge of all of them.
    """

    since: datetime
    at: datetime
    judge_from: datetime
    standings: tuple[tuple[model.NodeId, model.Standing], ...] = ()


@dataclass(frozen=True, slots=True)
class StandingChanged:
    """Whether a node could be changed is not what it was; also of nodes that do not change, for the floor counts them.

    Args:
        standing: What stands against it now; two empty texts for nothing.
    """

    at: datetime
    node_id: model.NodeId
    standing: model.Standing


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """A node appeared that the rollout takes in, where its policy says so.

    Args:
        changes: What brings it to where the plan leads, one for each component; in the order in which they begin.
    """

    at: datetime
    changes: tuple[model.Change, ...]


@dataclass(frozen=True, slots=True)
class NodeRemoved:
    """A node is no longer part of the fleet: nothing is waited for from it, and nothing counts against anybody."""

    at: datetime
    node_id: model.NodeId


@dataclass(frozen=True, slots=True)
class Judged:
    """Somebody has looked at what the changed nodes of a canary wave measure, against untouched ones."""

    at: datetime
    judgement: model.Judgement


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """Other rules of the monitor than before keep the rollout where it is, or none any more.

    Args:
        holds: Rules of its policy that fire, or of which nobody can tell, on a node that it has changed or on the
            fleet; one entry for each, by name.
    """

    at: datetime
    holds: tuple[model.RuleHold, ...]


@dataclass(frozen=True, slots=True)
class Paused:
    """Somebody wants nothing more to start, and every clock to stand still."""

    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """Somebody wants it to go on where it was paused."""

    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Promoted:
    """Somebody ends a bake or a verification, or gives the promotion that the policy leaves to people."""

    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants it to end where it is; what is out is given up where that is safe."""

    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """Somebody wants what failed, or never began, to be tried again; of a revert, what could not go back."""

    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class RevertRequested:
    """Somebody wants every touched node back.

    Args:
        is_emergency: All at once, whatever the floor and the parallelism.
        time_limit: For an emergency: time after which what is not back is given up; None for the progress deadline.
    """

    at: datetime
    actor: str
    reason: str
    is_emergency: bool = False
    time_limit: timedelta | None = None


Fact = NodeReported | Ticked | ControllerAbsent | StandingChanged | NodeJoined | NodeRemoved | Judged | RulesChanged
Order = Began | Approved | Denied | Paused | Resumed | Promoted | CancelRequested | RetryRequested | RevertRequested
Event = Fact | Order
