"""What one node told of its series, put where it belongs; and what of it is refused.

Rules kept: what cannot be a reading (not finite, out of all bounds) is refused and the series unknown, never zero; a
node has so many series and no more, whatever it sends, and it is said to whom that happens; series that have been gone
for as long as anything is kept make room for others. Left out: when it was told (`collector`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from controller.core import model
from controller.metrics import offsets, shelves, windows

# Series of one component on one node: 64 names of a manifest, some of them histograms of a dozen buckets.
COMPONENT_SERIES_MAX = 256
# Components of one node that show series, the host among them.
COMPONENTS_MAX = 64
# Series of one node: together some 3.5 MiB of windows.
NODE_SERIES_MAX = 1_024
# Of a name with its labels; as an agent keeps them.
NAME_CHARS_MAX = 256
# Beyond it no two neighbours are told apart, and sums could become infinite.
VALUE_MAX = 1e18


@dataclass(frozen=True, slots=True)
class Capped:
    """That series of a node were refused since there were too many.

    Args:
        component: The one with the first of them; empty for the host.
        series: The first of them.
        refused: Readings of such series so far.
        since: When it began.
        latest_tick: When it was last so.
    """

    component: str
    series: str
    refused: int
    since: datetime
    latest_tick: int

    @property
    def condition(self) -> model.Condition:
        """How it is told to whom the node belongs."""
        whose = f"component {self.component}" if self.component else "the host"
        message = (
            f"{self.refused} readings were refused, the first of {self.series[:64]!r} of {whose}: a node may show "
            f"{COMPONENT_SERIES_MAX} series of one component and {NODE_SERIES_MAX} in all; name fewer in its manifest"
        )
        return model.Condition(model.METRICS_CAPPED, self.component, message, self.since)


@dataclass(slots=True)
class NodeSeries:
    """What is known of one node.

    Args:
        places: Where its components stand.
        heard_tick: When it last told anything.
        chunk: Number of the stretch of time in which that was; -1 before.
    """

    clock: offsets.ClockOffset = field(default_factory=offsets.ClockOffset)
    places: dict[str, shelves.Place] = field(default_factory=dict)
    capped: Capped | None = None
    heard_tick: int = 0
    chunk: int = -1

    @property
    def series(self) -> int:
        """How many it has."""
        return sum(len(place.shelf.columns) for place in self.places.values())


@dataclass(slots=True)
class _Sorted:
    """What was told of one component: readings, and kinds of those series that have no column yet."""

    readings: list[model.Metric] = field(default_factory=list)
    new: dict[str, bool] = field(default_factory=dict)


class Intake:
    """Puts reports into rows.

    Args:
        rows: Where the rows are.
    """

    def __init__(self, rows: shelves.Shelves) -> None:
        self._shelves = rows
        self.refused = 0

    def take(self, node: NodeSeries, report: model.NodeReport, tick: int, at: datetime) -> None:
        """Take a reading of everything that a node shows."""
        told = self._sorted(node, report.metrics)
        for component, each in told.items():
            if each.new:
                self._make_room(node, component, each.new, tick, at)
        for component in report.removed:
            self._leave(node, component)
        gone: dict[str, list[str]] = {}
        for name, component in report.gone_metrics:
            gone.setdefault(component, []).append(name)
        for component, place in node.places.items():
            readings = told[component].readings if component in told else []
            place.shelf.table.take(
                place.row, tick, _told(place, readings, gone.get(component, ()), is_full=report.is_full)
            )
        node.heard_tick = max(node.heard_tick, tick)

    def forget(self, node: NodeSeries) -> None:
        """Give all rows of a node back."""
        for component in tuple(node.places):
            self._leave(node, component)

    def _leave(self, node: NodeSeries, component: str) -> None:
        place = node.places.pop(component, None)
        if place is not None:
            self._shelves.release(place)

    def _sorted(self, node: NodeSeries, metrics: Iterable[model.Metric]) -> dict[str, _Sorted]:
        found: dict[str, _Sorted] = {}
        for metric in metrics:
            each = found.get(metric.component)
            if each is None:
                each = found[metric.component] = _Sorted()
            if not -VALUE_MAX <= metric.value <= VALUE_MAX:
                self.refused += 1
            place = node.places.get(metric.component)
            each.readings.append(metric)
            is_counter = metric.kind is model.SeriesKind.COUNTER
            column = None if place is None else place.shelf.columns.get(metric.name)
            if place is None or column is None or place.shelf.is_counter[column] is not is_counter:
                each.new[metric.name] = is_counter
        return found

    def _make_room(self, node: NodeSeries, component: str, new: dict[str, bool], tick: int, at: datetime) -> None:
        """Move a component to where it has room for more series, for as many as it may have."""
        place = node.places.get(component)
        known = {} if place is None else dict(place.kinds)
        kept = {name: kind for name, kind in known.items() if name not in new}
        room = min(COMPONENT_SERIES_MAX - len(kept), NODE_SERIES_MAX - node.series + len(known) - len(kept))
        if room < len(new) and place is not None:
            dead = place.dead
            room += len(dead & kept.keys())
            kept = {name: kind for name, kind in kept.items() if name not in dead}
        taken = [name for name in new if len(name) <= NAME_CHARS_MAX][: max(0, room)]
        if place is None and len(node.places) >= COMPONENTS_MAX:
            taken = []
        wanted = kept | {name: new[name] for name in taken}
        if len(taken) < len(new) or not self._shelves.has_room(component, wanted):
            self._cap(node, component, new.keys() - set(taken) or set(new), tick, at)
        if taken and self._shelves.has_room(component, wanted):
            moved = self._shelves.place(component, wanted) if place is None else self._shelves.moved(place, wanted)
            node.places[component] = moved

    def _cap(self, node: NodeSeries, component: str, names: set[str], tick: int, at: datetime) -> None:
        self.refused += len(names)
        known = node.capped or Capped(component, min(names), 0, at, tick)
        node.capped = Capped(known.component, known.series, known.refused + len(names), known.since, tick)


def _told(
    place: shelves.Place, readings: Iterable[model.Metric], gone_names: Iterable[str], *, is_full: bool
) -> windows.Told:
    columns: list[int] = []
    values: list[float] = []
    known = place.shelf.columns
    gone = [known[name] for name in gone_names if name in known]
    life = 0
    for metric in readings:
        column = known.get(metric.name)
        if column is None:
            continue
        if not math.isfinite(metric.value) or abs(metric.value) > VALUE_MAX:
            gone.append(column)
            continue
        columns.append(column)
        values.append(metric.value)
        life = max(life, metric.life)
    return windows.Told(columns, values, gone, is_full, life)
