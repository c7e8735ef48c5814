"""What is known of the fleet: releases, nodes, and what agents say.

What a node runs comes from its own reports and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from controller.core.model.analysis import SeriesKind
from controller.core.model.words import (
    ComponentName,
    Digest,
    Fault,
    Health,
    InstanceState,
    Method,
    NodeId,
    OperationId,
    OperationState,
    Step,
)


@dataclass(frozen=True, slots=True)
class Migration:
    """A way from one schema of a state to another; backwards where the second is the lower one."""

    from_schema: int
    to_schema: int


@dataclass(frozen=True, slots=True)
class StateSchema:
    """What a component keeps over its versions.

    Args:
        schema: The one that this version writes, from 1.
        reads: Older ones that it reads and writes as they are.
        has_snapshot: A rollback point holds a copy.
    """

    schema: int
    reads: tuple[int, ...] = ()
    has_snapshot: bool = False
    migrations: tuple[Migration, ...] = ()


@dataclass(frozen=True, slots=True)
class Requirement:
    """Another component that must be on the node; ``versions`` are comparators of SemVer, empty for any."""

    component: ComponentName
    versions: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a component; its identity is the digest, its order is SemVer.

    Args:
        version: SemVer 2.0 text.
        digest: ``sha256:`` and 64 hexadecimal digits, over the bytes of the bundle.
        driver: Name of the driver that upgrades it.
        manifest_json: The manifest as proto JSON; opaque here, shown by the API.
        publisher: Who published it.
        methods: Those that the release itself allows; which of them a node can do is its driver's to say.
        state: None where it keeps none.
        hot_swap_from: Comparators of SemVer that the version before must pass for a hot swap; empty for all.
    """

    component: ComponentName
    version: str
    digest: Digest
    size_bytes: int
    driver: str
    manifest_json: str
    published_at: datetime
    publisher: str
    methods: frozenset[Method] = frozenset(Method)
    state: StateSchema | None = None
    hot_swap_from: str = ""
    requirements: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """One running process group of a component, as reported.

    Args:
        restarts: How often it was started again after it ended by itself.
    """

    id: str
    digest: Digest
    pid: int
    state: InstanceState
    served: int
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class InstalledComponent:
    """What a node said of one component; the agent's word, never our guess.

    Args:
        healthy_for: Time without a break for which the current version has been healthy, by the agent's clock.
        is_stopped: Somebody has stopped it on purpose.
    """

    name: ComponentName
    version: str
    digest: Digest
    permanent_digest: Digest
    health: Health
    healthy_for: timedelta
    instances: tuple[Instance, ...] = ()
    is_stopped: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is wrong with a node, as it said.

    Args:
        code: Stable, in snake_case; those that decide anything here are the constants below, all are shown.
        component: Empty for the whole node.
        since: On the agent's clock.
    """

    code: str
    component: str
    message: str
    since: datetime


METRICS_CAPPED = "metrics_capped"  # more series than a node may show; the controller's own word
JOURNAL_FAILED = "journal_failed"  # the node cannot make anything durable: it would refuse whatever it were asked
DRIFT = "drift"  # what runs, or its files, is not what was last committed there


@dataclass(frozen=True, slots=True)
class Node:
    """One host with an agent, as the controller knows it.

    Args:
        fence: Highest fence given out for the node.
        last_seen_at: None until the agent has spoken since the store was made.
        operation_id: The operation that holds the node, from ASSIGNED to COMMIT; None when it is free.
        bad_digests: Digests that the node left for cause, with the reason; it is not offered them again (G9).
        conditions: What is wrong with it, as it last said.
        cordoned_because: Why it is given no operations and counts as unavailable; empty where it is not cordoned.
        quarantined_because: Why it is not trusted, and left out of everything; empty where it is trusted.
        own_labels: Those that its agent has; ``labels`` are these under the ones that operators set.
        set_labels: Those that operators set; an empty value takes a label away.
        offline_since: Since when it has been away, once that is no mere reconnect; None while it is there.
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
    conditions: tuple[Condition, ...] = ()
    cordoned_because: str = ""
    quarantined_because: str = ""
    own_labels: Mapping[str, str] = field(default_factory=dict)
    set_labels: Mapping[str, str] = field(default_factory=dict)
    offline_since: datetime | None = None

    def has_drifted(self, component: ComponentName) -> bool:
        """Tell whether what the node runs of a component is not what was last committed there."""
        return any(each.code == DRIFT and each.component == component for each in self.conditions)


