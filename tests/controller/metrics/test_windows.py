"""Windows against a model that keeps everything in lists and thinks one step at a time."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.metrics import rings, windows

SECOND = windows.TICKS_PER_SECOND
IS_COUNTER = (True, True, False)
ROOM = windows.Extent(fine_slots=64, fine_spacing=1, coarse_slots=64, coarse_spacing=1)
VALUES = st.one_of(st.integers(-3, 60).map(float), st.floats(-10, 100, allow_nan=False))


@dataclass(frozen=True, slots=True)
class Step:
    """One reading, so many ticks after the one before."""

    passed: int
    values: dict[int, float]
    gone: tuple[int, ...]
    is_full: bool
    life: int


STEPS = st.lists(
    st.builds(
        Step,
        passed=st.integers(0, 3 * SECOND),
        values=st.dictionaries(st.integers(0, 2), VALUES, max_size=3),
        gone=st.lists(st.integers(0, 2), max_size=2).map(tuple),
        is_full=st.booleans(),
        life=st.integers(0, 3),
    ),
    min_size=1,
    max_size=40,
)


@dataclass
class Model:
    """What a row should be."""

    seen: dict[int, float] = field(default_factory=dict)
    total: dict[int, float] = field(default_factory=dict)
    shown: set[int] = field(default_factory=set)
    life: int = 0
    now: int = 0
    readings: dict[int, dict[int, float]] = field(default_factory=dict)

    def take(self, step: Step) -> None:
        before, self.now = self.now, self.now + step.passed
        seconds = (self.now - before) / SECOND
        if step.is_full:
            self.shown.clear()
        for series, value in list(self.seen.items()):
            if not IS_COUNTER[series]:
                told = step.values.get(series, value)
                self.total[series] += seconds * (value + told) / 2
        for series, value in step.values.items():
            self._count(series, max(value, 0.0) if IS_COUNTER[series] else value, step.life)
            self.shown.add(series)
        if step.values and step.life:
            self.life = step.life
        self.shown -= set(step.gone)
        self.readings[self.now] = {series: self.total[series] for series in self.shown}

    def _count(self, series: int, value: float, life: int) -> None:
        if series not in self.seen:
            self.total[series] = value if IS_COUNTER[series] else 0.0
        elif IS_COUNTER[series]:
            is_other = life and self.life and life != self.life
            if is_other:
                self.total[series] += value if life > self.life else 0.0
            else:
                self.total[series] += value if value < self.seen[series] else value - self.seen[series]
        self.seen[series] = value

    def span(self, series: int, begin: int, end: int, stale: int) -> tuple[float, float] | None:
        times = [at for at in sorted(self.readings) if begin <= at <= end and series in self.readings[at]]
        if len(times) < 2 or times[-1] < end - stale:
            return None
        first, last = times[0], times[-1]
        return self.readings[last][series] - self.readings[first][series], (last - first) / SECOND


def told(step: Step) -> windows.Told:
    return windows.Told(list(step.values), list(step.values.values()), list(step.gone), step.is_full, step.life)


def table_of(steps: list[Step], extent: windows.Extent = ROOM) -> tuple[windows.Table, int]:
    table = windows.Table(np.array(IS_COUNTER), extent)
    row, now = table.row(), 0
    for step in steps:
        now += step.passed
        table.take(row, now, told(step))
    return table, row


@settings(max_examples=300)
@given(
    steps=STEPS,
    spans=st.lists(st.tuples(st.integers(0, 130 * SECOND), st.integers(0, 60 * SECOND)), min_size=1, max_size=5),
)
def test_what_happened_in_a_span_is_what_the_readings_in_it_say(
    steps: list[Step], spans: list[tuple[int, int]]
) -> None:
    table, row = table_of(steps)
    model = Model()
    for step in steps:
        model.take(step)
    begins = np.array([[begin for begin, _ in spans]], np.uint32)
    ends = np.array([[begin + length for begin, length in spans]], np.uint32)
    stale = 5 * SECOND
    found = table.spans(np.array([row]), begins, ends, stale)
    seconds = np.broadcast_to(found.seconds, found.growth.shape)
    for at, (begin, length) in enumerate(spans):
        for series in range(3):
            expected = model.span(series, begin, begin + length, stale)
            growth = found.growth[0, at, series]
            if expected is None:
                assert np.isnan(growth)
            else:
                assert growth == pytest.approx(expected[0], abs=1e-6)
                assert seconds[0, at, series] == pytest.approx(expected[1])


@given(steps=STEPS)
def test_counters_never_fall_whatever_is_told(steps: list[Step]) -> None:
    table, row = table_of(steps)
    _, values = table.fine.of(row)
    for series in (0, 1):
        known = values[:, series][~np.isnan(values[:, series])]
        assert (np.diff(known) >= -1e-9).all()


@given(times=st.lists(st.integers(1, 500), min_size=1, max_size=50, unique=True).map(sorted), slots=st.integers(1, 20))
def test_a_ring_keeps_the_latest_and_finds_them(times: list[int], slots: int) -> None:
    ring = rings.Ring(slots, 1)
    ring.grow(3)
    for at in times:
        ring.put(1, at, np.array([float(at)]))
    kept = times[-slots:]
    found, values = ring.of(1)
    assert (found.tolist(), values[:, 0].tolist()) == (kept, [float(at) for at in kept])
    asked = np.arange(0, 502, dtype=np.uint32)[None, :]
    assert ring.earlier(np.array([1]), asked)[0].tolist() == [bisect.bisect_left(kept, at) for at in range(502)]
    assert ring.earlier(np.array([0, 2]), np.repeat(asked, 2, axis=0)).tolist() == [[0] * 502] * 2


def test_a_burst_of_readings_pushes_nothing_out_and_loses_nothing() -> None:
    extent = windows.Extent(fine_slots=10, fine_spacing=7 * SECOND, coarse_slots=5, coarse_spacing=60 * SECOND)
    steps = [Step(10 * SECOND, {0: 10.0 * number}, (), is_full=False, life=0) for number in range(8)]
    burst = [Step(1, {0: 70.0 + number}, (), is_full=False, life=0) for number in range(1, 200)]
    table, row = table_of([*steps, *burst], extent)
    times, values = table.fine.of(row)
    assert len(times) <= 10
    assert times[0] == 10 * SECOND
    assert values[-1, 0] == 269.0


def test_the_thin_ring_goes_on_where_the_other_one_ends() -> None:
    extent = windows.Extent(fine_slots=10, fine_spacing=7 * SECOND, coarse_slots=50, coarse_spacing=60 * SECOND)
    steps = [Step(10 * SECOND, {0: 5.0 * number, 2: 4.0}, (), is_full=False, life=0) for number in range(200)]
    table, row = table_of(steps, extent)
    begins = np.array([[0, 600 * SECOND, 1_950 * SECOND]], np.uint32)
    ends = np.array([[2_000 * SECOND, 1_200 * SECOND, 2_000 * SECOND]], np.uint32)
    found = table.spans(np.array([row]), begins, ends, 30 * SECOND)
    assert found.growth[0, :, 0].tolist() == [995.0, found.seconds[0, 1, 0] / 2, 25.0]  # five each ten seconds
    assert 500 <= found.seconds[0, 1, 0] <= 600
    assert (found.growth[0, :, 2] / found.seconds[0, :, 0]).tolist() == pytest.approx([4.0] * 3)
    assert np.isnan(found.growth[0, :, 1]).all()


def test_a_row_that_is_given_back_is_empty_for_the_next() -> None:
    table, row = table_of([Step(SECOND, {0: 7.0, 2: 1.0}, (), is_full=False, life=3)])
    table.give_back(row)
    assert table.row() == row
    assert (table.fine.count[row], table.coarse.count[row], table.life[row]) == (0, 0, 0)
    table.take(row, 5 * SECOND, windows.Told([0], [9.0], [], is_full=True, life=1))
    assert table.fine.of(row)[1][:, 0].tolist() == [9.0]


def test_so_many_bytes_are_kept_of_a_series_and_no_more() -> None:
    extent = windows.Extent(fine_slots=180, fine_spacing=240, coarse_slots=241, coarse_spacing=1_920)
    table = windows.Table(np.ones(12, np.bool_), extent)
    rows = [table.row() for _ in range(4_000)]
    assert table.rows == 4_000
    per_series_hour = table.fine_nbytes / len(rows) / 12 / 0.5
    assert per_series_hour <= 3 * 1_024
    before = table.fine_nbytes
    for tick in range(0, 300_000, 400):
        table.take(rows[0], tick, windows.Told([0], [float(tick)], [], is_full=False, life=0))
    assert table.fine_nbytes == before
