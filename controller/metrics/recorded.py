"""The thin past out of the store, asked as if it were in the windows.

Theory of operation. What a question looks back to is loaded some hours at a time, and of it only the series that the
figures are made of, into rings of their own.

Rules kept: what lies outside of what is loaded is unknown; memory is bounded by the hours, the nodes and the series of
one rule, however far the store reaches back; others have the loop between some chunks and the next. Left out: what is
asked (`recalling`).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from controller.core import model
from controller.metrics import chunks, comparison, figures, intake, keeping, limits, shelves, windows

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
CHUNKS_AT_ONCE = 100  # that are read without a break: some ten milliseconds of the loop


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
        self._known = comparison.Known({}, keeping.epoch(EARLIEST, kept), kept, period)

    async def load(
        self,
        component: model.ComponentName,
        metrics: Sequence[model.JudgedMetric],
        since: datetime,
        until: datetime,
    ) -> None:
        """Read what there is of a span of time, in the place of what was loaded before.

        Args:
            component: Whose series.
            metrics: What will be asked for.
            since: First instant.
            until: Last instant.
        """
        epoch = keeping.epoch(since, self._kept)
        found: dict[model.NodeId, list[chunks.Chunk]] = {}
        stored = keeping.Keeping(self._archive, epoch).stored(component, since - self._kept.step, until)
        for number, (node_id, chunk) in enumerate(stored, 1):
            found.setdefault(node_id, []).append(_only(chunk, metrics))
            if not number % CHUNKS_AT_ONCE:
                await asyncio.sleep(0)
        slots = (until - since) // self._kept.step + 3 * keeping.READINGS
        rows = shelves.Shelves(windows.Extent(1, 1, slots, limits.ticks(self._kept.step)))
        nodes: dict[model.NodeId, intake.NodeSeries] = {}
        for node_id, read in found.items():
            if rows.has_room(component, read[-1].kinds):
                place = rows.place(component, read[-1].kinds)
                _fill(place, read, epoch)
                nodes[node_id] = intake.NodeSeries(places={component: place})
        self._known = comparison.Known(nodes, epoch, self._kept, self._period)

    def over(
        self,
        component: model.ComponentName,
        metrics: tuple[model.JudgedMetric, ...],
        nodes: tuple[model.NodeId, ...],
        bounds: Sequence[datetime],
    ) -> dict[str, figures.Figure]:
        """Say how each metric went over spans of time that are loaded; as `Collector.over` has it."""
        return comparison.over(component, metrics, nodes, bounds, self._known)


def _only(chunk: chunks.Chunk, metrics: Iterable[model.JudgedMetric]) -> chunks.Chunk:
    """Leave the series of a chunk that these figures are not made of."""
    kept = [column for column, name in enumerate(chunk.kinds) if _is_read(name, metrics)]
    names = list(chunk.kinds)
    return dataclasses.replace(
        chunk,
        kinds={names[column]: chunk.kinds[names[column]] for column in kept},
        values=chunk.values[:, kept],
        seen=chunk.seen[kept],
        total=chunk.total[kept],
    )


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
