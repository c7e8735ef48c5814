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

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Ticks = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]

# Ticks per second: 31 ms tell the readings of any heartbeat apart, and 32 bits of them last for four years.
TICKS_PER_SECOND = 32
TICK_MAX = 2**32 - 2  # one more has to be a tick as well, since the end of a span is searched for by it
# Nodes of one page: ten thousand nodes leave at most half a percent of it empty.
PAGE_NODES = 64


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
        seconds: Between the two readings that this was taken from.
    """

    growth: Floats
    seconds: Floats


class Ring:
    """The latest readings of each row, oldest overwritten."""

    def __init__(self, nodes: int, slots: int, series: int) -> None:
        # Memory of zeros costs nothing until it is written to: rows that nobody has are not resident.
        self.times = np.zeros((nodes, slots), np.uint32)
        self.values = np.zeros((nodes, slots, series))
        self._first = np.zeros(nodes, np.int64)
        self.count = np.zeros(nodes, np.int64)
        self._slots = slots

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return self.times.nbytes + self.values.nbytes + self._first.nbytes + self.count.nbytes

    def clear(self, row: int) -> None:
        """Forget a row."""
        self._first[row] = self.count[row] = 0

    def put(self, row: int, tick: int, values: Floats) -> None:
        """Add a reading."""
        count = int(self.count[row])
        slot = (int(self._first[row]) + count) % self._slots
        self.times[row, slot] = tick
        self.values[row, slot] = values
        if count < self._slots:
            self.count[row] = count + 1
        else:
            self._first[row] = (slot + 1) % self._slots

    def replace(self, row: int, tick: int, values: Floats) -> None:
        """Put a reading in the place of the latest."""
        slot = self._slot(row, -1)
        self.times[row, slot] = tick
        self.values[row, slot] = values

    def fill(self, row: int, times: Ticks, values: Floats) -> None:
        """Make these all that is kept of a row, oldest first; of too many the latest."""
        count = min(len(times), self._slots)
        self.times[row, :count] = times[len(times) - count :]
        self.values[row, :count] = values[len(times) - count :]
        self._first[row], self.count[row] = 0, count

    def time(self, row: int, index: int) -> int:
        """Tick of a reading; the oldest is 0, the latest -1."""
        return int(self.times[row, self._slot(row, index)])

    def of(self, row: int) -> tuple[Ticks, Floats]:
        """Return copies of what is kept of one row, oldest first."""
        slots = (self._first[row] + np.arange(self.count[row])) % self._slots
        return self.times[row, slots], self.values[row, slots]

    def oldest(self, rows: Numbers) -> Ticks:
        """Ticks of the oldest readings; anything where there is none."""
        return self.times[rows, self._first[rows]]

    def _slot(self, row: int, index: int) -> int:
        place = index if index >= 0 else int(self.count[row]) + index
        return (int(self._first[row]) + place) % self._slots

    def slots(self, rows: Numbers, places: Numbers) -> Numbers:
        """Turn places in a row, [row, …], into places in the flat arrays."""
        slots = self._first[rows].reshape(-1, *(1,) * (places.ndim - 1)) + places
        slots -= self._slots * (slots >= self._slots)
        slots += self._slots * rows.reshape(-1, *(1,) * (places.ndim - 1))
        return slots

    def earlier(self, rows: Numbers, ticks: Ticks) -> Numbers:
        """Count the readings of each row before each tick of it, [row, tick]."""
        flat = self.times.reshape(-1)
        count = self.count[rows][:, None]
        low = np.zeros(ticks.shape, np.int64)
        step = 1 << (self._slots.bit_length() - 1)
        while step:
            place = low + step
            is_there = place <= count
            at = self.slots(rows, np.where(is_there, place - 1, 0))
            is_there &= flat.take(at) < ticks
            low += step * is_there
            step >>= 1
        return low


class Page:
    """Nodes that show the same series.

    Args:
        is_counter: Of each series, whether it is a counter.
        extent: How much is kept.
    """

    def __init__(self, is_counter: Flags, extent: Extent) -> None:
        series = len(is_counter)
        self.is_counter = is_counter
        self._extent = extent
        self.fine = Ring(PAGE_NODES, extent.fine_slots, series)
        self.coarse = Ring(PAGE_NODES, extent.coarse_slots, series)
        self.free = list(range(PAGE_NODES))[::-1]
        # Of each row what was told last, what it has come to, and whether it is still shown.
        self.seen = np.zeros((PAGE_NODES, series))
        self.total = np.zeros((PAGE_NODES, series))
        self.is_shown = np.zeros((PAGE_NODES, series), np.bool_)
        self.life = np.zeros(PAGE_NODES, np.int64)
        self.latest = np.zeros(PAGE_NODES, np.int64)

    @property
    def fine_nbytes(self) -> int:
        """Bytes of what is kept at full resolution, with what each row has come to."""
        state = self.seen.nbytes + self.total.nbytes + self.is_shown.nbytes + self.life.nbytes + self.latest.nbytes
        return self.fine.nbytes + state

    def clear(self, row: int) -> None:
        """Begin a row with nothing."""
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
        first = self._read(rows, begins, stale, is_end=False)
        last = self._read(rows, ends, stale, is_end=True)
        seconds = (last[1] - first[1]) / TICKS_PER_SECOND
        growth = last[0] - first[0]
        is_unknown = ~(seconds > 0)
        growth[is_unknown] = seconds[is_unknown] = np.nan
        return Spans(growth, seconds)

    def _read(self, rows: Numbers, ticks: Ticks, stale: int, *, is_end: bool) -> tuple[Floats, Floats]:
        """Read values and their ticks, [row, tick, series], from the ring that has the closest reading."""
        oldest = self.fine.oldest(rows)
        near = np.flatnonzero(ticks.max(axis=0) >= oldest.min())
        far = np.flatnonzero(ticks.min(axis=0) < oldest.max())
        values = np.full((*ticks.shape, len(self.is_counter)), np.nan)
        times = np.full_like(values, np.nan)
        if len(near):
            values[:, near], times[:, near] = _found(self.fine, rows, ticks[:, near], stale, is_end=is_end)
        if len(far):
            found, at = _found(self.coarse, rows, ticks[:, far], stale, is_end=is_end)
            known = times[:, far]
            is_better = np.isnan(known) | ((at > known) if is_end else (at < known))
            values[:, far] = np.where(is_better, found, values[:, far])
            times[:, far] = np.where(is_better, at, known)
        return values, times


def copy(page: Page, row: int, columns: list[int], to_page: Page, to_row: int, to_columns: list[int]) -> None:
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


def _found(ring: Ring, rows: Numbers, ticks: Ticks, stale: int, *, is_end: bool) -> tuple[Floats, Floats]:
    """Find in one ring the first reading from a tick on, or the last one up to it, and when it was."""
    places = ring.earlier(rows, ticks + np.uint32(1)) - 1 if is_end else ring.earlier(rows, ticks)
    is_there = (places >= 0) & (places < ring.count[rows][:, None])
    slots = ring.slots(rows, np.where(is_there, places, 0))
    values = ring.values.reshape(-1, ring.values.shape[2]).take(slots, axis=0)
    times = ring.times.reshape(-1).take(slots).astype(np.float64)
    if is_end:
        is_there &= times >= ticks.astype(np.float64) - stale
    values[~is_there] = np.nan
    spread = np.repeat(times[:, :, None], values.shape[2], axis=2)
    is_missing = np.isnan(values)
    if (is_missing & is_there[:, :, None]).any():
        _mend(ring, _Missing(rows, places, ticks, is_missing & is_there[:, :, None], stale, is_end), values, spread)
        is_missing = np.isnan(values)
    spread[is_missing] = np.nan
    return values, spread


@dataclass(frozen=True, slots=True)
class _Missing:
    """Series that the closest reading lacks, which the next closest may have."""

    rows: Numbers
    places: Numbers
    ticks: Ticks
    which: Flags
    stale: int
    is_end: bool


def _mend(ring: Ring, missing: _Missing, values: Floats, times: Floats) -> None:
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
    times[row, span, series] = at


def _last_known(is_known: Flags) -> Numbers:
    every = np.arange(is_known.shape[1])
    return np.maximum.accumulate(np.where(is_known, every, -1), axis=1)


def _next_known(is_known: Flags) -> Numbers:
    every = np.arange(is_known.shape[1])
    later = np.where(is_known, every, is_known.shape[1])[:, ::-1]
    return np.minimum.accumulate(later, axis=1)[:, ::-1]
