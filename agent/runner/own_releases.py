"""What the keeper says of the agent's own releases: which died early, and which are still read from.

Rules kept here: the keeper decides and remembers, this only asks; where it does not answer, what it said before stands.
Left out: running the agent (`agent.keeper`), and refusing what died early (`agent.core.admission`).
"""

from __future__ import annotations

import logging

from agent import processes

_logger = logging.getLogger(__name__)


class OwnReleases:
    """The agent's releases, as the keeper last told of them."""

    def __init__(self, keeper: processes.Keeper) -> None:
        self._keeper = keeper
        self._bad: tuple[str, ...] = ()
        self._pinned: frozenset[str] = frozenset()

    @property
    def bad(self) -> tuple[str, ...]:
        """Those that died early too often, and are not run any more."""
        return self._bad

    @property
    def pinned(self) -> frozenset[str]:
        """Those that the keeper, or what it has started, still reads from."""
        return self._pinned

    def take(self, seen: processes.Inspection) -> None:
        """Take note of what the keeper shows."""
        self._bad, self._pinned = seen.bad_agent_digests, frozenset(seen.pinned_digests)

    async def look(self) -> None:
        """Ask the keeper; what it does not answer now it answers the next time."""
        try:
            self.take(await self._keeper.inspect())
        except processes.KeeperError as error:
            _logger.warning("%s", error)
