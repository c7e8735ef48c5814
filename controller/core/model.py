"""The nouns of the controller: what is known of the fleet, what is asked, and how far it is.

Rules kept here: values only, frozen; every instant is an aware UTC datetime and every span of time a timedelta;
what a node runs comes from its own reports and from nowhere else. Left out: how any of this changes (`rollout`),
how it is stored (`controller.store`) and how it is said on the wire (`controller.rpc`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import NewType

from rpds import HashTrieMap

NodeId = NewType("NodeId", str)
ComponentName = NewType("ComponentName", str)
Digest = NewType("Digest", str)
RolloutId = NewType("RolloutId", str)
OperationId = NewType("OperationId", str)
SessionId = NewType("SessionId", str)


@unique
class Method(Enum):
    """How one node changes."""

    HOT_SWAP = "HOT_SWAP"
    RESTART = "RESTART"


@unique
class ChangeKind(Enum):
    """What a change does to a component on a node; undoing an INSTALL is a REMOVE."""

    INSTALL = "INSTALL"
    UPGRADE = "UPGRADE"
    REMOVE = "REMOVE"


@unique
class Strategy(Enum):
    """How the fleet changes."""

    IMMEDIATE = "IMMEDIATE"
    CANARY = "CANARY"


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


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a component; its identity is the digest, its order is SemVer.

    Args:
        version: SemVer 2.0 text.
        digest: ``sha256:`` and 64 hexadecimal digits, over the bytes of the bundle.
        driver: Name of the driver that upgrades it.
        manifest_json: The manifest as proto JSON; opaque here, shown by the API.
        publisher: Who published it.
    """

    component: ComponentName
    version: str
    digest: Digest
    size_bytes: int
    driver: str
    manifest_json: str
    published_at: datetime
    publisher: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One running process group of a component, as reported."""

    id: str
    digest: Digest
    pid: int
    state: InstanceState
    served: int


@dataclass(frozen=True, slots=True)
class InstalledComponent:
    """What a node said of one component; the agent's word, never our guess.

    Args:
        healthy_for: Time without a break for which the current version has been healthy, by the agent's clock.
    """

    name: ComponentName
    version: str
    digest: Digest
    permanent_digest: Digest
    health: Health
    healthy_for: timedelta
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """One host with an agent, as the controller knows it.

    Args:
        fence: Highest fence given out for the node.
        last_seen_at: None until the agent has spoken since the store was made.
        operation_id: The operation that holds the node, from ASSIGNED to COMMIT; None when it is free.
        bad_digests: Digests that the node left for cause, with the reason; it is not offered them again (G9).
    """

    id: NodeId
    labels: Mapping[str, str]
    capabilities: frozenset[str]
    agent_version: str
    fence: int
    is_connected: bool
    last_seen_at: datetime | None
    components: Mapping[ComponentName, InstalledComponent]
    operation_id: OperationId | None = None
    bad_digests: Mapping[Digest, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of a strategy, each with its default.

    Args:
        max_parallel: Operations at the same time within a wave; 0 for as many as the wave has.
        min_healthy_duration: How long a changed node must be healthy without a break (G7).
        healthy_deadline: Time after COMMIT within which that must come true.
        progress_deadline: Time without a node becoming healthy after which the rollout fails.
        unknown_deadline: Silence after which an operation counts as UNKNOWN, against the infrastructure.
        max_failures: Nodes that may fail before the rollout reverts.
        soak_duration: Time between SWITCH and COMMIT.
        soak_requests_min: Requests that the new instance must have answered in the soak.
    """

    max_parallel: int = 0
    min_healthy_duration: timedelta = timedelta(seconds=10)
    healthy_deadline: timedelta = timedelta(minutes=5)
    progress_deadline: timedelta = timedelta(minutes=10)
    unknown_deadline: timedelta = timedelta(minutes=5)
    max_failures: int = 0
    soak_duration: timedelta = timedelta(seconds=5)
    soak_requests_min: int = 0


