"""Rings of the latest readings, of many rows at once.

Rules kept: a fixed number of bytes for each row and series; rows are searched together, by halving. Left out: what the
readings mean (`windows`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Ticks = npt.NDArray[np.uint32]


def grow(array: npt.NDArray[np.generic], rows: int) -> None:
    """Have so many rows in place; new ones are zero.

    A large block of memory is moved by the kernel, without being copied. Nothing that looks into the array outlives a
    call of this module, so nothing looks at where it was.
    """
    array.resize((rows, *array.shape[1:]), refcheck=False)


class Ring:
    """The latest readings of each row, oldest overwritten."""

    def __init__(self, slots: int, series: int) -> None:
        self.times = np.zeros((0, slots), np.uint32)
        self.values = np.zeros((0, slots, series))
        self.count = np.zeros(0, np.int64)
        self._first = np.zeros(0, np.int64)
        self._slots = slots

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return self.times.nbytes + self.values.nbytes + self._first.nbytes + self.count.nbytes

    def grow(self, rows: int) -> None:
        """Have so many rows; new ones are empty."""
        for array in (self.times, self.values, self.count, self._first):
            grow(array, rows)

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
        """Tick of a reading; the latest is -1."""
        return int(self.times[row, self._slot(row, index)])

    def of(self, row: int) -> tuple[Ticks, Floats]:
        """Return copies of what is kept of one row, oldest first."""
        slots = (self._first[row] + np.arange(self.count[row])) % self._slots
        return self.times[row, slots], self.values[row, slots]

    def oldest(self, rows: Numbers) -> Ticks:
        """Ticks of the oldest readings of rows that have any."""
        return self.times[rows, self._first[rows]]

    def _slot(self, row: int, index: int) -> int:
        return (int(self._first[row]) + int(self.count[row]) + index) % self._slots

    def slots(self, rows: Numbers, places: Numbers) -> Numbers:
        """Turn places in rows, [row, place], into places in the flat arrays."""
        slots = places + self._first[rows][:, None]
        np.subtract(slots, self._slots, out=slots, where=slots >= self._slots)
        slots += (self._slots * rows)[:, None]
        return slots

    def earlier(self, rows: Numbers, ticks: Ticks) -> Numbers:
        """Count the readings of each row before each tick of it, [row, tick], by halving."""
        flat, count = self.times.reshape(-1), self.count[rows][:, None]
        found = np.zeros(ticks.shape, np.int64)
        step = 1 << (self._slots.bit_length() - 1)
        while step:
            further = found + step
            is_before = flat.take(self.slots(rows, np.minimum(further, count) - 1), mode="clip") < ticks
            is_before &= further <= count
            np.copyto(found, further, where=is_before)
            step >>= 1
        return found
