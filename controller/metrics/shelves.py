"""Where the series of each node and component stand: nodes that show the same series share a table.

Rules kept: series are kept together by component, name and kind, so that a node that shows others than the rest costs
nobody else anything; a node that shows more than before moves, with all that is known of it; all that can be made is
bounded, in number and in bytes, whatever nodes send. Left out: which series a node may have (`intake`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controller.metrics import windows

# Different sets of series of one component: a few versions of it, each on some kinds of nodes.
SHELVES_MAX = 256
# Series of all nodes: of ten thousand nodes a hundred each, in some 4 GiB.
SERIES_MAX = 1_000_000

Kinds = Mapping[str, bool]  # of each series, whether it is a counter


@dataclass(frozen=True, slots=True, eq=False)
class Shelf:
    """The nodes with one set of series of one component.

    Args:
        columns: Where each series stands, by name.
        is_counter: Of each column, whether it is a counter.
    """

    component: str
    columns: Mapping[str, int]
    is_counter: tuple[bool, ...]
    table: windows.Table


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The row of one node."""

    shelf: Shelf
    row: int

    @property
    def kinds(self) -> Kinds:
        """Of each series, whether it is a counter."""
        return {name: self.shelf.is_counter[column] for name, column in self.shelf.columns.items()}

    @property
    def dead(self) -> frozenset[str]:
        """Series that are not shown, and of which nothing is left in the windows."""
        table = self.shelf.table
        _, kept = table.coarse.of(self.row)
        is_dead = ~table.is_shown[self.row] & np.isnan(kept).all(axis=0)
        return frozenset(name for name, column in self.shelf.columns.items() if is_dead[column])


class Shelves:
    """All places.

    Args:
        extent: How much is kept of each series.
    """

    def __init__(self, extent: windows.Extent) -> None:
        self._extent = extent
        self._shelves: dict[str, dict[tuple[tuple[str, bool], ...], Shelf]] = {}
        self.series = 0

    @property
    def fine_nbytes(self) -> int:
        """Bytes of all that is kept at full resolution, room that nobody has among it."""
        return sum(shelf.table.fine_nbytes for shelf in self.all())

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(shelf.table.fine_nbytes + shelf.table.coarse.nbytes for shelf in self.all())

    def all(self) -> tuple[Shelf, ...]:
        """Return every shelf that there is."""
        return tuple(shelf for each in self._shelves.values() for shelf in each.values())

    def has_room(self, component: str, kinds: Kinds) -> bool:
        """Tell whether a node may get a place for these series."""
        shelves = self._shelves.get(component, {})
        is_known = _key(kinds) in shelves
        return (is_known or len(shelves) < SHELVES_MAX) and self.series + len(kinds) <= SERIES_MAX

    def place(self, component: str, kinds: Kinds) -> Place:
        """Give a node an empty row."""
        key = _key(kinds)
        shelves = self._shelves.setdefault(component, {})
        shelf = shelves.get(key)
        if shelf is None:
            columns = {name: column for column, (name, _) in enumerate(key)}
            is_counter = tuple(is_counter for _, is_counter in key)
            table = windows.Table(np.array(is_counter, np.bool_), self._extent)
            shelf = shelves[key] = Shelf(component, columns, is_counter, table)
        self.series += len(kinds)
        return Place(shelf, shelf.table.row())

    def release(self, place: Place) -> None:
        """Take a row back; a shelf that nobody is on goes."""
        shelf = place.shelf
        shelf.table.give_back(place.row)
        self.series -= len(shelf.columns)
        if not shelf.table.rows:
            shelves = self._shelves[shelf.component]
            del shelves[_key(place.kinds)]
            if not shelves:
                del self._shelves[shelf.component]

    def moved(self, place: Place, kinds: Kinds) -> Place:
        """Give a node a row for other series, with what is known of those that it had."""
        new = self.place(place.shelf.component, kinds)
        known = place.kinds
        names = [name for name, is_counter in kinds.items() if known.get(name) is is_counter]
        old_columns = [place.shelf.columns[name] for name in names]
        columns = [new.shelf.columns[name] for name in names]
        windows.copy(place.shelf.table, place.row, old_columns, new.shelf.table, new.row, columns)
        self.release(place)
        return new


def _key(kinds: Kinds) -> tuple[tuple[str, bool], ...]:
    return tuple(sorted(kinds.items()))
