"""The closed vocabularies of a node: how it changes, what is asked of it, and where things stand.

Rules kept here: each value is the text that records and the wire have. Left out: what is told with them.
"""

from __future__ import annotations

from enum import Enum, unique


@unique
class Method(Enum):
    """How this node changes."""

    HOT_SWAP = "HOT_SWAP"
    RESTART = "RESTART"


@unique
class ChangeKind(Enum):
    """What a change does to a component; undoing an INSTALL is a REMOVE; the last three leave its version."""

    INSTALL = "INSTALL"
    UPGRADE = "UPGRADE"
    REMOVE = "REMOVE"
    START = "START"
    STOP = "STOP"
    RESTART = "RESTART"


@unique
class SeriesKind(Enum):
    """What a measured value is: one that only grows until its process ends, or one that goes up and down."""

    COUNTER = "COUNTER"
    GAUGE = "GAUGE"


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
    """The state of one change asked of this node."""

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
    """Whose fault it is that an operation did not succeed; only VERSION ever reverts a rollout."""

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
class OnAgentStop(Enum):
    """What becomes of a component when its agent is stopped by hand, by its package or with the host."""

    KEEP = "KEEP"
    STOP = "STOP"


@unique
class ReloadProgram(Enum):
    """A program with its own way to change while it serves."""

    NGINX = "NGINX"
    GUNICORN = "GUNICORN"
    UVICORN = "UVICORN"
