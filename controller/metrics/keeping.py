"""The thin past in the store: what is written of the windows, read again, replayed, and forgotten.

Theory of operation. A chunk is ten readings of the thin ring of one component on one node, with where the windows
stood. It is written once the node has told of the time after it, and at the end; a node is read again when it first
tells of itself. Some hundred nodes at most are written at once, so that no rollout waits for long.

Rules kept: what cannot be written stays to be written, and costs nothing but its place in the windows; what is older
than the retention goes, some at a time. Left out: how rows are written (`controller.store`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Protocol

import numpy as np

from controller.core import model
from controller.metrics import chunks, intake, limits, shelves, windows

# Readings of the thin ring in one chunk: ten minutes, of which a controller that is killed loses one at most.
READINGS = 10
# Nodes whose chunks are written in one transaction: some 20 ms of the store's writer.
NODES_AT_ONCE = 100
# Chunks that are read or deleted at once.
CHUNKS_AT_ONCE = 500

_log = logging.getLogger(__name__)


class Archive(Protocol):
    """Where chunks are stored."""

    async def write_chunks(self, chunks: tuple[model.SeriesChunk, ...]) -> None:
        """Write chunks, each in the place of what was there under its key; durable on return."""
        ...

    async def delete_chunks(self, before: datetime, limit: int) -> int:
        """Delete the oldest chunks that begin before an instant, and say how many that were."""
        ...

    async def forget_chunks(self, node_id: model.NodeId) -> None:
        """Delete the chunks of a node."""
        ...

    def chunks_of(self, node_id: model.NodeId, since: datetime) -> tuple[model.SeriesChunk, ...]:
        """Read the chunks of a node from an instant on, by component and begin."""
        ...

    def chunks_between(
        self, component: str, since: datetime, until: datetime, after: tuple[datetime, str], limit: int
    ) -> tuple[model.SeriesChunk, ...]:
        """Read chunks of a component that begin in a span of time, after a begin and node, in the order of both."""
        ...


@dataclass(frozen=True, slots=True)
class Replayed:
    """One reading of the past.

    Args:
        series: Of each counter how much it had grown since it was first seen; of each gauge its mean since the reading
            before. What is unknown is absent.
    """

    at: datetime
    node_id: model.NodeId
    series: Mapping[str, float]


@dataclass(slots=True)
class Epoch:
    """What ticks mean.

    Args:
        base_seconds: Instant of tick 0, since 1970; a whole number of chunks.
        chunk_ticks: Length of one chunk.
    """

    base_seconds: float
    chunk_ticks: int

    def tick(self, seconds: float) -> int:
        """Tick of an instant; the first or the last there is where it lies outside."""
        return min(max(0, round((seconds - self.base_seconds) * windows.TICKS_PER_SECOND)), windows.TICK_MAX)

    def seconds(self, ticks: windows.Ticks | windows.Numbers) -> windows.Floats:
        """Instants of ticks."""
        return ticks / windows.TICKS_PER_SECOND + self.base_seconds

    def begin(self, number: int) -> datetime:
        """When a chunk begins."""
        return datetime.fromtimestamp(self.base_seconds + number * self.chunk_ticks / windows.TICKS_PER_SECOND, UTC)


class Keeping:
    """Writes and reads chunks.

    Args:
        archive: Where they are stored.
        epoch: What the ticks of the windows mean.
    """

    def __init__(self, archive: Archive, epoch: Epoch) -> None:
        self._archive = archive
        self._epoch = epoch
        self._due: dict[model.NodeId, int] = {}

    def note(self, node_id: model.NodeId, node: intake.NodeSeries) -> None:
        """Note that a node has told of itself: what it told before the present chunk is to be written."""
        number = node.heard_tick // self._epoch.chunk_ticks
        if number != node.chunk:
            if node.chunk >= 0:
                self._due.setdefault(node_id, node.chunk)
            node.chunk = number

    async def forget(self, node_id: model.NodeId) -> None:
        """Forget a node, and all that was written of it."""
        self._due.pop(node_id, None)
        await self._archive.forget_chunks(node_id)

    async def write(self, nodes: Mapping[model.NodeId, intake.NodeSeries]) -> None:
        """Write what is due, some nodes at a time."""
        while self._due:
            batch = {node_id: nodes.get(node_id) for node_id in list(self._due)[:NODES_AT_ONCE]}
            until = {node_id: node.chunk for node_id, node in batch.items() if node is not None}
            rows = tuple(row for node_id in until for row in self._rows(node_id, nodes[node_id], self._due[node_id]))
            await self._archive.write_chunks(rows)
            for node_id, node in batch.items():
                self._due.pop(node_id, None)
                if node is not None and node.chunk != until[node_id]:  # it told of itself meanwhile
                    self._due[node_id] = until[node_id]

    async def write_all(self, nodes: Mapping[model.NodeId, intake.NodeSeries]) -> None:
        """Write everything that is not written yet, the present chunks among it."""
        for node_id, node in nodes.items():
            if node.chunk >= 0:
                self._due.setdefault(node_id, node.chunk)
                node.chunk += 1
        await self.write(nodes)
        for node in nodes.values():
            node.chunk = -1

    def _rows(self, node_id: model.NodeId, node: intake.NodeSeries, first: int) -> Iterator[model.SeriesChunk]:
        for component, place in node.places.items():
            table, row = place.shelf.table, place.row
            times, values = table.coarse.of(row)
            numbers = times // self._epoch.chunk_ticks
            latest = float(self._epoch.seconds(table.latest[row : row + 1])[0])
            for number in np.unique(numbers[(numbers >= first) & (numbers < node.chunk)]).tolist():
                which = numbers == number
                chunk = chunks.Chunk(
                    kinds=dict(place.kinds),
                    times=self._epoch.seconds(times[which]),
                    values=values[which],
                    seen=table.seen[row],
                    total=table.total[row],
                    life=int(table.life[row]),
                    latest=latest,
                )
                yield model.SeriesChunk(node_id, component, self._epoch.begin(number), chunks.encode(chunk))

    def remember(self, node_id: model.NodeId, since: datetime, rows: shelves.Shelves) -> dict[str, shelves.Place]:
        """Make places for what is stored of a node, where there is room for it; without what cannot be read."""
        found: dict[str, shelves.Place] = {}
        try:
            known = self._archive.chunks_of(node_id, since)
        except Exception as error:  # noqa: BLE001 whatever a driver raises, the node's word of now counts
            _log.warning("cannot read the series of node %s: %s", node_id, error)
            return found
        for component, stored in groupby(known, lambda each: each.component):
            read = list(_decoded(stored))
            if read and len(found) < intake.COMPONENTS_MAX and rows.has_room(component, read[-1].kinds):
                found[component] = self._restored(rows.place(component, read[-1].kinds), read)
        return found

    def _restored(self, place: shelves.Place, read: list[chunks.Chunk]) -> shelves.Place:
        names, latest = tuple(place.shelf.columns), read[-1]
        ticks, values = columns(place, read, self._epoch)
        of = [list(latest.kinds).index(name) for name in names]
        table = place.shelf.table
        table.coarse.fill(place.row, ticks, values)
        table.seen[place.row], table.total[place.row] = latest.seen[of], latest.total[of]
        table.life[place.row], table.latest[place.row] = latest.life, self._epoch.tick(latest.latest)
        return place

    async def prune(self, before: datetime) -> None:
        """Delete what is too old, some at a time."""
        while await self._archive.delete_chunks(before, CHUNKS_AT_ONCE) == CHUNKS_AT_ONCE:
            pass

    async def replay(self, component: str, since: datetime, until: datetime) -> AsyncIterator[Replayed]:
        """Tell again what all nodes told of a component, in the order of time.

        Args:
            component: Whose series.
            since: First instant.
            until: Last instant.
        """
        before: dict[model.NodeId, _Reading] = {}
        stored = self._between(component, since - self._chunk_length, until)
        for _, together in groupby(stored, lambda each: each.began_at):
            readings = sorted(_readings(together), key=lambda each: (each.seconds, each.node_id))
            for reading in readings:
                at = datetime.fromtimestamp(reading.seconds, UTC)
                if since <= at <= until:
                    yield Replayed(at, reading.node_id, _told(before.get(reading.node_id), reading))
                before[reading.node_id] = reading

    def stored(self, component: str, since: datetime, until: datetime) -> Iterator[tuple[model.NodeId, chunks.Chunk]]:
        """Read what there is of a component in a span of time, by begin and node; what cannot be read is left out."""
        for each in self._between(component, since - self._chunk_length, until):
            yield from ((each.node_id, chunk) for chunk in _decoded((each,)))

    def oldest(self, component: str) -> datetime | None:
        """Tell how far back what is stored of a component reaches; None for nothing."""
        begin, end = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
        return next(
            (each.began_at for each in self._archive.chunks_between(component, begin, end, (begin, ""), 1)), None
        )

    @property
    def _chunk_length(self) -> timedelta:
        return timedelta(seconds=self._epoch.chunk_ticks / windows.TICKS_PER_SECOND)

    def _between(self, component: str, since: datetime, until: datetime) -> Iterator[model.SeriesChunk]:
        after = (since, "")
        while True:
            found = self._archive.chunks_between(component, since, until, after, CHUNKS_AT_ONCE)
            yield from found
            if len(found) < CHUNKS_AT_ONCE:
                return
            after = (found[-1].began_at, found[-1].node_id)


@dataclass(frozen=True, slots=True)
class _Reading:
    seconds: float
    node_id: model.NodeId
    kinds: Mapping[str, bool]
    values: Mapping[str, float]


def _readings(stored: Iterable[model.SeriesChunk]) -> Iterator[_Reading]:
    for each in stored:
        for chunk in _decoded((each,)):
            for seconds, values in zip(chunk.times, chunk.values, strict=True):
                named = dict(zip(chunk.kinds, values.tolist(), strict=True))
                yield _Reading(float(seconds), each.node_id, chunk.kinds, named)


def _told(before: _Reading | None, now: _Reading) -> Mapping[str, float]:
    told = {name: value for name, value in now.values.items() if now.kinds[name]}
    if before is not None and now.seconds > before.seconds:
        for name in (name for name, is_counter in now.kinds.items() if not is_counter and name in before.values):
            told[name] = (now.values[name] - before.values[name]) / (now.seconds - before.seconds)
    return {name: value for name, value in told.items() if not np.isnan(value)}


def _decoded(stored: Iterable[model.SeriesChunk]) -> Iterator[chunks.Chunk]:
    for each in stored:
        try:
            yield chunks.decode(each.body)
        except chunks.ChunkError as error:
            _log.warning(
                "cannot use the chunk of %s on %s at %s: %s", each.component, each.node_id, each.began_at, error
            )


def columns(place: shelves.Place, read: Sequence[chunks.Chunk], epoch: Epoch) -> tuple[windows.Ticks, windows.Floats]:
    """Give the readings of chunks as the row of a node has them: ticks, and values by its columns."""
    times = np.concatenate([each.times for each in read])
    ticks = np.array([epoch.tick(seconds) for seconds in times], np.uint32)
    kinds = place.kinds
    return ticks, np.concatenate([_columns(each, kinds, tuple(kinds)) for each in read])


def epoch(since: datetime, kept: limits.Limits) -> Epoch:
    """Have ticks begin with a chunk, so that an instant and all after it have one."""
    chunk_seconds = READINGS * kept.step.total_seconds()
    first_seconds = since.timestamp()
    return Epoch(first_seconds - first_seconds % chunk_seconds, READINGS * limits.ticks(kept.step))


def _columns(chunk: chunks.Chunk, kinds: Mapping[str, bool], names: tuple[str, ...]) -> windows.Floats:
    """Values of the series that these names have now; NaN for those that were not there, or were of another kind."""
    columns = {name: column for column, name in enumerate(chunk.kinds)}
    values = np.full((len(chunk.times), len(names)), np.nan)
    for column, name in enumerate(names):
        if chunk.kinds.get(name) is kinds[name]:
            values[:, column] = chunk.values[:, columns[name]]
    return values
