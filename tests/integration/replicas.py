"""Two controllers on one database, whose leader is who the database says that it is."""

from __future__ import annotations

from pathlib import Path

from controller.cli.demo import fleet, process
from controller.cli.demo import replicas as demo
from controller.config import stores
from tests import postgresql
from tests.integration import stage


class Replicas(demo.Replicas):
    """Two controllers behind a balancer, as one.

    Args:
        folder: Where the state that they share and their logs lie.
        where: Their database.
    """

    def __init__(self, folder: Path, where: stores.PostgreSQL) -> None:
        super().__init__(folder, None, stage.HEARTBEAT_PERIOD, number=2, store_url=where.url)
        self._where = where

    @property
    def running(self) -> process.Process:
        return self.leader

    @property
    def leader(self) -> process.Process:
        [(owner,)] = postgresql.execute(self._where, "SELECT owner FROM leadership")
        pid = int(owner.rpartition(":")[2] or 0)
        found = [each for each in self._by_port.values() if each.pid == pid]
        return found[0] if found else next(iter(self._by_port.values()))

    def term(self) -> int:
        [(term,)] = postgresql.execute(self._where, "SELECT term FROM leadership")
        return int(term)

    async def until_led_after(self, term: int) -> None:
        """Wait until somebody else leads than in a term."""

        async def is_led() -> bool:
            return self.term() > term

        await process.until("another replica leads", is_led, seconds=fleet.READY_SECONDS)

    def said(self, replica: process.Process) -> str:
        """What a replica has logged."""
        port = next(port for port, each in self._by_port.items() if each is replica)
        return self.log_of(port).read_text()
