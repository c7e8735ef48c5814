"""What a trigger would have seen, out of the readings that are stored: for rehearsals.

Theory of operation. It is looked each minute of the time of the record. The condition of a THRESHOLD is given what each
node had shown by then, as long as that is not older than some steps of the record, the series of the component before
those of the host; a DEGRADATION has its rule, in a monitor of its own. Of places at which nothing was ever the case
nothing is told, which changes nothing.

Rules kept: what was not recorded is unknown; how far the record reaches is said; a rehearsal is bounded, and others
have the loop between some readings and the next. Left out: what follows of it (`controller.core.triggers.rehearsing`).

Not as it was: a node is taken to have been what it is now; a gauge is its mean since the reading before, and a counter
goes on where its process began anew.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from controller import conditions
from controller.core import model, selector
from controller.core.monitoring import board as boards
from controller.core.triggers import degrading, events
from controller.metrics import collector, keeping, monitor

EVERY = timedelta(minutes=1)  # a look; no longer than a trigger lets a node be silent
FRESH_STEPS = 2.5  # of the record, for which a reading stands: one may be missing
EVENTS_MAX = 200_000  # of one rehearsal: some 50 MiB
READINGS_AT_ONCE = 500  # that are replayed without a break
HOURS_AT_ONCE = timedelta(hours=2)  # of the record that are loaded together, beside what a rule looks back to

HOST = model.ComponentName("")


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a trigger would have seen.

    Args:
        recorded_since: How far back the record reaches; None where there is none. What is younger than ten steps is not
            stored yet.
        until: What is later was not looked at.
        events: In order.
    """

    recorded_since: datetime | None
    until: datetime
    events: tuple[events.Seen | events.Looked, ...]


async def recall(
    trigger: model.Trigger,
    nodes: Mapping[model.NodeId, model.Node],
    windows: collector.Collector,
    since: datetime,
    until: datetime,
) -> Recalled:
    """Say what a trigger of kind THRESHOLD or DEGRADATION would have seen; of another kind that is nothing.

    Args:
        trigger: The definition.
        nodes: All nodes, as they are now.
        windows: Leads to what is stored.
        since: First instant.
        until: Last instant.

    Raises:
        InvalidRequestError: The condition or the selector is none.
    """
    found: AsyncIterator[events.Seen | events.Looked]
    match trigger.when:
        case model.Threshold() as when:
            found, components = _seen(when, _concerned(when, nodes), windows, since, until), {when.component, HOST}
        case model.Degradation() as when:
            having = tuple(sorted(name for name, node in nodes.items() if when.component in node.components))
            found, components = _looked(degrading.rule(trigger), having, windows, since, until), {when.component}
        case _:
            return Recalled(None, until, ())
    told: list[events.Seen | events.Looked] = []
    async for event in found:
        if len(told) >= EVENTS_MAX:
            until = told[-1].at
            break
        told.append(event)
    begins = [begin for begin in map(windows.recorded_since, components) if begin is not None]
    return Recalled(max(begins, default=None), until, tuple(told))


def _concerned(when: model.Threshold, nodes: Mapping[model.NodeId, model.Node]) -> Mapping[model.NodeId, model.Node]:
    selects = selector.parse(when.selector)
    return {
        node_id: node
        for node_id, node in nodes.items()
        if selects.matches(node.labels) and (not when.component or when.component in node.components)
    }


@dataclass(slots=True)
class _Shown:
    """What a node had shown, and how the condition then stood.

    Args:
        heard: Of which components there was a reading.
        readings: The latest of the component and of the host.
        stood: On which of these that was evaluated.
        was_met: Whether it ever held: then it is told of, since it may have yet to clear.
    """

    heard: set[model.ComponentName] = field(default_factory=set)
    readings: dict[model.ComponentName, keeping.Replayed] = field(default_factory=dict)
    stood: tuple[keeping.Replayed, ...] = ()
    is_met: bool | None = None
    is_over: bool | None = None
    was_met: bool = False