def hindrance(conditions: Iterable[Condition]) -> Condition | None:
    """Find the condition for which a node is unavailable: it is given no operation until it says that it is over."""
    return next((each for each in conditions if each.code == JOURNAL_FAILED), None)


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
    """One measured value.

    Args:
        component: Empty for the host.
        life: Of a counter, the number of the process that counts; a higher one is younger, 0 where it is not known.
    """

    name: str
    component: str
    value: float
    kind: SeriesKind = SeriesKind.GAUGE
    life: int = 0


@dataclass(frozen=True, slots=True)
class SeriesChunk:
    """What one component of one node showed over some minutes, as it is stored; ``body`` is `controller.metrics`' own.

    Args:
        component: Empty for the host.
    """

    node_id: NodeId
    component: str
    began_at: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one message of an agent said; absent is unchanged, unless ``is_full``.

    Args:
        conditions: Everything that is wrong; None where that has not changed.
        gone_metrics: Names and components of metrics that are no longer shown: unknown from here on.
        sent_at: When it was sent, on the agent's clock; None where it does not say.
    """

    metrics: tuple[Metric, ...] = ()
    components: tuple[InstalledComponent, ...] = ()
    removed: tuple[ComponentName, ...] = ()
    operations: tuple[OperationStatus, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    is_full: bool = False
    conditions: tuple[Condition, ...] | None = None
    gone_metrics: tuple[tuple[str, str], ...] = ()
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a node could be changed now, and whether it counts as available; empty texts where nothing is to be said.

    Args:
        down: Why nothing may start on it, and it counts as unavailable: not connected, cordoned, changed by another.
        frozen: Why nothing may start on it though it is up.
        unwell: Why it counts as unavailable though it may be changed: what the rollout changes is unwell there, by no
            doing of the rollout. A change may be what heals it.
    """

    down: str = ""
    frozen: str = ""
    unwell: str = ""

    @property
    def is_unavailable(self) -> bool:
        """True where the node is missing from the floor and from its failure domain."""
        return bool(self.down or self.unwell)


@dataclass(frozen=True, slots=True)
class Reason:
    """One link of a chain of reasons; each follows from the next.

    Args:
        since: None where that is not known.
    """

    code: str
    message: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class MetricCounts:
    """What is collected of the nodes, since collection began; nothing while it does not run.

    Args:
        is_collecting: Whether it runs.
        series: Series that are kept, over all nodes.
        samples: Readings that were taken, each of all series of one component on one node.
        refused: Values that were refused: no number, or of more series than a node may have.
        fresh_nodes: Nodes that told of their series a short time ago.
        capped_nodes: Nodes that show more series than they may.
    """

    is_collecting: bool = False
    series: int = 0
    samples: int = 0
    refused: int = 0
    fresh_nodes: int = 0
    capped_nodes: int = 0


@dataclass(frozen=True, slots=True)
class Statistics:
    """The work of the fleet, counted; one consistent set.

    Args:
        queued: Changes that wait for their operation, in rollouts that are under way.
        active: Operations that hold a node.
        completed: Operations that became permanent, since the store was made.
        failed: Operations that failed, those that timed out among them.
        distributed: Operations that were given to a node.
        timed_out: Operations whose node was silent for too long.
        mean_duration: Of the completed ones; None where there is none.
        refused: Requests that were refused.
        metrics: What is collected of the nodes.
        rules_firing: Rules of the monitor that fire, counted by rule and node.
        rules_unknown: Rules of which nobody can tell, counted alike.
    """

    queued: int
    active: int
    completed: int
    failed: int
    distributed: int
    timed_out: int
    mean_duration: timedelta | None
    total_nodes: int
    active_nodes: int
    refused: int
    metrics: MetricCounts = MetricCounts()
    rules_firing: int = 0
    rules_unknown: int = 0


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