@dataclass(frozen=True, slots=True)
class CanaryParameters:
    """Parameters of CANARY: how many nodes go first."""

    nodes: int = 1


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """What somebody asks for.

    Args:
        selector: Kubernetes label selector; empty for all nodes.
        parameters: Those of the strategy; None where it has none.
        install: True when nodes that lack the component shall get it.
        name: For people; never empty once accepted.
    """

    component: ComponentName
    target_version: str
    strategy: Strategy
    selector: str = ""
    parameters: CanaryParameters | None = None
    policy: Policy = field(default_factory=Policy)
    install: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One component on one node; `from_*` is empty for INSTALL, `to_*` for REMOVE."""

    node_id: NodeId
    component: ComponentName
    kind: ChangeKind
    method: Method
    from_version: str
    from_digest: Digest
    to_version: str
    to_digest: Digest


@dataclass(frozen=True, slots=True)
class ChangeKey:
    """What tells the changes of one rollout apart: hops put one component on one node into several waves."""

    wave: int
    node_id: NodeId
    component: ComponentName


@dataclass(frozen=True, slots=True)
class Wave:
    """An ordered group of changes.

    Args:
        index: From 1.
        is_canary: True for the small first wave of CANARY.
    """

    index: int
    is_canary: bool
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer before anything moves.

    Args:
        fingerprint: Hash over what the plan depends on: membership, labels used, committed digests, policy;
            never liveness or metrics.
        unchanged: Nodes that the selector takes and that run the target already.
    """

    fingerprint: str
    waves: tuple[Wave, ...]
    unchanged: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one change is; one state row each.

    Args:
        change: As planned; what undoes it is derived.
        attempt: How-manieth operation in the present direction; 0 before the first.
        is_reverting: True when the latest operation undoes the change.
        operation_id: The latest operation.
        state: Its state; None before the first.
        step: The step that it was last seen in.
        fault: Whose fault it is, when it failed.
        reason: Short code, when it failed.
        assigned_at: When the latest operation was assigned.
        committed_at: When its COMMIT was heard of.
        deadline_at: Instant after which the present state is judged; stored, never re-armed by a restart.
        is_judgeable: False between a controller's absence and the node's fresh report (G8).
        is_touched: True once an operation of the change has been committed: a revert has to take it back.
    """

    change: Change
    wave: int
    attempt: int = 0
    is_reverting: bool = False
    operation_id: OperationId | None = None
    state: OperationState | None = None
    step: Step | None = None
    fault: Fault | None = None
    reason: str = ""
    message: str = ""
    assigned_at: datetime | None = None
    committed_at: datetime | None = None
    ended_at: datetime | None = None
    deadline_at: datetime | None = None
    is_judgeable: bool = True
    is_touched: bool = False

    @property
    def key(self) -> ChangeKey:
        """What tells this change apart within its rollout."""
        return ChangeKey(self.wave, self.change.node_id, self.change.component)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A plan being carried out; one state row, and one for each change.

    Args:
        wave: Number of the wave that is out; 0 before the first.
        progress_by: Instant by which the next node must have become healthy.
        revision: Raised by one with each stored state; the store compares and sets it.
    """

    id: RolloutId
    request: UpgradeRequest
    plan: Plan
    state: RolloutState
    actor: str
    created_at: datetime
    changes: HashTrieMap[ChangeKey, Progress]
    wave: int = 0
    wave_started_at: datetime | None = None
    ended_at: datetime | None = None
    progress_by: datetime | None = None
    reason: str = ""
    message: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One journalled step of an operation, as the agent told it; the controller derives a span from it.

    Args:
        index: Number within the operation, from 1.
        started_at: On the agent's clock, as is ``ended_at``.
    """

    operation_id: OperationId
    index: int
    step: Step
    started_at: datetime
    ended_at: datetime
    is_success: bool
    evidence: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OperationStatus:
    """What an agent knows of one operation."""

    operation_id: OperationId
    fence: int
    component: ComponentName
    state: OperationState
    step: Step | None
    fault: Fault | None
    reason: str
    message: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured value; ``component`` is empty for the host."""

    name: str
    component: str
    value: float


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one message of an agent said; absent is unchanged, unless ``is_full``."""

    metrics: tuple[Metric, ...] = ()
    components: tuple[InstalledComponent, ...] = ()
    removed: tuple[ComponentName, ...] = ()
    operations: tuple[OperationStatus, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    is_full: bool = False


@dataclass(frozen=True, slots=True)
class NodeHello:
    """How an agent introduced itself."""

    node_id: NodeId
    boot_id: str
    instance_token: str
    agent_version: str
    capabilities: frozenset[str]
    highest_fence: int
    labels: Mapping[str, str]
    report: NodeReport