class _Watch:
    """A condition over nodes whose readings come one after the other."""

    def __init__(self, when: model.Threshold, nodes: Mapping[model.NodeId, model.Node], fresh: timedelta) -> None:
        self._condition = conditions.compile(when.condition, "when.threshold.condition")
        self._clear = conditions.compile(when.clear, "when.threshold.clear") if when.clear else None
        self._order = dict.fromkeys((when.component, HOST))
        self._nodes = nodes
        self._fresh = fresh
        self._shown: dict[model.NodeId, _Shown] = {}

    def take(self, component: model.ComponentName, reading: keeping.Replayed) -> None:
        """Take a reading; the first of all does not tell the gauges, since there is none before it."""
        if reading.node_id not in self._nodes:
            return
        shown = self._shown.setdefault(reading.node_id, _Shown())
        if component in shown.heard:
            shown.readings[component] = reading
        shown.heard.add(component)

    def look(self, at: datetime) -> Iterator[events.Seen]:
        """Say how it stands on all nodes of which something is known, and on which it ever held."""
        for node_id, shown in self._shown.items():
            known = (shown.readings[each] for each in self._order if each in shown.readings)
            fresh = tuple(each for each in known if at - each.at <= self._fresh)
            if not fresh:
                continue
            if not _are_same(fresh, shown.stood):
                self._evaluate(self._nodes[node_id], shown, fresh)
            if shown.was_met:
                yield events.Seen(at, node_id, shown.is_met, shown.is_over)

    def _evaluate(self, node: model.Node, shown: _Shown, fresh: tuple[keeping.Replayed, ...]) -> None:
        metrics = {name: value for each in reversed(fresh) for name, value in each.series.items()}
        prepared = conditions.prepare(node, metrics)
        shown.stood, shown.is_met = fresh, self._condition.holds_on(prepared)
        if self._clear is not None:
            shown.is_over = self._clear.holds_on(prepared)
        else:
            shown.is_over = None if shown.is_met is None else not shown.is_met
        shown.was_met = shown.was_met or shown.is_met is True


def _are_same(one: tuple[keeping.Replayed, ...], other: tuple[keeping.Replayed, ...]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


class _Stream:
    """Readings of one component, in the order of time."""

    def __init__(self, readings: AsyncIterator[keeping.Replayed]) -> None:
        self._readings = readings
        self._next: keeping.Replayed | None = None

    async def until(self, at: datetime) -> AsyncIterator[keeping.Replayed]:
        """Give those that have come since, up to an instant."""
        while True:
            if self._next is None:
                self._next = await anext(self._readings, None)
            if self._next is None or self._next.at > at:
                return
            yield self._next
            self._next = None


async def _seen(
    when: model.Threshold,
    nodes: Mapping[model.NodeId, model.Node],
    windows: collector.Collector,
    since: datetime,
    until: datetime,
) -> AsyncIterator[events.Seen]:
    fresh = FRESH_STEPS * windows.step
    watch, begin = _Watch(when, nodes, fresh), since - fresh - windows.step
    streams = {each: _Stream(windows.replay(each, begin, until)) for each in (when.component, HOST)}
    for at in _minutes(since, until):
        for component, stream in streams.items():
            async for number, reading in _numbered(stream.until(at)):
                watch.take(component, reading)
                if not number % READINGS_AT_ONCE:
                    await asyncio.sleep(0)
        for event in watch.look(at):
            yield event
        await asyncio.sleep(0)


async def _looked(
    rule: model.Rule,
    nodes: tuple[model.NodeId, ...],
    windows: collector.Collector,
    since: datetime,
    until: datetime,
) -> AsyncIterator[events.Looked]:
    record = windows.recorded()
    watching = monitor.Monitor([rule], record)
    metrics = (model.JudgedMetric(rule.name, rule.measure),)
    told: dict[model.NodeId | None, bool] = {}
    loaded_until = since
    for at in _minutes(since, until):
        if at >= loaded_until:
            loaded_until = min(at + HOURS_AT_ONCE, until + EVERY)
            await record.load(rule.component, metrics, at - monitor.looks_back(rule), loaded_until)
        await watching.look({rule.component: nodes}, at)
        for node_id, is_met in _news(boards.sights(watching.board(at))[rule.name], told):
            told[node_id] = is_met
            yield events.Looked(at, node_id, is_met)


def _news(
    sights: Mapping[model.NodeId | None, bool | None], told: Mapping[model.NodeId | None, bool]
) -> Iterator[tuple[model.NodeId | None, bool]]:
    """Give where a rule fires that did not, or fires no longer."""
    for node_id in dict.fromkeys((*told, *sights)):
        is_met = sights.get(node_id, False)
        if is_met is not None and is_met is not told.get(node_id, False):
            yield node_id, is_met


def _minutes(since: datetime, until: datetime) -> Iterator[datetime]:
    at = since
    while at <= until:
        yield at
        at += EVERY


async def _numbered(found: AsyncIterator[keeping.Replayed]) -> AsyncIterator[tuple[int, keeping.Replayed]]:
    number = 0
    async for each in found:
        number += 1
        yield number, each
