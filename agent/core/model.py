"""The nouns of a node: what it is asked, what it runs, and what it tells of itself.

Rules kept here: values only, frozen; every span of time is a timedelta and every instant an aware UTC datetime of the
agent's own clock. Deadlines that this node keeps by itself are not here: they are monotonic seconds and belong to
`operation`. Left out: the wire (`agent.link`), the manifest's TOML (`agent.config`) and the journal's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, unique


@unique
class Method(Enum):
    """How this node changes."""

    HOT_SWAP = "HOT_SWAP"
    RESTART = "RESTART"


@unique
class ChangeKind(Enum):
    """What a change does to a component; undoing an INSTALL is a REMOVE."""

    INSTALL = "INSTALL"
    UPGRADE = "UPGRADE"
    REMOVE = "REMOVE"


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


@dataclass(frozen=True, slots=True)
class Assignment:
    """One change asked of this node.

    Args:
        fence: The node's counter at the time of the assignment; lower than the highest seen is stale.
        attempt: How-manieth operation for the same change, from 1.
        from_digest: What the node must run now; empty for INSTALL.
        to_digest: What it shall run; empty for REMOVE.
        to_version: Version of ``to_digest``, for people.
        hold_before: SWITCH, COMMIT or None: where to wait for Proceed.
        start_by: Instant after which the node refuses to begin.
        deadline: Time from the first sight of the assignment until COMMIT; past it the node aborts.
        soak_requests_min: Requests that the new instance must have answered in the soak; fewer aborts.
        min_healthy_duration: Time without a break that the new version must be healthy after COMMIT.
        healthy_deadline: Time after COMMIT within which that must come true.
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


@dataclass(frozen=True, slots=True)
class Assign:
    """The controller wants a change."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Proceed:
    """A held operation may go on."""

    operation_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """An operation shall be given up; too late after COMMIT."""

    operation_id: str
    fence: int
    reason: str


Command = Assign | Proceed | Cancel


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """Passes when the answer to GET has a status from 200 to 399."""

    path: str


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """Passes when the private probe socket accepts a connection."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks an instance whether it is well.

    Args:
        failure_threshold: Failures in a row that make the instance unhealthy, from 1.
    """

    check: HttpCheck | TcpCheck
    period: timedelta
    timeout: timedelta
    failure_threshold: int


@dataclass(frozen=True, slots=True)
class Socket:
    """A listening socket that the keeper holds; the node's configuration maps its name to an address."""

    name: str
    backlog: int


@dataclass(frozen=True, slots=True)
class MetricsSource:
    """Where an instance shows its metrics as Prometheus text, and which series are reported."""

    path: str
    series: tuple[str, ...]
    period: timedelta


@dataclass(frozen=True, slots=True)
class Manifest:
    """How one version of a component is run, probed and upgraded.

    Args:
        command: Program and arguments as the bundle says them; resolved against the release when started.
        prepare_timeout: Time that a new instance may take until it says prepared.
        drain_timeout: Time that an old instance may take to finish its connections.
        stop_timeout: Time between SIGTERM and SIGKILL.
        minimum_agent_version: SemVer text; empty for any.
    """

    name: str
    version: str
    driver: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    sockets: tuple[Socket, ...]
    readiness: Probe | None
    health: Probe | None
    metrics: MetricsSource | None
    prepare_timeout: timedelta
    drain_timeout: timedelta
    stop_timeout: timedelta
    minimum_agent_version: str = ""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of an operation that has ended; repeated to the controller until it is acknowledged.

    Args:
        index: Number within the operation, from 1.
        evidence: What was seen; at most 16 entries.
    """

    operation_id: str
    index: int
    step: Step
    started_at: datetime
    ended_at: datetime
    is_success: bool
    evidence: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OperationStatus:
    """What this node knows of one operation; repeated until it is acknowledged.

    Args:
        step: The step that runs, or that the operation ended in.
        fault: Whose fault it is; None where it succeeded or goes on.
        reason: Short code, for example ``health_probe_failed``.
        message: One sentence for people.
    """

    operation_id: str
    fence: int
    component: str
    state: OperationState
    step: Step | None
    fault: Fault | None
    reason: str
    message: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Instance:
    """One running process group of a component."""

    id: str
    digest: str
    pid: int
    state: InstanceState
    served: int


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """What this node runs of one component.

    Args:
        permanent_digest: What the node goes back to; empty before the first bake has passed.
        healthy_for: Time without a break for which the current instance has been healthy.
    """

    name: str
    version: str
    digest: str
    permanent_digest: str
    health: Health
    healthy_for: timedelta
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured value; ``component`` is empty for the host."""

    name: str
    component: str
    value: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a node tells of itself: everything, or in a delta what has changed.

    Args:
        removed: Names of components that have left the node.
    """

    metrics: tuple[Metric, ...] = ()
    components: tuple[ComponentStatus, ...] = ()
    removed: tuple[str, ...] = ()
    operations: tuple[OperationStatus, ...] = ()
    steps: tuple[StepRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class HelloFacts:
    """What opens a session beside the full report.

    Args:
        boot_id: Identity of this run of the kernel.
        instance_token: Random identity of this keeper's life.
        highest_fence: Highest fence that this node has ever seen.
    """

    boot_id: str
    instance_token: str
    agent_version: str
    capabilities: tuple[str, ...]
    highest_fence: int
    labels: Mapping[str, str] = field(default_factory=dict)
