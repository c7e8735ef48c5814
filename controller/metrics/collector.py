"""Collects what nodes measure, and answers what it came to.

Theory of operation. Each message of a node is one reading of all that it shows: what it does not tell has not changed.
The reading counts as of the instant at which it was sent, on this clock. Until `start_collection`, and after
`stop_collection`, nothing is taken and everything is unknown.

Rules kept: taking a reading costs the same whatever is kept, and waits for nothing; missing, vanished and stale is
unknown, never zero. Left out: judging.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from controller import clock as clocks
from controller.core import errors, model
from controller.core.analysis import samples
from controller.metrics import figures, intake, shelves, windows

# Periods without a reading after which the latest one speaks for nothing any more.
STALE_PERIODS = 3
# Readings closer together than this share of a period count as one: heartbeats come early when something happens.
SPACING_SHARE = 0.75
# Readings kept at full resolution, at most: an hour of the shortest sensible period.
FINE_SLOTS_MAX = 1_440
# Stretches of the past that are compared with each other.
STRETCHES_MAX = 10
# A stretch that is shorter than so many readings of the thin ring is looked for at full resolution.
THIN_READINGS_MIN = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept.

    Args:
        window: At full resolution, in memory.
        past: One reading a minute, in memory.
        step: Time between two readings of the thin past.
        retention: The thin past, in the store.
    """

    window: timedelta = timedelta(minutes=30)
    past: timedelta = timedelta(hours=4)
    step: timedelta = timedelta(minutes=1)
    retention: timedelta = timedelta(hours=6)


