"""Where the series of each node and component stand: nodes that show the same series share pages.

Rules kept: series are kept together by component, name and kind, so that a node that shows others than the rest costs
nobody else anything; a node that shows more than before moves, with all that is known of it; all that can be made is
bounded, in number and in bytes, whatever nodes send. Left out: which series a node may have (`intake`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from controller.metrics import windows

# Different sets of series of one component: a few versions of it, each on some kinds of nodes.
SHELVES_MAX = 256
# Series of all nodes: of ten thousand nodes a hundred each, in some 4 GiB.
SERIES_MAX = 1_000_000

Kinds = Mapping[str, bool]  # of each series, whether it is a counter


@dataclass(slots=True, eq=False)
class Shelf:
    """The pages of one component and one set of series.

    Args:
        columns: Where each series stands, by name.
        is_counter: Of each column, whether it is a counter.
    """

    component: str
    columns: Mapping[str, int]
    is_counter: tuple[bool, ...]
    pages: list[windows.Page] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The row of one node."""

    shelf: Shelf
    page: windows.Page
    row: int

    @property
    def kinds(self) -> Kinds:
        """Of each series, whether it is a counter."""
        return {name: self.shelf.is_counter[column] for name, column in self.shelf.columns.items()}

    @property
    def dead(self) -> frozenset[str]:
        """Series that are not shown, and of which nothing is left in the windows."""
        _, kept = self.page.coarse.of(self.row)
        is_dead = ~self.page.is_shown[self.row] & np.isnan(kept).all(axis=0)
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
        return sum(page.fine_nbytes for page in self._pages())

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(page.fine_nbytes + page.coarse.nbytes for page in self._pages())

    def _pages(self) -> list[windows.Page]:
        return [page for each in self._shelves.values() for shelf in each.values() for page in shelf.pages]

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
            shelf = shelves[key] = Shelf(component, columns, tuple(is_counter for _, is_counter in key))
        page = next((page for page in reversed(shelf.pages) if page.free), None)
        if page is None:
            page = windows.Page(np.array(shelf.is_counter, np.bool_), self._extent)
            shelf.pages.append(page)
        row = page.free.pop()
        page.clear(row)
        self.series += len(kinds)
        return Place(shelf, page, row)

    def release(self, place: Place) -> None:
        """Take a row back; a page that nobody is on goes, and a shelf without pages."""
        shelf, page = place.shelf, place.page
        page.free.append(place.row)
        self.series -= len(shelf.columns)
        if len(page.free) < windows.PAGE_NODES:
            return
        shelf.pages.remove(page)
        if not shelf.pages:
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
        windows.copy(place.page, place.row, old_columns, new.page, new.row, columns)
        self.release(place)
        return new


def _key(kinds: Kinds) -> tuple[tuple[str, bool], ...]:
    return tuple(sorted(kinds.items()))
