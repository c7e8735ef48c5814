"""The agent's process: a child of the keeper.

Rules kept here: it holds no listening socket and parents no component, so it may end at any instant; it ends by itself
when the keeper hangs up or the journal cannot be written, and the keeper starts the next one. While a new version of it
is tried, it has neither link nor journal and waits for the keeper's word. Logs are JSON, one line each, on standard
error. Left out: starting the keeper (`agent.cli`).
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import os
import pkgutil
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Never

import agent
from agent import depot, identity, journal, local, metrics, processes
from agent.config import settings
from agent.config.errors import ConfigError
from agent.core import admission
from agent.drivers import agent as agent_driver
from agent.link import loop as link_loop
from agent.link import renewal, transport
from agent.runner import clock, lines, node, succession

EXIT_FAILED = 1
EXIT_USAGE = 2
USAGE = "usage: python -m agent [--check] --config FILE"
# Not run in this process.
UNCHECKED = (
    "agent.sdk",
    "agent.identity.child",
    "agent.verifier",
    "agent.stager",
    "agent.drivers.conformance",
)

_logger = logging.getLogger("agent")


class Alone:
    """The link of a node that no controller leads: its components run, and only its own people are told."""

    def __init__(self) -> None:
        self._due = asyncio.Event()

    async def run(self, node: node.Node) -> Never:
        """Let what people of this node began be forgotten once it has ended, for nobody else waits for it."""
        while True:
            await self._due.wait()
            self._due.clear()
            report = node.full_report()
            own = tuple(each for each in report.operations if admission.is_local(each.operation_id))
            node.acknowledged(own, tuple(each for each in report.steps if admission.is_local(each.operation_id)))

    def wake(self) -> None:
        """Something has changed."""
        self._due.set()

    def latest_at_controller(self) -> None:
        """Nobody has told."""

    @property
    def is_open(self) -> bool:
        """There is no session."""
        return False

    @property
    def is_acknowledged(self) -> bool:
        """Whoever is alone needs nobody's word."""
        return True

    async def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Fail: there is nobody to fetch from."""
        yield b""
        raise transport.LinkError(f"cannot fetch {digest} from byte {offset} on: no token_file is configured")

    def fetch_metadata(self, root_version: int, component: str) -> AsyncIterator[transport.Piece]:
        """Fail as `fetch` does."""
        message = f"cannot ask for the metadata of {component} after root {root_version}: no token_file is configured"
        raise transport.LinkError(message)


def make_link(config: settings.Config) -> node.Link:
    """Make the link that the configuration asks for: by token, by certificate, or none."""
    draw = random.SystemRandom().random
    if config.token_file is not None:
        token = settings.read_token(config.token_file)
        way = transport.GrpcTransport(config.controller, lambda: token)
        return link_loop.Link(way, node_id=config.node_id, now=_wall, draw=draw)
    if not identity.exists(config.state_dir):
        return Alone()
    way = transport.GrpcTransport(config.controller, lambda: identity.load(config.state_dir))
    link = link_loop.Link(way, node_id=config.node_id, now=_wall, draw=draw)
    fresh = renewal.Renewal(config.state_dir, config.controller, now=_wall, draw=draw, move=link.move)
    return Renewed(link, fresh)


def _wall() -> datetime:
    return clock.now().wall


class Renewed:
    """A link whose certificate is kept fresh beside it."""

    def __init__(self, link: link_loop.Link, fresh: renewal.Renewal) -> None:
        self._link = link
        self._fresh = fresh
        self.wake = link.wake
        self.fetch = link.fetch
        self.fetch_metadata = link.fetch_metadata

    async def run(self, led: node.Node) -> Never:
        """Keep a session open and the certificate fresh until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fresh.run(), name="renewal of the certificate")
            await self._link.run(led)

    def latest_at_controller(self) -> datetime | None:
        """As the link's."""
        return self._link.latest_at_controller()

    @property
    def is_open(self) -> bool:
        """As the link's."""
        return self._link.is_open

    @property
    def is_acknowledged(self) -> bool:
        """As the link's."""
        return self._link.is_acknowledged


