"""The link: keeps one session with the controller open, for as long as the agent lives.

Rules kept: one task reads and one writes, and neither gives up a read while the stream shall live; every send has a
deadline; the link ends with the agent and with nothing else. Time passes on the running event loop; the wall clock and
chance are arguments. Left out: what to say (`agent.core.session`), how it travels (`transport`), what commands do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Never, Protocol, assert_never

from agent.core import backoff, model, session
from agent.link import convert, transport

WELCOME_DEADLINE_SECONDS = 20.0  # as long as a connection to a silent host may take
WRITE_DEADLINE_SECONDS = 10.0  # a controller that takes nothing for so long is stalled
WAKE_GAP_SECONDS = 0.05  # between two messages at least; what happens meanwhile goes into one
LOGS_MAX = 4  # read at one time for the controller; each holds at most 64 KiB in memory
SILENT_PERIODS_MAX = 6  # the controller acknowledges each third heartbeat at the latest; this is twice as long

_logger = logging.getLogger(__name__)


class Node(Protocol):
    """What the link serves: the node as it is, and where commands go."""

    def hello_facts(self) -> model.HelloFacts:
        """What opens a session beside the report."""
        ...

    def full_report(self) -> model.Report:
        """Everything that the node knows now, unacknowledged results included."""
        ...

    def take_command(self, command: model.Order) -> None:
        """Take a command, perhaps again; it is answered by what the node reports."""
        ...

    async def read_log(self, asked: model.ReadLog) -> model.LogText:
        """Read the end of a log; why there is none is an answer too."""
        ...

    def acknowledged(self, operations: tuple[model.OperationStatus, ...], steps: tuple[model.StepRecord, ...]) -> None:
        """These are durable at the controller, exactly as they stand here."""
        ...


@dataclass(frozen=True, slots=True)
class _Talk:
    """One conversation: what belongs to it ends with it."""

    node: Node
    stream: transport.Stream
    group: asyncio.TaskGroup
    logs: dict[int, asyncio.Task[model.LogText]] = field(default_factory=dict)


class _Left(Exception):  # noqa: N818 an end of the conversation, not an error
    def __init__(self, window: timedelta) -> None:
        super().__init__(f"the controller goes away and wants its agents back within {window}")
        self.window = window


class _Moved(Exception):  # noqa: N818 an end of the conversation, not an error
    """The next conversation has a connection of its own already."""


class Link:
    """The agent's side of the link.

    Args:
        way: How messages travel.
        node_id: Identity of this node.
        now: The wall clock, in UTC.
        draw: A random number from 0 up to but not including 1, a new one at each call.
    """

    def __init__(
        self, way: transport.Transport, *, node_id: str, now: Callable[[], datetime], draw: Callable[[], float]
    ) -> None:
        self._way = way
        self._node_id = node_id
        self._now = now
        self._draw = draw
        self._session = session.Session()
        self._backoff = backoff.Backoff()
        self._due = asyncio.Event()
        self._heard_at_seconds = 0.0
        self._read_at, self._read_at_seconds = now(), 0.0  # when the controller last told its time
        self._is_acknowledged = False
        self._is_moving = False

    @property
    def is_open(self) -> bool:
        """True while there is a session."""
        return self._session.state is session.State.OPEN

    @property
    def is_acknowledged(self) -> bool:
        """True once a controller has acknowledged a report in this life of the agent."""
        return self._is_acknowledged

    def latest_at_controller(self) -> datetime | None:
        """The latest that it may be by the controller's clock; None until a controller has told its time.

        A wall clock that was set back since then deceives nobody: the time that has passed is measured too. Nor does a
        host that slept, for which no time has passed: its wall clock counts.
        """
        reading = self._session.clock
        if reading is None:
            return None
        passed = timedelta(seconds=asyncio.get_running_loop().time() - self._read_at_seconds)
        return max(self._now(), self._read_at + passed) + reading.offset + reading.round_trip / 2

    def wake(self) -> None:
        """Report soon: something has changed. Many calls make one message."""
        self._due.set()

    async def move(self) -> None:
        """Go over to a new connection, which is there before the present one ends; where none can be had, stay."""
        try:
            await self._way.prepare()
        except transport.LinkError as error:
            _logger.warning("%s; the connection before goes on", error, extra={"node_id": self._node_id})
            return
        self._is_moving = True
        self.wake()

    def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Read a bundle from a byte on; raises `transport.LinkError`, after which it may be resumed."""
        return self._way.read_blob(digest, offset)

    def fetch_metadata(self, root_version: int, component: str) -> AsyncIterator[transport.Piece]:
        """Read the release metadata of a component; raises `transport.LinkError`."""
        return self._way.read_trust(root_version, component)

    async def run(self, node: Node) -> Never:
        """Keep a session open until cancelled; errors of the node itself go through."""
        while True:
            delay = await self._visit(node)
            _logger.info("the link waits", extra={"node_id": self._node_id, "seconds": delay.total_seconds()})
            await asyncio.sleep(delay.total_seconds())

    async def _visit(self, node: Node) -> timedelta:
        """Hold one session from its beginning to its end; return the time to wait before the next."""
        ends: list[Exception] = []
        try:
            await self._converse(node)
        except* (transport.LinkError, session.IllegalMessageError, _Left, _Moved) as group:
            ends.extend(_leaves(group))
        for end in ends:
            _logger.info("the session ended: %s", end, extra={"node_id": self._node_id})
        return self._wait(ends)

    def _wait(self, ends: list[Exception]) -> timedelta:
        """How long to stay away; only a useful exchange makes it short again."""
        tried = self._backoff.reset() if self._session.is_proven else self._backoff
        self._backoff = tried.failed()
        if self._session.state is not session.State.CLOSED:
            self._session = session.step(self._session, session.Lost()).session
        asked = timedelta()
        if any(isinstance(end, _Moved) for end in ends):
            return asked
        for end in ends:
            if isinstance(end, _Left):
                asked = max(asked, backoff.spread(end.window, self._draw()))
            elif isinstance(end, transport.LinkError):
                asked = max(asked, end.retry_after)
        return asked + tried.delay(self._draw())

    async def _converse(self, node: Node) -> None:
        self._is_moving = False
        stream = await self._way.connect()
        try:
            async with asyncio.TaskGroup() as group:
                talk = _Talk(node, stream, group)
                group.create_task(self._write(talk), name="link writer")
                group.create_task(self._read(talk), name="link reader")
        finally:
            await stream.close()

    async def _write(self, talk: _Talk) -> None:
        node = talk.node
        await self._take(session.Opened(self._now(), node.hello_facts(), node.full_report()), talk)
        async with _within(WELCOME_DEADLINE_SECONDS, "cannot open a session: no welcome came"):
            while self._session.state is session.State.GREETING:
                self._due.clear()
                await self._due.wait()
        while self._session.state is session.State.OPEN:
            self._due.clear()
            await self._take(session.Beat(self._now(), node.full_report()), talk)
            await self._tell_logs(talk)
            await self._until_due()
            self._check_silence()
            if self._is_moving:
                raise _Moved

    async def _tell_logs(self, talk: _Talk) -> None:
        for request_id in [request_id for request_id, log in talk.logs.items() if log.done()]:
            await self._take(session.Read(talk.logs.pop(request_id).result()), talk)

    async def _until_due(self) -> None:
        await asyncio.sleep(WAKE_GAP_SECONDS)
        delay = backoff.heartbeat_delay(self._session.heartbeat_period, self._draw())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay.total_seconds()):
                await self._due.wait()

    def _check_silence(self) -> None:
        silent_seconds = asyncio.get_running_loop().time() - self._heard_at_seconds
        if silent_seconds > SILENT_PERIODS_MAX * self._session.heartbeat_period.total_seconds():
            raise transport.LinkError(f"cannot go on: the controller has been silent for {silent_seconds:.0f} s")

    async def _read(self, talk: _Talk) -> None:
        while (message := await talk.stream.receive()) is not None:
            self._heard_at_seconds = asyncio.get_running_loop().time()
            try:
                event = convert.response(message, self._now())
            except convert.MessageError as error:  # perhaps of a later controller; what else it says still holds
                _logger.warning("%s", error, extra={"node_id": self._node_id})
                continue
            if event is not None:
                await self._take(event, talk)
        raise transport.LinkError("cannot go on: the controller ended the stream")

    async def _take(self, event: session.Event, talk: _Talk) -> None:
        decision = session.step(self._session, event)
        if decision.session.clock is not self._session.clock:
            self._read_at, self._read_at_seconds = self._now(), asyncio.get_running_loop().time()
        self._session = decision.session
        self._is_acknowledged = self._is_acknowledged or self._session.is_proven
        if isinstance(event, session.Welcomed):
            facts = {"session_id": event.session_id, "session_generation": event.generation}
            _logger.info("the session is open", extra={"node_id": self._node_id, **facts})
        for effect in decision.effects:
            await self._perform(effect, talk)

    async def _perform(self, effect: session.Effect, talk: _Talk) -> None:
        match effect:
            case session.SendHello() | session.SendHeartbeat() | session.SendLogText():
                await _send(talk.stream, convert.request(effect, self._node_id))
            case session.TakeCommand(command):
                self._take_command(command, talk)
            case session.Settle(operations, steps):
                talk.node.acknowledged(operations, steps)
            case session.BeatSoon():
                self._due.set()
            case session.Leave(window):
                raise _Left(window)
            case _:
                assert_never(effect)

    def _take_command(self, command: model.Command, talk: _Talk) -> None:
        if isinstance(command, model.ReadLog):
            self._read_log(command, talk)
        else:
            talk.node.take_command(command)

    def _read_log(self, asked: model.ReadLog, talk: _Talk) -> None:
        """Read a log beside the conversation; one that is being read already is read once."""
        if asked.request_id in talk.logs or len(talk.logs) >= LOGS_MAX:
            return  # whoever asked too much gets no answer, and gives up in time
        name = f"log of {asked.component}"
        log = talk.group.create_task(talk.node.read_log(asked), name=name)
        log.add_done_callback(lambda _: self.wake())
        talk.logs[asked.request_id] = log


async def _send(stream: transport.Stream, message: convert.Request) -> None:
    async with _within(WRITE_DEADLINE_SECONDS, "cannot send: the controller took nothing"):
        await stream.send(message)


@contextlib.asynccontextmanager
async def _within(seconds: float, complaint: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise transport.LinkError(f"{complaint} for {seconds:.0f} s") from error


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    """The errors of a group, whatever its nesting."""
    found: list[Exception] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
