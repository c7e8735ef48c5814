"""What the word of a node means for triggers: which conditions read what has changed, and how they stand.

Theory of operation. An index leads from the names of metrics to the triggers that read them, so that a report touches
only those, beside the triggers whose condition holds on the node already, for which time passes, and those that read
what else is known of a node when that has changed. A condition is given only the metrics that it names.

Rules kept: what cannot be found out for want of data is unknown, and never an occasion; an evaluation that fails in
itself is kept with its trigger and stops neither the others nor the report. Left out: what follows of it
(`controller.core.triggers`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import rpds

from controller import conditions
from controller.core import errors, model, selector
from controller.core.monitoring import board as boards
from controller.core.triggers import degrading, events, explaining, machine
from controller.engine import draft as drafts
from controller.engine import firing
from controller.engine import world as worlds

ANY = "*"  # ends a type of events that stands for all that begin so

Metrics = Mapping[tuple[str, str], model.Metric]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Readings:
    """What is known of a node's metrics once a report is taken.

    Args:
        before: The latest of each, by component and name, as they were.
        told: What the report says anew.
        gone: What it says is shown no longer.
        is_full: Nothing else is known.
    """

    before: Metrics
    told: Metrics
    gone: frozenset[tuple[str, str]]
    is_full: bool

    def value(self, component: str, name: str) -> float | None:
        """Look a metric up; None where there is none."""
        key = (component, name)
        if key in self.told:
            return self.told[key].value
        if self.is_full or key in self.gone:
            return None
        known = self.before.get(key)
        return None if known is None else known.value

    def shown(self, component: str) -> set[str]:
        """Name everything that there may be of a component and of the host."""
        return {name for of, name in (*self.before, *self.told) if of in ("", component)}

    def names(self) -> set[str]:
        """Name what has changed."""
        return {name for _, name in self.told} | {name for _, name in self.gone}


def readings(report: model.NodeReport, before: Metrics) -> Readings:
    """Make what is known of metrics with a report."""
    told = {(each.component, each.name): each for each in report.metrics}
    gone = frozenset((component, name) for name, component in report.gone_metrics)
    return Readings(before, told, gone, report.is_full)


@dataclass(frozen=True, slots=True)
class _Heeded:
    """A trigger whose condition is looked at on nodes.

    Args:
        failure: Why it cannot be; then there is no condition.
        names: What it reads; None where that cannot be told.
    """

    trigger: model.Trigger
    when: model.Threshold
    selects: selector.Selector | None
    condition: conditions.Condition | None
    clear: conditions.Condition | None
    names: frozenset[str] | None
    failure: str = ""

    @property
    def reads_node(self) -> bool:
        """Whether more than metrics may change how it stands."""
        return bool(self.when.selector) or "node" in self.when.condition or "node" in self.when.clear

    def concerns(self, node: model.Node) -> bool:
        """Tell whether it looks at a node."""
        if self.when.component and self.when.component not in node.components:
            return False
        return self.selects is None or self.selects.matches(node.labels)


@dataclass(frozen=True, slots=True)
class _Index:
    """Which triggers read what.

    Args:
        of: The definitions that it was made of.
        by_metric: Names of triggers by name of metric.
        always: Those that read what cannot be told.
        by_node: Those that read of a node itself.
        by_type: Names of triggers by type of event.
        by_prefix: Begins of types of events, each with the name of a trigger.
    """

    of: rpds.HashTrieMap[str, model.Trigger]
    heeded: Mapping[str, _Heeded]
    by_metric: Mapping[str, tuple[str, ...]]
    always: tuple[str, ...]
    by_node: tuple[str, ...]
    by_type: Mapping[str, tuple[str, ...]]
    by_prefix: tuple[tuple[str, str], ...]


class Heeding:
    """Looks at the conditions of triggers when a node speaks."""

    def __init__(self) -> None:
        self._made: _Index | None = None
        self._heeded: dict[str, _Heeded] = {}
        self.is_active = False

    def heed(self, draft: drafts.Draft, node_id: model.NodeId, report: model.NodeReport, before: Metrics) -> None:
        """Draft what a report means for triggers."""
        if not self.is_active or not draft.world.triggers:
            return
        index = self._index(draft.world)
        signalled = draft.world.signalled.get(node_id, frozenset())
        has_changed = report.is_full or node_id in draft.nodes
        if not index.heeded or not (signalled or has_changed or self._reads(index, report)):
            return
        known = readings(report, before)
        touched = {name for metric in known.names() for name in index.by_metric.get(metric, ())}
        touched |= {*index.always, *signalled, *(index.by_node if has_changed else ())}
        self._look(draft, node_id, known, sorted(touched))

    @staticmethod
    def _reads(index: _Index, report: model.NodeReport) -> bool:
        """Tell whether any condition reads what a report says."""
        if index.always:
            return True
        by_metric = index.by_metric
        return any(each.name in by_metric for each in report.metrics) or any(
            name in by_metric for name, _ in report.gone_metrics
        )

    def sweep(self, draft: drafts.Draft, names: Iterable[str], node_id: model.NodeId, known: Metrics) -> None:
        """Draft how some triggers stand on a node, whatever has changed there."""
        if self.is_active:
            self._index(draft.world)
            self._look(draft, node_id, Readings(known, {}, frozenset(), is_full=False), sorted(names))

    def look(self, draft: drafts.Draft, board: boards.Board) -> None:
        """Draft what a look of the monitor means for triggers that compare a figure with its past."""
        if not self.is_active:
            return
        sights = boards.sights(board)
        for name in sorted(draft.world.triggers):
            trigger = draft.world.triggers[name]
            if isinstance(trigger.when, model.Degradation) and trigger.is_enabled:
                seen = sights.get(degrading.rule(trigger).name)
                if seen is not None:
                    _compare(draft, name, seen)

    def meant(self, draft: drafts.Draft, event_type: str) -> list[str]:
        """Name the triggers that an event of a type may mean."""
        index = self._index(draft.world)
        by_prefix = (name for prefix, name in index.by_prefix if event_type.startswith(prefix))
        return sorted((*index.by_type.get(event_type, ()), *by_prefix))

    def values(
        self, world: worlds.World, name: str, present: Mapping[model.NodeId, Metrics]
    ) -> Iterator[explaining.ValueLine]:
        """Say what a condition was last given on each node that it looks at and that is present."""
        heeded = self._index(world).heeded.get(name) or _heeded(world.triggers[name])
        if heeded.condition is None:
            return
        for node_id, metrics in present.items():
            node = world.nodes.get(node_id)
            if node is not None and heeded.concerns(node):
                sights = _Sights(node, Readings(metrics, {}, frozenset(), is_full=False), (heeded,))
                is_met = heeded.condition.holds_on(sights.of(heeded.when.component))
                yield explaining.ValueLine(node_id, is_met, sights.values(heeded))

    def _look(self, draft: drafts.Draft, node_id: model.NodeId, known: Readings, names: Iterable[str]) -> None:
        node = draft.world.nodes.get(node_id)
        if node is None:
            return
        wanted = [self._heeded[name] for name in names if name in self._heeded]
        meant = [each for each in wanted if each.concerns(node)]
        sights = _Sights(node, known, meant)
        for each in wanted:
            name = each.trigger.name
            if each.concerns(node):
                _see(draft, each, sights)
            elif node_id in draft.world.statuses[name].signals:
                firing.feed(draft, name, events.Gone(draft.at, node_id))

    def _index(self, world: worlds.World) -> _Index:
        triggers = world.triggers
        if self._made is None or self._made.of is not triggers:
            self._heeded = {
                each.name: self._kept(each) for each in triggers.values() if isinstance(each.when, model.Threshold)
            }
            self._made = _indexed(triggers, self._heeded)
        return self._made

    def _kept(self, trigger: model.Trigger) -> _Heeded:
        known = self._heeded.get(trigger.name)
        return known if known is not None and known.trigger is trigger else _heeded(trigger)


def rules(triggers: Iterable[model.Trigger]) -> list[model.Rule]:
    """Give the rules by which the monitor looks for triggers."""
    watching = (each for each in triggers if isinstance(each.when, model.Degradation) and each.is_enabled)
    return [degrading.rule(each) for each in sorted(watching, key=lambda each: each.name)]


def _compare(draft: drafts.Draft, name: str, seen: Mapping[model.NodeId | None, bool | None]) -> None:
    """Draft how a figure compares with its past, everywhere that it is or was worse; what is not told of is well."""
    known = draft.world.statuses[name].signals
    worse = (node_id for node_id, is_met in seen.items() if is_met)
    for node_id in dict.fromkeys((*known, *worse)):
        firing.feed(draft, name, events.Looked(draft.at, node_id, seen.get(node_id, False)))


def _heeded(trigger: model.Trigger) -> _Heeded:
    when = trigger.when
    assert isinstance(when, model.Threshold)  # noqa: S101 # whoever calls has asked
    selects = selector.parse(when.selector) if when.selector else None
    try:
        condition = conditions.compile(when.condition, "when.threshold.condition")
        clear = conditions.compile(when.clear, "when.threshold.clear") if when.clear else None
    except errors.InvalidRequestError as error:  # it was stored under another schema
        return _Heeded(trigger, when, selects, None, None, None, str(error))
    read = [conditions.names(each) for each in (when.condition, when.clear) if each]
    names = frozenset().union(*(each.metrics for each in read)) if all(each.is_whole for each in read) else None
    return _Heeded(trigger, when, selects, condition, clear, names)


def _indexed(of: rpds.HashTrieMap[str, model.Trigger], heeded: Mapping[str, _Heeded]) -> _Index:
    enabled = {name: each for name, each in heeded.items() if each.trigger.is_enabled}
    by_metric: dict[str, list[str]] = {}
    for name, each in enabled.items():
        for metric in each.names or ():
            by_metric.setdefault(metric, []).append(name)
    always = tuple(name for name, each in enabled.items() if each.names is None)
    by_node = tuple(name for name, each in enabled.items() if each.reads_node)
    by_type: dict[str, list[str]] = {}
    by_prefix: list[tuple[str, str]] = []
    for trigger in of.values():
        if not isinstance(trigger.when, model.EventMatch):
            continue
        if trigger.when.type.endswith(ANY):
            by_prefix.append((trigger.when.type.removesuffix(ANY), trigger.name))
        else:
            by_type.setdefault(trigger.when.type, []).append(trigger.name)
    return _Index(of, enabled, _fixed(by_metric), always, by_node, _fixed(by_type), tuple(by_prefix))


def _fixed(found: Mapping[str, list[str]]) -> Mapping[str, tuple[str, ...]]:
    return {key: tuple(each) for key, each in found.items()}


class _Sights:
    """A node as conditions see it: said once for all those that look at one component, and only what they read.

    Args:
        meant: The triggers that look.
    """

    def __init__(self, node: model.Node, known: Readings, meant: Iterable[_Heeded]) -> None:
        self.node = node
        self._known = known
        self._meant = tuple(meant)
        self._prepared: dict[model.ComponentName, conditions.Prepared] = {}

    def of(self, component: model.ComponentName) -> conditions.Prepared:
        """Give the node with the metrics of a component beside those of the host."""
        found = self._prepared.get(component)
        if found is None:
            found = self._prepared[component] = conditions.prepare(self.node, self._metrics(component))
        return found

    def values(self, heeded: _Heeded) -> tuple[tuple[str, float | None], ...]:
        """Give what one of those that look reads, by name."""
        found = self._metrics(heeded.when.component)
        return tuple((name, found.get(name)) for name in sorted(heeded.names or found))

    def _metrics(self, component: model.ComponentName) -> Mapping[str, float]:
        read = [each.names for each in self._meant if each.when.component == component]
        names = self._known.shown(component) if None in read else {name for each in read if each for name in each}
        values = ((name, self._known.value(component, name)) for name in names)
        found = {name: value for name, value in values if value is not None}
        if component:
            of_host = ((name, self._known.value("", name)) for name in names if name not in found)
            found |= {name: value for name, value in of_host if value is not None}
        return found


def _see(draft: drafts.Draft, heeded: _Heeded, sights: _Sights) -> None:
    """Draft how a condition stands on a node."""
    name, node_id = heeded.trigger.name, sights.node.id
    trigger, status = draft.world.triggers[name], draft.world.statuses[name]
    if not machine.can_evaluate(trigger, status, draft.at):
        return
    event: events.Seen | events.EvaluationFailed
    try:
        event = _seen(heeded, sights, draft.at)
    except Exception as error:  # noqa: BLE001 whatever it is, it is the trigger's, and not the node's
        _log.exception("cannot look at trigger %s on node %s", name, node_id)
        event = events.EvaluationFailed(draft.at, "evaluation_failed", f"{type(error).__name__}: {error}")
    if isinstance(event, events.Seen) and machine.is_quiet(status, node_id, is_met=event.is_met):
        return
    firing.feed(draft, name, event)


def _seen(heeded: _Heeded, sights: _Sights, at: datetime) -> events.Seen | events.EvaluationFailed:
    if heeded.condition is None:
        return events.EvaluationFailed(at, "invalid_condition", heeded.failure)
    prepared = sights.of(heeded.when.component)
    is_met = heeded.condition.holds_on(prepared)
    if heeded.clear is not None:
        return events.Seen(at, sights.node.id, is_met, heeded.clear.holds_on(prepared))
    return events.Seen(at, sights.node.id, is_met, None if is_met is None else not is_met)