async def serve(config: settings.Config, make: Callable[[settings.Config], node.Link]) -> None:
    """Run the node until cancelled, or until the keeper or the journal is gone.

    Args:
        config: What the node was told of itself.
        make: Makes the link; again after this agent was parked for the trial of a new one that failed.
    """
    keeper = await processes.Keeper.connect(config.layout.keeper_socket)
    while True:
        parked_for = await _lead(config, make(config), keeper)
        _logger.info("parked for a new agent", extra={"operation_id": parked_for})
        await keeper.agent_park(parked_for)
        _logger.info("the trial of the new agent is over; this one goes on", extra={"operation_id": parked_for})


async def _lead(config: settings.Config, link: node.Link, keeper: processes.Keeper) -> str:
    """Lead the node until this agent must park; returns the operation that tries another one."""
    facts = await keeper.hello()
    host = metrics.HostMetrics(config.state_dir)
    parked_for = ""
    with closing(journal.Journal.open(config.state_dir)) as records:
        rooms = node.Rooms(
            config, depot.Depot(config.layout, config.disk_quota_bytes), records, keeper, facts, clock.now, host
        )
        try:
            async with asyncio.TaskGroup() as group:
                is_settled = functools.partial(succession.has_settled, records)
                group.create_task(succession.keep_up(keeper, rooms.disk, is_settled), name="succession of the keeper")
                led = node.Node(rooms, link, group)
                await led.start()
                desk = local.Desk(led, rooms.disk, lambda: clock.now().wall)
                group.create_task(desk.serve(config.agent_socket), name="this node's own people")
        except* agent_driver.ParkedError as group_error:
            parked_for = _operation_of(group_error)
    return parked_for


def _operation_of(group: BaseExceptionGroup[BaseException]) -> str:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return _operation_of(error)
        if isinstance(error, agent_driver.ParkedError):
            return error.operation_id
    raise AssertionError(group)


async def _until_signal(config: settings.Config) -> None:
    running = asyncio.current_task()
    assert running is not None  # noqa: S101  # a coroutine that runs is in a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    await serve(config, make_link)


async def check(config: settings.Config) -> None:
    """See whether this release of the agent could run here; changes nothing.

    Raises:
        Exception: Whatever speaks against it.
    """
    for found in pkgutil.walk_packages(agent.__path__, "agent."):
        if not found.name.startswith(UNCHECKED) and not found.name.endswith(".__main__"):
            importlib.import_module(found.name)
    journal.read(config.state_dir)
    keeper = await processes.Keeper.connect(config.layout.keeper_socket)
    await keeper.hello()
    await keeper.close()


def main(arguments: Sequence[str]) -> int:
    """Run the agent; returns the exit code. Two words need no argparse, which costs half a MiB."""
    match arguments:
        case ["--config", path]:
            return _run(Path(path), _until_signal)
        case ["--check", "--config", path] | ["--config", path, "--check"]:
            return _run(Path(path), check)
        case _:
            sys.stderr.write(USAGE + "\n")
            return EXIT_USAGE


def _run(path: Path, work: Callable[[settings.Config], Coroutine[None, None, None]]) -> int:
    handler = logging.StreamHandler()
    handler.setFormatter(lines.JsonLines())
    handler.addFilter(lines.Once())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        asyncio.run(work(settings.load(path, os.environ)))
    except asyncio.CancelledError:
        return 0
    except ConfigError as error:
        _logger.error("%s", error, extra={"field": error.field, "rule": error.rule})  # noqa: TRY400  # no trace for users
        return EXIT_USAGE
    except (ExceptionGroup, processes.KeeperError, journal.JournalError, OSError):
        _logger.exception("the agent ends")
        return EXIT_FAILED
    return 0
