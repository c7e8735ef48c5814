"""What may happen to a rollout: a closed union; each event carries the instant at which it is taken to happen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controller.core import model


@dataclass(frozen=True, slots=True)
class Began:
    """A controller owns the rollout and may send operations."""

    at: datetime


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
    """

    since: datetime
    at: datetime
    judge_from: datetime


@dataclass(frozen=True, slots=True)
class RevertRequested:
    """Somebody wants every touched node back."""

    at: datetime
    actor: str
    reason: str


Event = Began | NodeReported | Ticked | ControllerAbsent | RevertRequested
