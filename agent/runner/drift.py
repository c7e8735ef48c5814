"""Whether this node is still what it made of itself: somebody may have moved a pointer or changed a release by hand.

Rules kept here: drift is told, never silently repaired against whoever caused it; the whole tree of a release is read
seldom, one at a time, by a child that ends. Left out: bringing the right version up (`upkeep`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from agent.runner import clock, conditions, inventory, operations, releases

CHECK_SECONDS = 3600.0  # between two readings of the trees of all that is current

TreeDigest = Callable[[Path], Awaitable[str]]

_logger = logging.getLogger(__name__)


class Drift:
    """What differs on this node from what it made of itself.

    Args:
        tree_digest: Reads a tree outside of this process; empty where it cannot be told.
    """

    def __init__(
        self,
        stock: inventory.Inventory,
        known: operations.Operations,
        known_releases: releases.Releases,
        now: clock.Now,
        tree_digest: TreeDigest,
    ) -> None:
        self._stock = stock
        self._known = known
        self._releases = known_releases
        self._now = now
        self._tree_digest = tree_digest
        self._due_seconds = now().monotonic_seconds + CHECK_SECONDS
        self._changed_trees: dict[str, str] = {}

    def is_moved(self, component: str) -> bool:
        """Tell whether somebody else has moved ``current``."""
        committed = self._known.committed.get(component)
        return committed is not None and self._stock.current.get(component, "") != committed

    def adopt(self) -> None:
        """Take what an agent that did not note it has made current for what it is.

        Raises:
            journal.JournalError: It is not remembered.
        """
        for component, digest in self._stock.current.items():
            if component not in self._known.committed and not self._known.is_changing(component):
                self._known.note_committed(component, digest)

    @property
    def findings(self) -> Iterator[conditions.Finding]:
        """What has drifted."""
        for component in sorted(self._stock.current.keys() | self._known.committed.keys()):
            if self._known.is_changing(component):
                continue
            message = self._message(component)
            if message:
                yield conditions.Finding(conditions.DRIFT, component, message)

    def _message(self, component: str) -> str:
        current = self._stock.current.get(component, "")
        if self.is_moved(component):
            return f"current is {current or 'gone'}, and the node last committed {self._known.committed[component]}"
        kept = self._stock.kept(component)
        if kept is not None and kept.digest != current:
            return f"instance {kept.id} runs {kept.digest}, and current is {current}"
        if current in self._changed_trees:
            return f"the release {current} was changed on disk: its tree is {self._changed_trees[current]}"
        return ""

    async def check_trees(self) -> None:
        """Read the trees of all that is current, where that is due."""
        if self._now().monotonic_seconds < self._due_seconds:
            return
        self._due_seconds = self._now().monotonic_seconds + CHECK_SECONDS
        changed: dict[str, str] = {}
        for digest in sorted(set(self._stock.current.values())):
            seen = await self._tree_digest(self._releases.release_dir(digest))
            if seen and seen != digest:
                changed[digest] = seen
                _logger.warning("a release was changed on disk", extra={"digest": digest, "tree": seen})
        self._changed_trees = changed
