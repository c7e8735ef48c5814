"""Readings of up to some dozens of nodes that show the same series, in rings of a fixed size.

Theory of operation. What is kept of a series is a number that only grows in meaning, never a raw one: of a counter how
much it has grown since it was first seen, put right where its process began anew; of a gauge the area under it. So
whatever happened between two instants is one subtraction, however far they lie apart, and a ring of one reading a
minute continues a ring of every reading without a seam. A series that a reading lacks is NaN there.

Rules kept: a fixed number of bytes for each series, whatever comes; all nodes of a page are asked at once; the latest
slot moves along until it is a spacing behind the one before it, so that a burst of readings pushes nothing out. Left
out: whose row it is (`shelves`), and what instants mean (`collector`): here they are ticks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.metrics import rings

Floats = rings.Floats
Numbers = rings.Numbers
Ticks = rings.Ticks
Flags = npt.NDArray[np.bool_]

# Ticks per second: 31 ms tell the readings of any heartbeat apart, and 32 bits of them last for four years.
TICKS_PER_SECOND = 32
TICK_MAX = 2**32 - 2  # one more has to be a tick as well, since the end of a span is searched for by it
# Rows that a table grows by: so few that hardly any are empty, and a 64th of a large one, so that it grows seldom.
GROWTH_MIN, GROWTH_MAX = 4, 64


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is kept of each series.

    Args:
        fine_slots: Readings at full resolution.
        fine_spacing: Ticks that two of them are apart at least.
        coarse_slots: Readings in the thinner ring.
        coarse_spacing: Ticks that two of those are apart at least.
    """

    fine_slots: int
    fine_spacing: int
    coarse_slots: int
    coarse_spacing: int


@dataclass(frozen=True, slots=True)
class Told:
    """What one reading told of the series of one row.

    Args:
        columns: Those that it told of.
        values: What it told, finite.
        gone: Columns that are no longer shown.
        is_full: What it did not tell of is no longer shown either.
        life: Number of the process that counts, 0 where that is not known; a higher one is younger.
    """

    columns: list[int]
    values: list[float]
    gone: list[int]
    is_full: bool
    life: int


@dataclass(frozen=True, slots=True)
class Spans:
    """What happened in spans of time.

    Args:
        growth: By how much each series grew, [row, span, series]; of a gauge the area under it. NaN where unknown.
        seconds: Between the two readings that this was taken from; of all series at once where they are alike.
    """

    growth: Floats
    seconds: Floats


_Part = tuple[Numbers, Floats, Floats]  # columns, values and times


