"""Rules by which the fleet is changed, or somebody told.

Rules kept: a trigger is a definition, and only people change it. Left out: the occasions on which it fires, and what it
remembers (`firing`), and how any of it moves (`controller.core.triggers`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias, assert_never

from controller.core.model.analysis import Measure
from controller.core.model.monitor import RuleScope
from controller.core.model.plan import UpgradeRequest, Window
from controller.core.model.words import (
    ComponentName,
    ConflictPolicy,
    MissedPolicy,
    TriggerActionKind,
    TriggerId,
    TriggerKind,
)

COOLDOWN = timedelta(minutes=10)
HELD_MAX = timedelta(days=1)
_NO_COMPONENT = ComponentName("")


@dataclass(frozen=True, slots=True)
class Threshold:
    """Nodes whose latest metrics meet a condition.

    Args:
        condition: CEL over ``node`` and ``metrics`` that gives a bool; missing data is neither true nor false.
        clear: CEL that tells when it is over on a node; empty for when the condition no longer holds. In between, what
            was stays.
        component: Only nodes that have it, and its metrics beside those of the host; empty for every node and the
            host's metrics alone.
        selector: Label selector of the nodes that are looked at; empty for all.
        pending_for: It has to hold on a node for so long.
        keep_firing_for: It has to be over on a node for so long.
        nodes_min: On so many nodes at once.
    """

    condition: str
    clear: str = ""
    component: ComponentName = _NO_COMPONENT
    selector: str = ""
    pending_for: timedelta = timedelta(0)
    keep_firing_for: timedelta = timedelta(0)
    nodes_min: int = 1


@dataclass(frozen=True, slots=True)
class Degradation:
    """A figure that has become worse than the line that its own past was on.

    Args:
        component: On whose nodes; the figure is made of its series.
        worse_percent: By so much it has to be above what the past leads one to expect; below where low is bad.
        clear_percent: Within so much it is over.
        is_below: Low figures are bad.
        window: The current figure is taken over so much time.
        past: The time before the window that it is compared with.
        scope: Each node for itself, or all of them as one.
        least_exposure: Of less than so much nothing is said; as `Rule` has it.
    """

    component: ComponentName
    measure: Measure
    worse_percent: int
    clear_percent: int
    is_below: bool = False
    window: timedelta = timedelta(minutes=5)
    past: timedelta = timedelta(hours=1)
    pending_for: timedelta = timedelta(minutes=1)
    keep_firing_for: timedelta = timedelta(0)
    scope: RuleScope = RuleScope.FLEET
    least_exposure: float = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Instants on the wall clock of a zone.

    Args:
        cron: Five fields, or six with seconds first, as cron has them.
        time_zone: IANA name.
        missed: What becomes of a run that fell due while nobody looked.
    """

    cron: str
    time_zone: str = "UTC"
    missed: MissedPolicy = MissedPolicy.SKIP


@dataclass(frozen=True, slots=True)
class EventMatch:
    """Events that arrive.

    Args:
        type: That of a CloudEvent, whole, or a prefix followed by ``*``. Alerts have ``alertmanager.firing`` and
            ``alertmanager.resolved``.
        filter: CEL over ``event`` that gives a bool; empty for all of the type.
        debounce: It fires once no further one has come for so long; zero for each of them.
    """

    type: str
    filter: str = ""
    debounce: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class VersionAvailable:
    """A channel that is moved, or a newer version within a range.

    Args:
        channel: Name; exactly one of channel and versions is given.
        versions: A SemVer range; ``*`` for any.
        prereleases: Whether the range admits them.
    """

    component: ComponentName
    channel: str = ""
    versions: str = ""
    prereleases: bool = False


@dataclass(frozen=True, slots=True)
class ByHand:
    """Somebody says so, and nothing else."""


When: TypeAlias = Threshold | Degradation | Schedule | EventMatch | VersionAvailable | ByHand


@dataclass(frozen=True, slots=True)
class Notify:
    """Reports that the trigger fired, and changes nothing."""

    message: str = ""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Plans a request and submits it.

    Args:
        request: Its target version may be empty where the trigger finds a version by itself. Its conflict policy is
            that of the guards.
    """

    request: UpgradeRequest


@dataclass(frozen=True, slots=True)
class Rollback:
    """Takes the nodes of the newest rollout of a component back to their rollback points, wave by wave.

    Args:
        selector: The rollout has to have touched a node that it matches; empty for any.
    """

    component: ComponentName
    selector: str = ""


TriggerAction: TypeAlias = Notify | Upgrade | Rollback


@dataclass(frozen=True, slots=True)
class ApprovalGuard:
    """Somebody has to say yes before the action is carried out.

    Args:
        deadline: Time within which.
        by_another: Not who fired the trigger, nor, where nobody did, who changed it last.
    """

    deadline: timedelta
    by_another: bool = True


@dataclass(frozen=True, slots=True)
class Guards:
    """What may stand between an occasion and its action.

    Args:
        windows: Times of the week in which it acts; empty for always. Freezes always hold it.
        cooldown: Time between two firings that act.
        firings_per_hour_max: So many act within any hour.
        concurrency: What becomes of an occasion while an earlier firing is not at its end.
        approval: None where nobody has to approve.
        held_max: A firing that was held for so long is given up.
    """

    windows: tuple[Window, ...] = ()
    cooldown: timedelta = COOLDOWN
    firings_per_hour_max: int = 6
    concurrency: ConflictPolicy = ConflictPolicy.REJECT
    approval: ApprovalGuard | None = None
    held_max: timedelta = HELD_MAX


@dataclass(frozen=True, slots=True)
class Trigger:
    """A rule: when it fires, what it then does, and what may stand in the way.

    Args:
        id: Tells two triggers of one name apart that were never there together.
        revision: Raised with every change of the definition.
        changed_by: Who applied, enabled or disabled it last.
    """

    id: TriggerId
    name: str
    when: When
    action: TriggerAction
    guards: Guards = field(default_factory=Guards)
    is_enabled: bool = False
    description: str = ""
    revision: int = 1
    changed_at: datetime | None = None
    changed_by: str = ""

    @property
    def kind(self) -> TriggerKind:
        """In a word, when it fires."""
        return _KINDS[type(self.when)]

    @property
    def does(self) -> TriggerActionKind:
        """In a word, what it does."""
        return _ACTIONS[type(self.action)]

    @property
    def component(self) -> ComponentName:
        """What it changes; empty where it changes nothing."""
        match self.action:
            case Notify():
                return _NO_COMPONENT
            case Upgrade(request=request):
                return request.component
            case Rollback(component=component):
                return component
            case _:
                assert_never(self.action)

    @property
    def selector(self) -> str:
        """Label selector of the nodes that it changes."""
        match self.action:
            case Notify():
                return ""
            case Upgrade(request=request):
                return request.selector
            case Rollback(selector=selector):
                return selector
            case _:
                assert_never(self.action)


_KINDS = {
    Threshold: TriggerKind.THRESHOLD,
    Degradation: TriggerKind.DEGRADATION,
    Schedule: TriggerKind.SCHEDULE,
    EventMatch: TriggerKind.EVENT,
    VersionAvailable: TriggerKind.VERSION_AVAILABLE,
    ByHand: TriggerKind.MANUAL,
}
_ACTIONS = {
    Notify: TriggerActionKind.NOTIFY,
    Upgrade: TriggerActionKind.UPGRADE,
    Rollback: TriggerActionKind.ROLLBACK,
}
