"""The agent's process: a child of the keeper.

Rules kept here: it holds no listening socket and parents no component, so it may end at any instant; it ends by itself
when the keeper hangs up or the journal cannot be written, and the keeper starts the next one. Logs are JSON, one line
each, on standard error. Left out: starting the keeper (`agent.cli`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Never

from agent import depot, journal, metrics, processes
from agent.config import settings
from agent.config.errors import ConfigError
from agent.link import loop as link_loop
from agent.link import transport
from agent.runner import clock, node

EXIT_FAILED = 1
EXIT_USAGE = 2
USAGE = "usage: python -m agent --config FILE"
STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}

_logger = logging.getLogger("agent")


class JsonLines(logging.Formatter):
    """One JSON object for each record, with whatever was given as extra."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record."""
        extra = {key: value for key, value in vars(record).items() if key not in STANDARD_ATTRIBUTES}
        document = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(), **extra}
        if record.exc_info:
            document["error"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


class Alone:
    """The link of a node that no controller leads: its components run, and nobody is told."""

    async def run(self, _node: node.Node) -> Never:
        """Wait until cancelled."""
        while True:
            await asyncio.Event().wait()

    def wake(self) -> None:
        """Nobody listens."""

    @property
    def clock(self) -> None:
        """Nobody has told."""

    async def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Fail: there is nobody to fetch from."""
        yield b""
        raise transport.LinkError(f"cannot fetch {digest} from byte {offset} on: no token_file is configured")


def make_link(config: settings.Config) -> node.Link:
    """Make the link that the configuration asks for."""
    if config.token_file is None:
        return Alone()
    way = transport.GrpcTransport(config.controller, settings.read_token(config.token_file))
    draw = random.SystemRandom().random
    return link_loop.Link(way, node_id=config.node_id, now=lambda: clock.now().wall, draw=draw)


async def serve(config: settings.Config, link: node.Link) -> None:
    """Run the node until cancelled, or until the keeper or the journal is gone."""
    keeper = await processes.Keeper.connect(config.layout.keeper_socket)
    facts = await keeper.hello()
    host = metrics.HostMetrics(config.state_dir)
    with closing(journal.Journal.open(config.state_dir)) as records:
        rooms = node.Rooms(config, depot.Depot(config.layout), records, keeper, facts, clock.now, host)
        async with asyncio.TaskGroup() as group:
            await node.Node(rooms, link, group).start()


async def _until_signal(config: settings.Config) -> None:
    running = asyncio.current_task()
    assert running is not None  # noqa: S101  # a coroutine that runs is in a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    await serve(config, make_link(config))


def main(arguments: Sequence[str]) -> int:
    """Run the agent; returns the exit code. Two words need no argparse, which costs half a MiB."""
    match arguments:
        case ["--config", path]:
            return _run(Path(path))
        case _:
            sys.stderr.write(USAGE + "\n")
            return EXIT_USAGE


def _run(path: Path) -> int:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        asyncio.run(_until_signal(settings.load(path, os.environ)))
    except asyncio.CancelledError:
        return 0
    except ConfigError as error:
        _logger.error("%s", error, extra={"field": error.field, "rule": error.rule})  # noqa: TRY400  # no trace for users
        return EXIT_USAGE
    except (ExceptionGroup, processes.KeeperError, journal.JournalError, OSError):
        _logger.exception("the agent ends")
        return EXIT_FAILED
    return 0