class Collector:
    """The windows of all nodes.

    Args:
        clock: What time it is.
        limits: How much is kept.
    """

    def __init__(self, clock: clocks.Clock, limits: Limits) -> None:
        self._clock = clock
        self._limits = limits
        self._nodes: dict[model.NodeId, intake.NodeSeries] = {}
        self._period: timedelta | None = None
        self._base_seconds = 0.0
        self._shelves = shelves.Shelves(_extent(limits, timedelta(seconds=10)))
        self._intake = intake.Intake(self._shelves)
        self.samples_taken = 0

    @property
    def is_collecting(self) -> bool:
        """True between start and stop."""
        return self._period is not None

    @property
    def period(self) -> timedelta:
        """Time between two readings of a node; nothing while it does not collect."""
        return self._period or timedelta()

    async def start_collection(self, interval: timedelta) -> bool:
        """Begin to take readings; say whether that is new.

        Args:
            interval: Time between two readings of a node.

        Raises:
            RefusedError: It collects already, at another interval; code ``collection_runs``.
        """
        if self._period == interval:
            return False
        if self._period is not None:
            raise errors.RefusedError(
                f"cannot collect each {interval.total_seconds():g} s: it collects each "
                f"{self._period.total_seconds():g} s; stop that first",
                code="collection_runs",
                field="interval",
                value=f"{interval.total_seconds():g}s",
                rule="one interval at a time",
            )
        self._nodes.clear()
        self._shelves = shelves.Shelves(_extent(self._limits, interval))
        self._intake = intake.Intake(self._shelves)
        self._base_seconds = (self._clock.now() - self._limits.past - timedelta(hours=1)).timestamp()
        self._period = interval
        return True

    async def stop_collection(self) -> bool:
        """Take no more readings; say whether any were taken before."""
        was_collecting, self._period = self.is_collecting, None
        return was_collecting

    def take(self, node_id: model.NodeId, report: model.NodeReport, received_at: datetime) -> None:
        """Take what a message of a node says of its series; the messages of a node come in order."""
        if self._period is None:
            return
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = intake.NodeSeries()
        seconds = received_at.timestamp()
        if report.sent_at is not None:
            sent_seconds = report.sent_at.timestamp()
            if node.clock.is_repeated(sent_seconds):
                return
            seconds = node.clock.corrected(sent_seconds, seconds)
        self._intake.take(node, report, self._tick(seconds), received_at)
        self.samples_taken += len(node.places)

    def forget(self, node_id: model.NodeId) -> None:
        """Forget a node."""
        node = self._nodes.pop(node_id, None)
        if node is not None:
            self._intake.forget(node)

    def samples(  # noqa: PLR0913 each is one fact of the question
        self,
        component: model.ComponentName,
        metrics: tuple[model.JudgedMetric, ...],
        canary: Mapping[model.NodeId, datetime],
        control: Collection[model.NodeId],
        *,
        past: timedelta,
        began_at: datetime,
        at: datetime,
    ) -> dict[str, samples.Sample]:
        """Say what the judge looks at, of each metric by its name: canary nodes first, in the order given.

        Args:
            component: Whose series.
            metrics: What is compared.
            canary: Nodes that run the new version, each with the instant from which its evidence counts.
            control: Untouched nodes; their evidence counts from the earliest of those instants.
            past: How much of the time before ``began_at`` is each node's own past.
            began_at: When the first node began to change.
            at: Now.
        """
        nodes = (*canary, *control)
        begins, ends = self._spans(canary, len(nodes), past, began_at, at)
        found = {each.name: figures.unknown(*begins.shape) for each in metrics}
        for shelf, positions, rows in self._by_shelf(nodes, component):
            ends_of = np.broadcast_to(ends, (len(rows), len(ends)))
            spans = shelf.table.spans(np.array(rows), begins[positions], ends_of, self._stale)
            grown = figures.grown(shelf, spans, self._period_seconds)
            for each in metrics:
                found[each.name].put(positions, figures.figure(each.measure, grown))
        is_canary = np.arange(len(nodes)) < len(canary)
        return {each.name: figures.sample(each.measure, found[each.name], is_canary) for each in metrics}

    def over(
        self,
        component: model.ComponentName,
        metrics: tuple[model.JudgedMetric, ...],
        nodes: tuple[model.NodeId, ...],
        bounds: Sequence[datetime],
    ) -> dict[str, figures.Figure]:
        """Say how each metric went over spans of time that follow each other, [node, span], by its name.

        Args:
            component: Whose series.
            metrics: What is asked for.
            nodes: Of which nodes.
            bounds: Where each span begins, and where the last one ends.
        """
        ticks = np.array([self._at(each) for each in bounds], np.uint32)
        begins = np.broadcast_to(ticks[:-1], (len(nodes), len(ticks) - 1))
        found = {each.name: figures.unknown(*begins.shape) for each in metrics}
        for shelf, positions, rows in self._by_shelf(nodes, component):
            ends = np.broadcast_to(ticks[1:], begins.shape)[positions]
            spans = shelf.table.spans(np.array(rows), begins[positions], ends, self._stale)
            grown = figures.grown(shelf, spans, self._period_seconds)
            for each in metrics:
                found[each.name].put(positions, figures.figure(each.measure, grown))
        return found

    def _spans(
        self, canary: Mapping[model.NodeId, datetime], nodes: int, past: timedelta, began_at: datetime, at: datetime
    ) -> tuple[windows.Ticks, windows.Ticks]:
        """Begins of the spans that are looked at, [node, span], and their ends, [span], alike for all nodes."""
        first_at = min(canary.values(), default=began_at)
        length = at - first_at
        oldest = began_at - past
        if length < THIN_READINGS_MIN * self._limits.step:
            oldest = max(oldest, at - self._limits.window)
        stretches = _stretches(oldest, began_at, length)
        begins = np.empty((nodes, figures.STRETCHES + len(stretches)), np.uint32)
        begins[:] = [self._at(each) for each in (began_at - past, first_at, *stretches)]
        begins[: len(canary), figures.AFTER] = [self._at(each) for each in canary.values()]
        ends = [self._at(each) for each in (began_at, at, *(each + length for each in stretches))]
        return begins, np.array(ends, np.uint32)

    def _by_shelf(
        self, nodes: tuple[model.NodeId, ...], component: str
    ) -> list[tuple[shelves.Shelf, list[int], list[int]]]:
        """Find where the series of nodes stand: of each shelf which nodes it has, and their rows."""
        found: dict[shelves.Shelf, tuple[list[int], list[int]]] = {}
        for position, node_id in enumerate(nodes):
            node = self._nodes.get(node_id)
            place = None if node is None else node.places.get(component)
            if place is not None:
                positions, rows = found.setdefault(place.shelf, ([], []))
                positions.append(position)
                rows.append(place.row)
        return [(shelf, positions, rows) for shelf, (positions, rows) in found.items()]

    @property
    def _period_seconds(self) -> float:
        return math.inf if self._period is None else self._period.total_seconds()

    @property
    def _stale(self) -> int:
        return 0 if self._period is None else _ticks(STALE_PERIODS * self._period)

    def _at(self, instant: datetime) -> int:
        return self._tick(instant.timestamp())

    def _tick(self, seconds: float) -> int:
        return min(max(0, round((seconds - self._base_seconds) * windows.TICKS_PER_SECOND)), windows.TICK_MAX)


def _stretches(oldest: datetime, newest: datetime, length: timedelta) -> list[datetime]:
    """Begins of stretches of the past, spread evenly; none where it has room for too few."""
    if length <= timedelta():
        return []
    count = min(STRETCHES_MAX, (newest - oldest) // length)
    if count < figures.STRETCHES_MIN:
        return []
    gap = (newest - length - oldest) / (count - 1)
    return [oldest + gap * number for number in range(count)]


def _extent(limits: Limits, period: timedelta) -> windows.Extent:
    return windows.Extent(
        fine_slots=min(FINE_SLOTS_MAX, max(2, limits.window // period)),
        fine_spacing=_ticks(SPACING_SHARE * period),
        coarse_slots=limits.past // limits.step + 1,
        coarse_spacing=_ticks(limits.step),
    )


def _ticks(span: timedelta) -> int:
    return max(1, round(span.total_seconds() * windows.TICKS_PER_SECOND))
