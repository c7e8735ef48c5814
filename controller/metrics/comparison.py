"""What the judge looks at, out of the windows: canary nodes and untouched ones, each before and after.

Rules kept: all nodes with the same series are asked at once; a node that is not known, or has not told of itself
lately, is there and unknown. Left out: figures (`figures`), and judging.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from controller.core import model
from controller.core.analysis import samples
from controller.metrics import figures, intake, keeping, limits, shelves, windows

# Stretches of the past that are compared with each other: enough to know how they spread to within a third.
STRETCHES_MAX = 8
# A stretch that is shorter than so many readings of the thin ring is looked for at full resolution.
THIN_READINGS_MIN = 5


@dataclass(frozen=True, slots=True)
class Question:
    """What is compared; as `Collector.samples` has it."""

    component: model.ComponentName
    metrics: tuple[model.JudgedMetric, ...]
    canary: Mapping[model.NodeId, datetime]
    control: Collection[model.NodeId]
    past: timedelta
    began_at: datetime
    at: datetime

    @property
    def nodes(self) -> tuple[model.NodeId, ...]:
        """All of them, canary first."""
        return (*self.canary, *self.control)

    @property
    def first_at(self) -> datetime:
        """When the first node's evidence begins to count."""
        return min(self.canary.values(), default=self.began_at)


@dataclass(frozen=True, slots=True)
class Known:
    """What is there to answer from.

    Args:
        period: Time between two readings of a node.
    """

    nodes: Mapping[model.NodeId, intake.NodeSeries]
    epoch: keeping.Epoch
    kept: limits.Limits
    period: timedelta


def unknown(question: Question) -> dict[str, samples.Sample]:
    """The answer where nothing is known of any node."""
    nodes = len(question.nodes)
    return _answer(question, {each.name: figures.unknown(nodes, figures.STRETCHES) for each in question.metrics})


def answer(question: Question, known: Known) -> dict[str, samples.Sample]:
    """Answer from the windows."""
    begins, ends = _spans(question, known)
    found = {each.name: figures.unknown(*begins.shape) for each in question.metrics}
    stale = limits.ticks(limits.STALE_PERIODS * known.period)
    for shelf, positions, rows in _by_shelf(question.nodes, question.component, known):
        ends_of = np.broadcast_to(ends, (len(rows), len(ends)))
        spans = shelf.table.spans(np.array(rows), begins[positions], ends_of, stale)
        grown = figures.grown(shelf, spans, known.period.total_seconds())
        for each in question.metrics:
            found[each.name].put(positions, figures.figure(each.measure, grown))
    return _answer(question, found)


def over(
    component: model.ComponentName,
    metrics: Sequence[model.JudgedMetric],
    nodes: Sequence[model.NodeId],
    bounds: Sequence[datetime],
    known: Known,
) -> dict[str, figures.Figure]:
    """Say how each metric went over spans of time that follow each other, [node, span]; as `Collector.over` has it."""
    ticks = np.array([known.epoch.tick(each.timestamp()) for each in bounds], np.uint32)
    begins = np.broadcast_to(ticks[:-1], (len(nodes), len(ticks) - 1))
    found = {each.name: figures.unknown(*begins.shape) for each in metrics}
    stale = limits.ticks(limits.STALE_PERIODS * known.period)
    for shelf, positions, rows in _by_shelf(nodes, component, known):
        ends = np.broadcast_to(ticks[1:], begins.shape)[positions]
        spans = shelf.table.spans(np.array(rows), begins[positions], ends, stale)
        grown = figures.grown(shelf, spans, known.period.total_seconds())
        for each in metrics:
            found[each.name].put(positions, figures.figure(each.measure, grown))
    return found


def _answer(question: Question, found: Mapping[str, figures.Figure]) -> dict[str, samples.Sample]:
    is_canary = np.arange(len(question.nodes)) < len(question.canary)
    return {each.name: figures.sample(each.measure, found[each.name], is_canary) for each in question.metrics}


def _spans(question: Question, known: Known) -> tuple[windows.Ticks, windows.Ticks]:
    """Begins of the spans that are looked at, [node, span], and their ends, [span], alike for all nodes."""
    began_at, at, first_at = question.began_at, question.at, question.first_at
    length = at - first_at
    oldest = began_at - question.past
    if length < THIN_READINGS_MIN * known.kept.step:
        oldest = max(oldest, at - known.kept.window)
    stretches = _stretches(oldest, began_at, length)

    def tick(instant: datetime) -> int:
        return known.epoch.tick(instant.timestamp())

    begins = np.empty((len(question.nodes), figures.STRETCHES + len(stretches)), np.uint32)
    begins[:] = [tick(each) for each in (began_at - question.past, first_at, *stretches)]
    begins[: len(question.canary), figures.AFTER] = [tick(each) for each in question.canary.values()]
    # A past ends before the change begins.
    ends = [tick(began_at) - 1, tick(at), *(tick(each + length) - 1 for each in stretches)]
    return begins, np.maximum(ends, 0).astype(np.uint32)


def _stretches(oldest: datetime, newest: datetime, length: timedelta) -> list[datetime]:
    """Begins of stretches of the past, spread evenly; none where it has room for too few."""
    if length <= timedelta():
        return []
    count = min(STRETCHES_MAX, (newest - oldest) // length)
    if count < figures.STRETCHES_MIN:
        return []
    gap = (newest - length - oldest) / (count - 1)
    return [oldest + gap * number for number in range(count)]


def _by_shelf(
    nodes: Iterable[model.NodeId], component: model.ComponentName, known: Known
) -> list[tuple[shelves.Shelf, list[int], list[int]]]:
    """Find where the series of the nodes stand: of each shelf which nodes it has, and their rows."""
    found: dict[shelves.Shelf, tuple[list[int], list[int]]] = {}
    for position, node_id in enumerate(nodes):
        node = known.nodes.get(node_id)
        place = None if node is None else node.places.get(component)
        if place is not None:
            positions, rows = found.setdefault(place.shelf, ([], []))
            positions.append(position)
            rows.append(place.row)
    return [(shelf, positions, rows) for shelf, (positions, rows) in found.items()]
