"""What is asked, and what will be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, cast

from controller.core.model.advice import NOTHING_TO_DO, Advice, Estimate
from controller.core.model.analysis import Analysis, Forecast
from controller.core.model.words import (
    ChangeKind,
    ComponentName,
    ConflictPolicy,
    Digest,
    FreezeId,
    JoinPolicy,
    Method,
    NodeId,
    OfflinePolicy,
    Strategy,
    ValidationLevel,
)


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the week in which operations may start.

    Args:
        days: ISO numbers of the days on which it opens, 1 for Monday; empty for every day.
        opens: Time of the day, since midnight on the wall clock of the zone.
        duration: How long it stays open, at most a week.
        time_zone: IANA name, for example ``Europe/Berlin``.
    """

    opens: timedelta
    duration: timedelta
    days: frozenset[int] = frozenset()
    time_zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Freeze:
    """A time in which no operation starts on the nodes that it covers.

    Args:
        selector: Label selector of the nodes; empty for all.
        until: None until somebody lifts it.
        is_emergency: Set by an emergency rollback; nothing starts but what takes nodes back.
    """

    id: FreezeId
    selector: str
    since: datetime
    until: datetime | None
    reason: str
    actor: str
    is_emergency: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of a strategy, each with its default.

    Args:
        max_parallel: Operations at the same time within a wave; 0 for as many as the wave has.
        min_healthy_duration: How long a changed node must be healthy without a break (G7).
        healthy_deadline: Time after COMMIT within which that must come true.
        progress_deadline: Time without a node becoming healthy after which the rollout fails.
        unknown_deadline: Silence after which an operation counts as UNKNOWN, against the infrastructure.
        max_failures: Nodes that may fail by the version's fault before the rollout reverts.
        max_infrastructure_failures: Nodes that may fail otherwise before it fails; None for as many as max_failures.
        soak_duration: Time between SWITCH and COMMIT.
        soak_requests_min: Requests that the new instance must have answered in the soak.
        restart_allowed: A change that cannot be a hot swap may be a restart; else it is refused when it is planned.
        discard_writes: Going back to an older state schema may drop what was written since the rollback point.
        floor_percent: Share of the nodes with the component, rounded up, that must stay available: not under change,
            not down for other causes (G5); 0 for no floor.
        domain_label: Label that names the failure domain of a node; empty for none.
        domain_max_parallel: Nodes of one failure domain that may be unavailable at the same time.
        bake_duration: Time after the last node of a wave was done before the next wave begins.
        is_promoted_by_hand: The first wave is followed by the next only once somebody promotes it.
        windows: Operations start in one of them only, and only if they are expected to end in it; empty for always.
        offline: What becomes of nodes that are not connected.
        offline_deadline: For EXPIRE: time after which such a node is given up.
        join: What becomes of nodes that appear later.
        revert_max_parallel: Operations at the same time where nodes go back; 0 for as many as there are.
        deadline: Time after the start after which the rollout fails whatever its progress; None for none.
        hold_while_firing: Names of rules of the monitor: while one of them fires, or nobody can tell, on a node that
            the rollout has changed or on the fleet, no wave is promoted and nothing new starts.
    """

    max_parallel: int = 0
    min_healthy_duration: timedelta = timedelta(seconds=10)
    healthy_deadline: timedelta = timedelta(minutes=5)
    progress_deadline: timedelta = timedelta(minutes=10)
    unknown_deadline: timedelta = timedelta(minutes=5)
    max_failures: int = 0
    soak_duration: timedelta = timedelta(seconds=5)
    soak_requests_min: int = 0
    restart_allowed: bool = False
    discard_writes: bool = False
    max_infrastructure_failures: int | None = None
    floor_percent: int = 0
    domain_label: str = ""
    domain_max_parallel: int = 1
    bake_duration: timedelta = timedelta()
    is_promoted_by_hand: bool = False
    windows: tuple[Window, ...] = ()
    offline: OfflinePolicy = OfflinePolicy.WAIT
    offline_deadline: timedelta = timedelta(hours=24)
    join: JoinPolicy = JoinPolicy.IGNORE
    revert_max_parallel: int = 0
    deadline: timedelta | None = None
    hold_while_firing: tuple[str, ...] = ()

    @property
    def infrastructure_failures_max(self) -> int:
        """Nodes that may fail by no fault of the version."""
        return self.max_failures if self.max_infrastructure_failures is None else self.max_infrastructure_failures


@dataclass(frozen=True, slots=True)
class RollingParameters:
    """Parameters of ROLLING: how many nodes a batch has."""

    batch_nodes: int = 1


@dataclass(frozen=True, slots=True)
class GradualParameters:
    """Parameters of GRADUAL: how much of the nodes has been changed after each wave, growing, at last 100."""

    percents: tuple[int, ...] = (5, 25, 50, 100)


@dataclass(frozen=True, slots=True)
class CanaryParameters:
    """Parameters of CANARY: how many nodes go first, and how these are judged, if more than their health counts."""

    nodes: int = 1
    analysis: Analysis | None = None


@dataclass(frozen=True, slots=True)
class BlueGreenParameters:
    """Parameters of BLUE_GREEN: how long all new versions serve before the old ones are let go."""

    verify_duration: timedelta = timedelta(seconds=10)


Parameters = RollingParameters | GradualParameters | CanaryParameters | BlueGreenParameters


@dataclass(frozen=True, slots=True)
class Target:
    """Another component that is changed by the same request, and the version that it shall have."""

    component: ComponentName
    version: str


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """What somebody asks for.

    Args:
        selector: Kubernetes label selector; empty for all nodes.
        parameters: Those of the strategy; None for its defaults.
        target_version: Empty where a kind is asked for. A version, or the name of a channel.
        install: True when nodes that lack the component shall get it.
        name: For people; never empty once accepted.
        kind: REMOVE, START, STOP or RESTART of what is installed; None for the target version.
        also: Components that change by the same rollout, before or after by what requires what.
        level: How much may be wrong.
        conflict: What to do where another rollout has some of the nodes.
        priority: Among requests that wait for the same nodes the highest is first.
        is_revertible: False where a fault of the version stops the rollout instead of taking nodes back.
        downgrade_allowed: The target may be lower than what runs, where a way down exists.
        approval_deadline: Time within which somebody has to approve the rollout; None where nobody has to.
    """

    component: ComponentName
    target_version: str
    strategy: Strategy
    selector: str = ""
    parameters: Parameters | None = None
    policy: Policy = field(default_factory=Policy)
    install: bool = False
    name: str = ""
    kind: ChangeKind | None = None
    also: tuple[Target, ...] = ()
    level: ValidationLevel = ValidationLevel.NORMAL
    conflict: ConflictPolicy = ConflictPolicy.REJECT
    priority: int = 0
    is_revertible: bool = True
    downgrade_allowed: bool = False
    approval_deadline: timedelta | None = None

    @property
    def purpose(self) -> str:
        """What is asked of the component, in a word: the target version, or the kind."""
        return self.target_version if self.kind is None else self.kind.value.lower()


@dataclass(frozen=True, slots=True)
class Change:
    """One component on one node; `from_*` is empty for INSTALL, `to_*` for REMOVE; START, STOP and RESTART keep them.

    Args:
        method: Also that of what undoes it.
        no_way_back: Why it could not be undone once it is committed, in a sentence; empty where it can.
        why_method: Why it is no hot swap, in a few words; empty where it is one.
        domain: Failure domain of the node, where the policy names a label for it.
    """

    node_id: NodeId
    component: ComponentName
    kind: ChangeKind
    method: Method
    from_version: str
    from_digest: Digest
    to_version: str
    to_digest: Digest
    no_way_back: str = ""
    why_method: str = ""
    domain: str = ""


class ChangeKey(NamedTuple):
    """What tells the changes of one rollout apart: hops put one component on one node into several waves.

    A tuple, for every step looks some of them up, and tuples are hashed and compared without running Python code.
    """

    wave: int
    node_id: NodeId
    component: ComponentName


@dataclass(frozen=True, slots=True)
class Wave:
    """An ordered group of changes.

    Args:
        index: From 1.
        is_canary: True for the small first wave of CANARY.
        bake_duration: Time after its last node was done before the next wave begins: the policy's, or a barrier's.
        why: What it is one of, for people: the canary, a hop over a barrier, what others require; often empty.
    """

    index: int
    is_canary: bool
    changes: tuple[Change, ...]
    bake_duration: timedelta = timedelta()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Why a node that the selector takes is not changed.

    Args:
        code: Stable, in snake_case, for example ``node_cordoned``.
        message: One sentence for people.
    """

    node_id: NodeId
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class PlanWarning:
    """Something about a plan that is allowed and worth knowing."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class CapacityPoint:
    """How many nodes are available at the worst moment of a wave.

    Args:
        after: Time since the start at which the wave is expected to begin.
        available_min: Nodes that stay available while as many change as the policy lets.
        total: Nodes that have the component, or will.
    """

    wave: int
    after: timedelta
    available_min: int
    total: int


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """What is put at risk.

    Args:
        nodes: Nodes that change.
        of_nodes: Nodes that have the component.
        first_wave: Nodes that change before the first gate.
        domains: Nodes that change, by failure domain; empty where the policy names none.
    """

    nodes: int
    of_nodes: int
    first_wave: int
    domains: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """Where each change of a plan stands, by its number: from 0, in the order of the plan.

    Args:
        changes: By number.
        keys: By number.
        of_node: Numbers of the changes of a node, ascending.
        lanes: For each wave, the numbers of its changes by failure domain, ascending.
        all_lanes: The same over all waves.
    """

    changes: tuple[Change, ...]
    keys: tuple[ChangeKey, ...]
    of_node: Mapping[NodeId, tuple[int, ...]]
    lanes: tuple[Mapping[str, tuple[int, ...]], ...]
    all_lanes: Mapping[str, tuple[int, ...]]


def _order_of(waves: tuple[Wave, ...]) -> Order:
    changes = tuple(change for wave in waves for change in wave.changes)
    keys = tuple(ChangeKey(wave.index, change.node_id, change.component) for wave in waves for change in wave.changes)
    of_node: dict[NodeId, tuple[int, ...]] = {}
    for number, change in enumerate(changes):
        of_node[change.node_id] = (*of_node.get(change.node_id, ()), number)
    lanes, first = [], 0
    for wave in waves:
        lanes.append(_lanes(wave.changes, first))
        first += len(wave.changes)
    return Order(changes, keys, of_node, tuple(lanes), _lanes(changes, 0))


def _lanes(changes: tuple[Change, ...], first: int) -> dict[str, tuple[int, ...]]:
    lanes: dict[str, list[int]] = {}
    for number, change in enumerate(changes, first):
        lanes.setdefault(change.domain, []).append(number)
    return {domain: tuple(numbers) for domain, numbers in lanes.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer before anything moves.

    Args:
        fingerprint: Hash over what the plan depends on: membership, labels used, committed digests, graph edges,
            policy and freezes; never liveness or metrics.
        unchanged: Nodes that the selector takes and that need no change: they run the target already, or lack the
            component and the request does not install it.
        excluded: Nodes that the selector takes and that are left out, each with its reason.
        facts: What the fingerprint is over, by name; two plans that differ are told apart by it.
        operation_p95: Time after which an operation is expected to have left the node; bounds the last start.
        advice: What past operations teach of its kinds of change, in the order of the plan; nothing follows from it.
        advice_left_out: Kinds of change on which there is none, for there are too many.
        forecast: What the analysis that is asked for can find; None where none is.
    """

    fingerprint: str
    waves: tuple[Wave, ...]
    unchanged: tuple[NodeId, ...]
    excluded: tuple[Exclusion, ...] = ()
    warnings: tuple[PlanWarning, ...] = ()
    blast_radius: BlastRadius = BlastRadius(0, 0, 0)
    capacity: tuple[CapacityPoint, ...] = ()
    estimate: Estimate = NOTHING_TO_DO
    operation_p95: timedelta = timedelta()
    facts: tuple[tuple[str, str], ...] = ()
    advice: tuple[Advice, ...] = ()
    advice_left_out: int = 0
    forecast: Forecast | None = None
    _order: Order | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def order(self) -> Order:
        """Where each change stands; derived once, when it is first asked for."""
        if self._order is None:
            object.__setattr__(self, "_order", _order_of(self.waves))
        return cast("Order", self._order)