class Table:
    """Nodes that show the same series, a row for each.

    Args:
        is_counter: Of each series, whether it is a counter.
        extent: How much is kept.
    """

    def __init__(self, is_counter: Flags, extent: Extent) -> None:
        series = len(is_counter)
        self.is_counter = is_counter
        self._extent = extent
        self.fine = rings.Ring(extent.fine_slots, series)
        self.coarse = rings.Ring(extent.coarse_slots, series)
        self._free: list[int] = []
        # Of each row what was told last, what it has come to, and whether it is still shown.
        self.seen = np.zeros((0, series))
        self.total = np.zeros((0, series))
        self.is_shown = np.zeros((0, series), np.bool_)
        self.life = np.zeros(0, np.int64)
        self.latest = np.zeros(0, np.int64)

    @property
    def rows(self) -> int:
        """Rows that somebody has."""
        return len(self.latest) - len(self._free)

    @property
    def fine_nbytes(self) -> int:
        """Bytes of what is kept at full resolution, with what each row has come to."""
        state = self.seen.nbytes + self.total.nbytes + self.is_shown.nbytes + self.life.nbytes + self.latest.nbytes
        return self.fine.nbytes + state

    def row(self) -> int:
        """Give out an empty row."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self._clear(row)
        return row

    def give_back(self, row: int) -> None:
        """Take a row back."""
        self._free.append(row)

    def _grow(self) -> None:
        known = len(self.latest)
        rows = known + min(GROWTH_MAX, max(GROWTH_MIN, known // GROWTH_MAX))
        self.fine.grow(rows)
        self.coarse.grow(rows)
        for array in (self.seen, self.total, self.is_shown, self.life, self.latest):
            rings.grow(array, rows)
        self._free.extend(range(rows - 1, known - 1, -1))

    def _clear(self, row: int) -> None:
        self.fine.clear(row)
        self.coarse.clear(row)
        self.seen[row] = self.total[row] = np.nan
        self.is_shown[row] = False
        self.life[row] = self.latest[row] = 0

    def take(self, row: int, tick: int, told: Told) -> None:
        """Take a reading; one that is older than the latest counts as of the same instant."""
        now = max(tick, int(self.latest[row]))
        if told.is_full:
            self.is_shown[row] = False
        self._age(row, now)
        if told.columns:
            self._add(row, now, told)
        if told.gone:
            self.is_shown[row, told.gone] = False
        self.latest[row] = now
        self._keep(row, now)

    def _age(self, row: int, now: int) -> None:
        """Let the gauges go on as they were."""
        passed = (now - int(self.latest[row])) / TICKS_PER_SECOND
        np.add(self.total[row], self.seen[row] * passed, out=self.total[row], where=~self.is_counter)

    def _add(self, row: int, now: int, told: Told) -> None:
        columns, values = np.array(told.columns), np.array(told.values)
        before, known = self.seen[row, columns], self.total[row, columns]
        is_counter, is_new = self.is_counter[columns], np.isnan(before)
        values[is_counter & (values < 0)] = 0.0  # no counter is ever below where it began
        passed = (now - int(self.latest[row])) / TICKS_PER_SECOND
        grown = np.where(is_counter, self._grown(row, before, values, told.life), (values - before) * passed / 2)
        self.total[row, columns] = np.where(is_new, np.where(is_counter, values, 0.0), known + grown)
        self.seen[row, columns] = values
        self.is_shown[row, columns] = True
        if told.life:
            self.life[row] = told.life

    def _grown(self, row: int, before: Floats, values: Floats, life: int) -> Floats:
        """Say how much counters grew.

        A younger process began at 0. What an older one, resumed, counted in the meantime is not known. A counter of the
        same process that fell began again at 0.
        """
        known = int(self.life[row])
        if life and known and life != known:
            return values if life > known else np.zeros_like(values)
        return np.where(values < before, values, values - before)

    def _keep(self, row: int, now: int) -> None:
        values = np.where(self.is_shown[row], self.total[row], np.nan)
        fine, coarse = self.fine, self.coarse
        is_close = fine.count[row] > 1 and now - fine.time(row, -2) < self._extent.fine_spacing
        if is_close or (fine.count[row] and fine.time(row, -1) == now):
            fine.replace(row, now, values)
        else:
            fine.put(row, now, values)
        if not coarse.count[row] or now - coarse.time(row, -1) >= self._extent.coarse_spacing:
            coarse.put(row, now, values)

    def spans(self, rows: Numbers, begins: Ticks, ends: Ticks, stale: int) -> Spans:
        """Say what happened in spans of time, from the first reading in each to the last one.

        Args:
            rows: The rows that are asked.
            begins: First ticks, [row, span].
            ends: Last ticks, [row, span].
            stale: Ticks before an end for which the last reading still speaks of it; past that it is unknown.
        """
        first, first_at = self._read(rows, begins, stale, is_end=False)
        last, last_at = self._read(rows, ends, stale, is_end=True)
        seconds = (last_at - first_at) / TICKS_PER_SECOND
        seconds[~(seconds > 0)] = np.nan
        last -= first
        last += np.where(np.isnan(seconds), np.nan, 0.0)
        return Spans(last, seconds)

    def _read(self, rows: Numbers, ticks: Ticks, stale: int, *, is_end: bool) -> tuple[Floats, Floats]:
        """Read values, [row, tick, series], and when they were, from the ring that has the closest reading."""
        oldest = self.fine.oldest(rows)
        near = np.flatnonzero(ticks.max(axis=0, initial=0) >= oldest.min())
        far = np.flatnonzero(ticks.min(axis=0, initial=TICK_MAX) < oldest.max())
        if not len(far):
            return _found(self.fine, rows, ticks, stale, is_end=is_end)
        thin = stale + self._extent.coarse_spacing  # what is read once a minute is up to a minute old
        values, times = _found(self.coarse, rows, ticks[:, far], thin, is_end=is_end)
        if len(far) == ticks.shape[1] and not len(near):
            return values, times
        return self._closest(
            (near, *_found(self.fine, rows, ticks[:, near], stale, is_end=is_end)),
            (far, values, times),
            ticks.shape[1],
            is_end=is_end,
        )

    def _closest(self, near: _Part, far: _Part, columns: int, *, is_end: bool) -> tuple[Floats, Floats]:
        """Put together what was found in both rings."""
        width = max(near[2].shape[2], far[2].shape[2])
        values = np.full((len(near[1]), columns, near[1].shape[2]), np.nan)
        times = np.full((len(near[1]), columns, width), np.nan)
        values[:, near[0]], times[:, near[0]] = near[1], near[2]
        known = times[:, far[0]]
        is_better = np.isnan(known) | ((far[2] > known) if is_end else (far[2] < known))
        values[:, far[0]] = np.where(is_better, far[1], values[:, far[0]])
        times[:, far[0]] = np.where(is_better, far[2], known)
        return values, times


def copy(page: Table, row: int, columns: list[int], to_page: Table, to_row: int, to_columns: list[int]) -> None:
    """Copy what is known of some series of a row into other columns of an empty row of another page."""
    for ring, to_ring in ((page.fine, to_page.fine), (page.coarse, to_page.coarse)):
        times, known = ring.of(row)
        values = np.full((len(times), len(to_page.is_counter)), np.nan)
        values[:, to_columns] = known[:, columns]
        to_ring.fill(to_row, times, values)
    for state, to_state in ((page.seen, to_page.seen), (page.total, to_page.total)):
        to_state[to_row, to_columns] = state[row, columns]
    to_page.is_shown[to_row, to_columns] = page.is_shown[row, columns]
    to_page.life[to_row], to_page.latest[to_row] = page.life[row], page.latest[row]


def _found(ring: rings.Ring, rows: Numbers, ticks: Ticks, stale: int, *, is_end: bool) -> tuple[Floats, Floats]:
    """Find in one ring the first reading from a tick on, or the last one up to it, and when it was.

    Times are [row, tick, 1] where all series of a row were read at once, else [row, tick, series].
    """
    places = ring.earlier(rows, ticks + np.uint32(1)) - 1 if is_end else ring.earlier(rows, ticks)
    is_there = (places >= 0) & (places < ring.count[rows][:, None])
    slots = ring.slots(rows, np.where(is_there, places, 0))
    values = ring.values.reshape(-1, ring.values.shape[2]).take(slots, axis=0)
    times = ring.times.reshape(-1).take(slots).astype(np.float64)
    if is_end:
        is_there &= times >= ticks.astype(np.float64) - stale
    values[~is_there] = np.nan
    times[~is_there] = np.nan
    is_missing = np.isnan(values)
    is_missing &= is_there[:, :, None]
    if not is_missing.any():
        return values, times[:, :, None]
    every = np.repeat(times[:, :, None], values.shape[2], axis=2)
    _mend(ring, _Missing(rows, places, ticks, is_missing, stale, is_end), values, every)
    return values, every


@dataclass(frozen=True, slots=True)
class _Missing:
    """Series that the closest reading lacks, which the next closest may have."""

    rows: Numbers
    places: Numbers
    ticks: Ticks
    which: Flags
    stale: int
    is_end: bool


def _mend(ring: rings.Ring, missing: _Missing, values: Floats, times: Floats) -> None:
    """Take each from the closest reading that has it."""
    row, span, series = np.nonzero(missing.which)
    pairs, of_pair = np.unique(row * values.shape[2] + series, return_inverse=True)
    rows, columns = missing.rows[pairs // values.shape[2]], pairs % values.shape[2]
    every = np.broadcast_to(np.arange(ring.times.shape[1]), (len(rows), ring.times.shape[1]))
    slots = ring.slots(rows, every)
    known = ring.values.reshape(-1, values.shape[2])[slots, columns[:, None]]
    is_known = ~np.isnan(known) & (every < ring.count[rows][:, None])
    closest = _last_known(is_known) if missing.is_end else _next_known(is_known)
    place = closest[of_pair, missing.places[row, span]]
    is_there = (place >= 0) & (place < ring.times.shape[1])
    place = np.where(is_there, place, 0)
    at = ring.times.reshape(-1)[slots[of_pair, place]].astype(np.float64)
    if missing.is_end:
        is_there &= at >= missing.ticks[row, span].astype(np.float64) - missing.stale
    values[row, span, series] = np.where(is_there, known[of_pair, place], np.nan)
    times[row, span, series] = np.where(is_there, at, np.nan)


def _last_known(is_known: Flags) -> Numbers:
    every = np.arange(is_known.shape[1])
    return np.maximum.accumulate(np.where(is_known, every, -1), axis=1)


def _next_known(is_known: Flags) -> Numbers:
    every = np.arange(is_known.shape[1])
    later = np.where(is_known, every, is_known.shape[1])[:, ::-1]
    return np.minimum.accumulate(later, axis=1)[:, ::-1]
