"""What a node tells of itself: operations and their steps, components, what is wrong, metrics.

Rules kept here: repeated until it is acknowledged. Left out: when it is told (`session`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.core.model.words import Fault, Health, InstanceState, OperationState, SeriesKind, Step


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
    """One running process group of a component, as its driver shows it.

    Args:
        pid: 0 where it has no process now.
        served: Requests answered since it started; 0 where it does not count.
        is_kept: It is the committed one of its component.
        restarts: How often it was started again after it ended by itself.
        started_at_seconds: Monotonic instant at which its process began; orders instances by age.
        is_broken: It ended too often and is not started again by itself.
    """

    id: str
    digest: str
    pid: int
    state: InstanceState
    served: int
    is_kept: bool = False
    restarts: int = 0
    started_at_seconds: float = 0.0
    is_broken: bool = False


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """What this node runs of one component.

    Args:
        permanent_digest: What the node goes back to; empty before the first bake has passed.
        healthy_for: Time without a break for which the current instance has been healthy.
        is_stopped: Somebody has stopped it on purpose.
    """

    name: str
    version: str
    digest: str
    permanent_digest: str
    health: Health
    healthy_for: timedelta
    instances: tuple[Instance, ...] = ()
    is_stopped: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is wrong with this node.

    Args:
        code: Stable, in snake_case: ``journal_failed``, ``drift``, ``crash_loop``, ``disk_low``.
        component: Empty for the whole node.
    """

    code: str
    component: str
    message: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured value.

    Args:
        component: Empty for the host.
        life: Of a counter, the number of the process that counts: a higher one is younger and began at 0; 0 where that
            is not known.
    """

    name: str
    component: str
    value: float
    kind: SeriesKind = SeriesKind.GAUGE
    life: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """What names it: its own name and its component's."""
        return self.name, self.component


@dataclass(frozen=True, slots=True)
class Report:
    """What a node tells of itself: everything, or in a delta what has changed.

    Args:
        removed: Names of components that have left the node.
        conditions: Everything that is wrong; None in a delta where that has not changed.
        gone_metrics: Names and components of metrics that are shown no longer.
    """

    metrics: tuple[Metric, ...] = ()
    components: tuple[ComponentStatus, ...] = ()
    removed: tuple[str, ...] = ()
    operations: tuple[OperationStatus, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    conditions: tuple[Condition, ...] | None = None
    gone_metrics: tuple[tuple[str, str], ...] = ()


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
