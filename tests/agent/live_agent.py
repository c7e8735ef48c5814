"""`python -m tests.agent.live_agent CONFIG DIR`: the real agent, led through files instead of a controller.

Commands are the files DIR/commands/*.json in order of their names; DIR/report.json is what the agent last told; bundles
lie in DIR/bundles; DIR/deaf makes the leader acknowledge nothing.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Never

from agent.config import settings
from agent.core import model, session
from agent.journal import records
from agent.runner import node, process

PERIOD_SECONDS = 0.03
COMMANDS: dict[str, type[model.Command]] = {"assign": model.Assign, "proceed": model.Proceed, "cancel": model.Cancel}


class FileLink:
    """The link, through files."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def run(self, node: node.Node) -> Never:
        taken: set[Path] = set()
        while True:
            for path in sorted((self._root / "commands").glob("*.json")):
                if path not in taken:
                    taken.add(path)
                    [(word, plain)] = json.loads(path.read_text()).items()
                    node.take_command(records.from_plain(COMMANDS[word], plain))
            self._tell(node)
            await asyncio.sleep(PERIOD_SECONDS)

    def wake(self) -> None:
        """The next look is soon."""

    @property
    def clock(self) -> session.ClockReading:
        """Leader and agent share a host."""
        return session.ClockReading(timedelta(), timedelta())

    async def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        data = (self._root / "bundles" / digest.removeprefix("sha256:")).read_bytes()[offset:]
        for start in range(0, len(data), 4096):
            yield data[start : start + 4096]

    def _tell(self, node: node.Node) -> None:
        report = node.full_report()
        told = {
            "pid": os.getpid(),
            "hello": records.to_plain(node.hello_facts()),
            "report": records.to_plain(report),
        }
        part = self._root / "report.part"
        part.write_text(json.dumps(told))
        part.rename(self._root / "report.json")
        if not (self._root / "deaf").exists():
            node.acknowledged(report.operations, report.steps)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(process.serve(settings.load(Path(sys.argv[1]), os.environ), FileLink(Path(sys.argv[2]))))
