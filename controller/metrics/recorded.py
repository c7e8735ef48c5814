"""The thin past out of the store, asked as if it were in the windows.

Theory of operation. What is asked for is read some hours at a time, and of it only the series that the figures are made
of, into rings of their own; the time before that a question looks back to is read again with the next hours.

Rules kept: what lies outside of what is stored is unknown; memory is bounded by the hours, the nodes and the series of
one rule, however far the store reaches back. Left out: what is asked (`monitor`, `recalling`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby

import numpy as np

from controller.core import model
from controller.metrics import chunks, comparison, figures, intake, keeping, limits, shelves, windows

HOURS_AT_ONCE = timedelta(hours=2)  # beside what is looked back to


class Recorded:
    """Asks the store.

    Args:
        archive: Where chunks are stored.
        kept: How they were thinned out.
        period: Time between two heartbeats, which readings are counted by.
    """

    def __init__(self, archive: keeping.Archive, kept: limits.Limits, period: timedelta) -> None:
        self._archive = archive
        self._kept = kept
        self._period = period
        self._loaded: tuple[object, datetime, datetime] | None = None
        self._known: comparison.Known | None = None

    def over(
        self,
        component: model.ComponentName,
        metrics: tuple[model.JudgedMetric, ...],
        nodes: tuple[model.NodeId, ...],
        bounds: Sequence[datetime],
    ) -> dict[str, figures.Figure]:
        """Say how each metric went over spans of time; as `Collector.over` has it."""
        known = self._covering((component, metrics), bounds[0], bounds[-1])
        return comparison.over(component, metrics, nodes, bounds, known)

    def _covering(
        self, of: tuple[model.ComponentName, tuple[model.JudgedMetric, ...]], since: datetime, until: datetime
    ) -> comparison.Known:
        if (
            self._known is None
            or self._loaded is None
            or self._loaded[0] != of
            or not (self._loaded[1] <= since and until <= self._loaded[2])
        ):
            begin, end = since - self._kept.step, until + HOURS_AT_ONCE
            self._known, self._loaded = self._read(*of, begin, end), (of, begin, end)
        return self._known

    def _read(
        self,
        component: model.ComponentName,
        metrics: Iterable[model.JudgedMetric],
        since: datetime,
        until: datetime,
    ) -> comparison.Known:
        epoch = keeping.epoch(since, self._kept)
        slots = (until - since) // self._kept.step + 2 * keeping.READINGS
        rows = shelves.Shelves(windows.Extent(1, 1, slots, limits.ticks(self._kept.step)))
        read = sorted(keeping.Keeping(self._archive, epoch).stored(component, since, until), key=lambda each: each[0])
        nodes: dict[model.NodeId, intake.NodeSeries] = {}
        for node_id, found in groupby(read, key=lambda each: each[0]):
            of_node = [chunk for _, chunk in found]
            kinds = {name: kind for name, kind in of_node[-1].kinds.items() if _is_read(name, metrics)}
            if rows.has_room(component, kinds):
                place = rows.place(component, kinds)
                _fill(place, of_node, epoch)
                nodes[node_id] = intake.NodeSeries(places={component: place})
        return comparison.Known(nodes, epoch, self._kept, self._period)


def _is_read(name: str, metrics: Iterable[model.JudgedMetric]) -> bool:
    """Tell whether a figure may be made of a series."""
    measures = [each.measure for each in metrics]
    return any(name in (each.series, each.per) or name.startswith(f"{each.series}_bucket{{") for each in measures)


def _fill(place: shelves.Place, read: list[chunks.Chunk], epoch: keeping.Epoch) -> None:
    """Put all that was read of a node into its row; the latest reading stands for what is at full resolution."""
    ticks, values = keeping.columns(place, read, epoch)
    table = place.shelf.table
    table.coarse.fill(place.row, ticks, values)
    if len(ticks):
        table.fine.put(place.row, int(ticks[-1]), values[-1])
        table.latest[place.row] = np.int64(ticks[-1])
