"""Removes what nothing on this node refers to any more, last of all, and makes room for what comes.

Rules kept here: what an operation, an instance, the keeper or a pointer refers to stays, and what a rollback point
refers to stays for as long as there is room; releases go together with their environments; while something is removed
no fetch begins, so that nothing goes that was just asked for. Left out: removing (`agent.depot`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent import depot
from agent.runner import inventory, operations, own_releases
from agent.state import points


@dataclass(frozen=True, slots=True)
class Cleaning:
    """The rooms that are looked through for references."""

    disk: depot.Depot
    known: operations.Operations
    stock: inventory.Inventory
    own: own_releases.OwnReleases
    points: points.Points
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def collect(self) -> None:
        """Remove what nothing refers to."""
        async with self._one_at_a_time:
            await asyncio.to_thread(self.disk.collect, self._kept(), self._retained())

    async def make_room(self, like: str) -> None:
        """Make room for one more release that is as large as another, whose own size is not known yet.

        Raises:
            depot.DepotError: There is none.
        """
        async with self._one_at_a_time:
            await asyncio.to_thread(self._make_room, like, self._kept(), self._retained())

    def _make_room(self, like: str, kept: frozenset[str], retained: Sequence[str]) -> None:
        self.disk.make_room(self.disk.releases().get(like, 0), kept, retained)

    def _kept(self) -> frozenset[str]:
        assignments = [state.assignment for state in self.known.unfinished]
        asked = {digest for each in assignments for digest in (each.from_digest, each.to_digest) if digest}
        return frozenset(asked | self.stock.digests | self.own.pinned)

    def _retained(self) -> Sequence[str]:
        """Releases that rollback points refer to, the newest first."""
        return [digest for digest in dict.fromkeys(point.digest for point in self.points.all()) if digest]
