"""`python -m tests.agent.live_agent CONFIG DIR [--check]`: the real agent, led through files instead of a controller.

Commands are the files DIR/commands/*.json in order of their names; DIR/report.json is what the agent last told, and
DIR/logs/N.json the answer to the N-th question for a log; bundles lie in DIR/bundles; DIR/metadata is
what it says of releases; DIR/deaf makes the leader
acknowledge nothing; DIR/alone leaves the agent without any leader; DIR/free_bytes is what the disk has free.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Never

from agent import depot
from agent.config import settings
from agent.core import model
from agent.journal import records
from agent.link import transport
from agent.runner import clock, node, process

PERIOD_SECONDS = 0.03
COMMANDS: dict[str, type[model.Command]] = {
    "assign": model.Assign,
    "proceed": model.Proceed,
    "cancel": model.Cancel,
    "read_log": model.ReadLog,
}


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
                    await self._say(records.from_plain(COMMANDS[word], plain), node)
            self._tell(node)
            await asyncio.sleep(PERIOD_SECONDS)

    async def _say(self, command: model.Command, node: node.Node) -> None:
        if isinstance(command, model.ReadLog):
            self._write(f"logs/{command.request_id}.json", records.to_plain(await node.read_log(command)))
        else:
            node.take_command(command)

    def _write(self, name: str, document: object) -> None:
        part = self._root / f"{name}.part"
        part.write_text(json.dumps(document))
        part.rename(self._root / name)

    def wake(self) -> None:
        """The next look is soon."""

    @property
    def is_open(self) -> bool:
        """Files are always there."""
        return True

    @property
    def is_acknowledged(self) -> bool:
        return True

    def latest_at_controller(self) -> datetime:
        """Leader and agent share a host."""
        return clock.now().wall

    async def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        data = (self._root / "bundles" / digest.removeprefix("sha256:")).read_bytes()[offset:]
        for start in range(0, len(data), 4096):
            yield data[start : start + 4096]

    async def fetch_metadata(self, root_version: int, component: str) -> AsyncIterator[transport.Piece]:
        folder = self._root / "metadata"
        if not folder.is_dir():
            message = f"cannot read the metadata of {component} after root {root_version}: there is none"
            raise transport.LinkError(message, is_refusal=True)
        for path in sorted(folder.iterdir()):
            yield transport.Piece(path.name, path.read_bytes(), is_last_piece=True)

    def _tell(self, node: node.Node) -> None:
        report = node.full_report()
        told = {
            "pid": os.getpid(),
            "hello": records.to_plain(node.hello_facts()),
            "report": records.to_plain(report),
        }
        self._write("report.json", told)
        if not (self._root / "deaf").exists():
            node.acknowledged(report.operations, report.steps)


class SmallDisk(depot.Depot):
    """A disk that is as full as a file says, where there is one."""

    def free_bytes(self) -> int:
        """Bytes that are free."""
        told = ROOT / "free_bytes"
        return int(told.read_text()) if told.exists() else super().free_bytes()


def make_link(config: settings.Config) -> node.Link:
    """Lead the agent through files, or not at all."""
    return process.make_link(config) if (ROOT / "alone").exists() else FileLink(ROOT)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    CONFIG, ROOT = settings.load(Path(sys.argv[1]), os.environ), Path(sys.argv[2])
    depot.Depot = SmallDisk  # type: ignore[misc]  # the one thing that a test cannot have: a disk that is full
    is_check = sys.argv[3:] == ["--check"]
    asyncio.run(process.check(CONFIG) if is_check else process.serve(CONFIG, make_link))
