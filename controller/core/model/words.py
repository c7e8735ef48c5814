"""The closed vocabularies of the controller, and the names of its things."""

from __future__ import annotations

from enum import Enum, unique
from typing import NewType

NodeId = NewType("NodeId", str)
ComponentName = NewType("ComponentName", str)
Digest = NewType("Digest", str)
RolloutId = NewType("RolloutId", str)
OperationId = NewType("OperationId", str)
SessionId = NewType("SessionId", str)
FreezeId = NewType("FreezeId", str)
TriggerId = NewType("TriggerId", str)
FiringId = NewType("FiringId", str)


@unique
class Method(Enum):
    """How one node changes."""

    HOT_SWAP = "HOT_SWAP"
    RESTART = "RESTART"


@unique
class ChangeKind(Enum):
    """What a change does to a component on a node; the last three leave its version.

    Undoing an INSTALL is a REMOVE and the other way round, as with START and STOP; of a RESTART nothing is undone.
    """

    INSTALL = "INSTALL"
    UPGRADE = "UPGRADE"
    REMOVE = "REMOVE"
    START = "START"
    STOP = "STOP"
    RESTART = "RESTART"


@unique
class Strategy(Enum):
    """How the fleet changes.

    IMMEDIATE is one wave. ROLLING goes in batches of one size, GRADUAL in steps of growing percentages. CANARY puts few
    nodes first. BLUE_GREEN prepares every node, switches all of them together, and keeps the old version resumable
    until the new one has proved itself everywhere.
    """

    IMMEDIATE = "IMMEDIATE"
    ROLLING = "ROLLING"
    GRADUAL = "GRADUAL"
    CANARY = "CANARY"
    BLUE_GREEN = "BLUE_GREEN"


@unique
class ValidationLevel(Enum):
    """How much of a request may be wrong.

    STRICT refuses also what is only a warning; NORMAL refuses where one node cannot be changed; PERMISSIVE leaves such
    nodes out, each with its reason, and refuses where none is left.
    """

    STRICT = "STRICT"
    NORMAL = "NORMAL"
    PERMISSIVE = "PERMISSIVE"


@unique
class OfflinePolicy(Enum):
    """What becomes of nodes that are not connected: waited for, left out of the plan, or given up after a time."""

    WAIT = "WAIT"
    SKIP = "SKIP"
    EXPIRE = "EXPIRE"


@unique
class JoinPolicy(Enum):
    """What a rollout does with nodes that appear while it is under way and that its selector takes."""

    IGNORE = "IGNORE"
    INCLUDE = "INCLUDE"


@unique
class ConflictPolicy(Enum):
    """What a request does where its nodes belong to another rollout: it is refused, waits, or takes its place."""

    REJECT = "REJECT"
    QUEUE = "QUEUE"
    SUPERSEDE = "SUPERSEDE"


@unique
class Step(Enum):
    """A part of an operation."""

    FETCH = "FETCH"
    VERIFY = "VERIFY"
    STAGE = "STAGE"
    PREFLIGHT = "PREFLIGHT"
    ROLLBACK_POINT = "ROLLBACK_POINT"
    PREPARE = "PREPARE"
    SWITCH = "SWITCH"
    SOAK = "SOAK"
    COMMIT = "COMMIT"
    DRAIN = "DRAIN"
    BAKE = "BAKE"
    ABORT = "ABORT"


@unique
class OperationState(Enum):
    """The state of one change asked of one agent."""

    __hash__ = object.__hash__  # as good for members, which exist once; a step looks many of them up

    ASSIGNED = "ASSIGNED"
    ACCEPTED = "ACCEPTED"
    RUNNING = "RUNNING"
    HELD = "HELD"
    COMMITTED = "COMMITTED"
    PERMANENT = "PERMANENT"
    REFUSED = "REFUSED"
    ABORTED = "ABORTED"
    UNKNOWN = "UNKNOWN"
    EXPIRED = "EXPIRED"


@unique
class Fault(Enum):
    """Whose fault it is that an operation did not succeed; only VERSION ever reverts a rollout (G8)."""

    VERSION = "VERSION"
    INFRASTRUCTURE = "INFRASTRUCTURE"
    COMMAND = "COMMAND"


@unique
class Health(Enum):
    """What the health probe of a component last said; UNKNOWN until it has spoken."""

    UNKNOWN = "UNKNOWN"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"


@unique
class InstanceState(Enum):
    """Where an instance stands in the hand-over protocol."""

    STARTING = "STARTING"
    PREPARED = "PREPARED"
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    DRAINING = "DRAINING"
    EXITED = "EXITED"


@unique
class RolloutState(Enum):
    """The state of a rollout."""

    __hash__ = object.__hash__  # as above

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    REVERTING = "REVERTING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    REVERTED = "REVERTED"
    STUCK = "STUCK"

    @property
    def is_terminal(self) -> bool:
        """True where nothing more happens by itself."""
        return self in TERMINAL_ROLLOUT_STATES


@unique
class ApprovalState(Enum):
    """What became of an approval; only APPROVED lets its rollout begin.

    WITHDRAWN is what the rollout was cancelled before: nobody has to decide any more.
    """

    WAITING = "WAITING"
    APPROVED = "APPROVED"
    DENIED = "DENIED"
    EXPIRED = "EXPIRED"
    WITHDRAWN = "WITHDRAWN"


@unique
class TriggerKind(Enum):
    """When a trigger fires."""

    THRESHOLD = "THRESHOLD"
    DEGRADATION = "DEGRADATION"
    SCHEDULE = "SCHEDULE"
    EVENT = "EVENT"
    VERSION_AVAILABLE = "VERSION_AVAILABLE"
    MANUAL = "MANUAL"


@unique
class TriggerActionKind(Enum):
    """What a trigger does."""

    NOTIFY = "NOTIFY"
    UPGRADE = "UPGRADE"
    ROLLBACK = "ROLLBACK"


@unique
class MissedPolicy(Enum):
    """What becomes of runs of a schedule that fell due while nobody looked: none of them is made up for, or one is."""

    SKIP = "SKIP"
    ONCE = "ONCE"


@unique
class FiringState(Enum):
    """The state of a firing.

    HELD waits for a guard. APPROVAL_AWAITED waits for somebody's word. ACTING asks for what is to be done. RUNNING
    waits for the end of its rollout. The last three are ends; DROPPED is one on which nothing was done.
    """

    __hash__ = object.__hash__  # as above

    HELD = "HELD"
    APPROVAL_AWAITED = "APPROVAL_AWAITED"
    ACTING = "ACTING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    DROPPED = "DROPPED"


TERMINAL_ROLLOUT_STATES = frozenset(
    {
        RolloutState.SUCCEEDED,
        RolloutState.FAILED,
        RolloutState.CANCELLED,
        RolloutState.REVERTED,
        RolloutState.STUCK,
    }
)


@unique
class Gate(Enum):
    """The decision on a wave."""

    PROMOTE = "PROMOTE"
    HOLD = "HOLD"
    REVERT = "REVERT"
    FAIL = "FAIL"
