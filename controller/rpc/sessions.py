"""The controller's end of the agents' streams, whatever carries them.

Rules kept: a message is acknowledged only when the engine has made it durable; a gap is healed by a full report and by
nothing else; commands are the engine's level-triggered truth, said again until answered, and each time only to a node
that is still trusted; what is owed to a peer is kept
as facts and becomes a message when it can be sent, so that a slow peer costs nothing; a peer that neither speaks nor
listens is evicted; a later session of a node ends the earlier one. Left out: gRPC (`agent_service`) and all decisions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

from google.protobuf import timestamp_pb2

from controller import clock
from controller.core import errors, model
from controller.engine import commands
from controller.rpc import admission, agent_convert, log_reading, principals, session_ports
from controller.rpc import errors as rpc_errors
from instar.v1 import agent_service_pb2

HELLO_DEADLINE_SECONDS = 10.0  # for the first message of a stream
WRITE_DEADLINE_SECONDS = 10.0  # a peer that takes nothing for so long is stalled
SILENT_PERIODS_MAX = 3  # heartbeats that may fail to come before the peer counts as stalled
ACKNOWLEDGE_EACH = 3  # heartbeats, at the latest
COMMAND_REPEAT_SECONDS = 5.0  # between two sayings of a command that the agent has not answered
GO_AWAY_WINDOW_MIN = timedelta(seconds=1)  # also a handful of agents does not come back at one instant

_Request = agent_service_pb2.ConnectRequest
_Response = agent_service_pb2.ConnectResponse


class _Ended(Exception):  # noqa: N818 an end of the conversation, not an error: nobody is to blame
    """The session has come to its end."""


class Sessions:
    """The sessions that are open, at most one for each node."""

    def __init__(self) -> None:
        self._open: dict[model.NodeId, AgentSession] = {}
        self._is_leaving = False
        self._emptied = asyncio.Event()
        self.turns = admission.Turns()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def enter(self, session: AgentSession) -> None:
        """Let a session in; the node's earlier one is evicted.

        Raises:
            UnavailableError: The controller goes away.
            ConflictError: A later session of the node is open.
        """
        if self._is_leaving:
            raise errors.UnavailableError("cannot open a session: the controller goes away", code="controller_leaving")
        other = self._open.get(session.node_id)
        if other is not None and other.generation > session.generation:
            raise _replaced(session, other.generation)
        self._open[session.node_id] = session
        self._emptied.clear()
        if other is not None:
            other.evict(_replaced(other, session.generation))

    def leave(self, session: AgentSession) -> None:
        """Let a session out; one that has taken its place stays."""
        if self._open.get(session.node_id) is session:
            del self._open[session.node_id]
        if not self._open:
            self._emptied.set()

    def logs(self, node_id: model.NodeId) -> log_reading.Questions:
        """Find where a node is asked for logs; raises a RefusedError where it is not connected."""
        session = self._open.get(node_id)
        if session is None:
            raise log_reading.not_connected(node_id)
        return session.logs

    async def go_away(self) -> None:
        """End every session and let no other in; agents are told over which time to spread their return."""
        self._is_leaving = True
        if not self._open:
            return
        window = max(GO_AWAY_WINDOW_MIN, timedelta(seconds=len(self._open) / admission.SESSIONS_PER_SECOND))
        for session in tuple(self._open.values()):
            session.go_away(window)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WRITE_DEADLINE_SECONDS):
                await self._emptied.wait()


class AgentSession:
    """One session with one agent.

    Args:
        caller: Who opened the stream.
        registry: Where it stands while it is open.
    """

    def __init__(
        self,
        engine: session_ports.Engine,
        transport: session_ports.Transport,
        *,
        caller: principals.Principal,
        registry: Sessions,
        clock: clock.Clock,
    ) -> None:
        self._engine = engine
        self._transport = transport
        self._caller = caller
        self._registry = registry
        self._clock = clock
        self.node_id = model.NodeId(caller.name)
        self.generation = 0
        self._session_id = model.SessionId("")
        self._heartbeat_period = timedelta()
        # What the agent has told.
        self._sequence = 0
        self._echo_send_time: timestamp_pb2.Timestamp | None = None
        self._allowance = admission.Allowance(self.node_id, clock.monotonic)
        self._answered: frozenset[tuple[model.OperationId, int]] = frozenset()
        # What is owed to it.
        self._unacknowledged = 0
        self._is_acknowledgement_due = False
        self._is_full_report_wanted = False
        self._said_at_seconds: dict[commands.Command, float] = {}
        self._go_away_window: timedelta | None = None
        self._eviction: errors.InstarError | None = None
        self._due = asyncio.Event()
        self.logs = log_reading.Questions(self.node_id, self._due.set)

    async def run(self) -> None:
        """Hold the session until its end.

        Raises:
            InstarError: It ended for a reason; without one it returns.
        """
        ends: list[Exception] = []
        try:
            await self._hold()
        except* (errors.InstarError, _Ended) as group:
            ends.extend(_leaves(group))
        for end in ends:
            if isinstance(end, errors.InstarError):
                raise end

    def evict(self, reason: errors.InstarError) -> None:
        """End the session for a reason."""
        self._eviction = reason
        self._due.set()

    def go_away(self, window: timedelta) -> None:
        """Tell the agent to come back within a window, then end the session."""
        self._go_away_window = window
        self._due.set()

    async def _hold(self) -> None:
        hello, protocol_version = await self._greeted()
        self._engine.check_trusted(self.node_id)
        async with self._registry.turns.take(is_urgent=self._engine.is_at_work(self.node_id)):
            grant = await self._engine.open_session(hello)
        self._session_id, self.generation = grant.session_id, grant.generation
        self._heartbeat_period = grant.heartbeat_period
        self._sequence = 1
        self._hear(hello.report)
        unsubscribe = self._engine.subscribe(self.node_id, self._due.set)
        try:
            self._registry.enter(self)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(agent_convert.welcome(grant, protocol_version)), name="session writer")
                group.create_task(self._read(), name="session reader")
        finally:
            unsubscribe()
            self._registry.leave(self)
            self.logs.end()
            await self._engine.close_session(self.node_id, self._session_id)

    async def _greeted(self) -> tuple[model.NodeHello, int]:
        async with _within(HELLO_DEADLINE_SECONDS, "cannot open a session: no hello came"):
            message = await self._transport.receive()
        if message is None:
            raise _Ended
        if message.WhichOneof("message") != "hello" or message.sequence != 1:
            raise errors.InvalidRequestError(
                "cannot open a session: the first message must be a hello with sequence 1",
                code="hello_expected",
                field="message",
                value=str(message.WhichOneof("message")),
                rule="hello with sequence 1",
            )
        hello = message.hello
        if self._caller.kind is not principals.Kind.AGENT or hello.node_id != self._caller.name:
            raise errors.RefusedError(
                f"cannot open a session for node_id {hello.node_id!r}: the caller is {self._caller.name!r}",
                code=rpc_errors.PERMISSION_DENIED,
                field="hello.node_id",
                value=hello.node_id,
                rule="the node that the token belongs to",
            )
        return agent_convert.hello(hello), agent_convert.protocol_version(hello)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        told_before = self._heartbeat_period
        async with _within(None, "cannot go on with the session: the agent has been silent") as silence:
            while True:
                # What was told a moment ago may have come after the agent began to wait.
                period, told_before = max(told_before, self._heartbeat_period), self._heartbeat_period
                silence.reschedule(loop.time() + SILENT_PERIODS_MAX * period.total_seconds())
                message = await self._transport.receive()
                silence.reschedule(None)  # from here on it is we who work
                if message is None:
                    raise _Ended
                self._allowance.take()
                await self._take(message)

    async def _take(self, message: _Request) -> None:
        if message.HasField("log_text"):
            self._take_log_text(message)
            return
        if message.sequence <= self._sequence:  # said again: perhaps for want of an acknowledgement
            self._owe_acknowledgement()
            return
        if message.WhichOneof("message") != "heartbeat":
            raise errors.InvalidRequestError(
                "cannot go on with the session: only heartbeats and answers follow a hello",
                code="heartbeat_expected",
                field="message",
                value=str(message.WhichOneof("message")),
                rule="heartbeat or log_text",
            )
        if message.sequence != self._sequence + 1 and not message.heartbeat.full:
            self._is_full_report_wanted = True
            self._due.set()
            return
        report = agent_convert.heartbeat(message.heartbeat)
        await self._engine.report(self.node_id, self._session_id, report)
        is_first = self._echo_send_time is None
        self._sequence = message.sequence
        self._echo_send_time = message.heartbeat.send_time
        self._unacknowledged += 1
        # The first one is answered at once: it proves the session and gives the agent its clock offset.
        if is_first or self._unacknowledged >= ACKNOWLEDGE_EACH:
            self._owe_acknowledgement()
        self._hear(report)

    def _take_log_text(self, message: _Request) -> None:
        """Take an answer; it has its number in the row of messages, and behind a gap it heals nothing."""
        if message.sequence == self._sequence + 1:
            self._sequence = message.sequence
        elif message.sequence > self._sequence:
            self._is_full_report_wanted = True
            self._due.set()
        self.logs.take(agent_convert.log_text(message.log_text))

    def _hear(self, report: model.NodeReport) -> None:
        """Note which commands a durable report answers; results are acknowledged at once."""
        self._answered |= {(status.operation_id, status.fence) for status in report.operations}
        if report.operations or report.steps:
            self._owe_acknowledgement()

    def _owe_acknowledgement(self) -> None:
        self._is_acknowledgement_due = True
        self._due.set()

    async def _write(self, welcome: _Response) -> None:
        await self._send(welcome)
        while True:
            self._due.clear()
            if self._eviction is not None:
                raise self._eviction
            self._engine.check_session(self.node_id, self._session_id)
            for response in self._owed():
                await self._send(response)
            if self._go_away_window is not None:
                await self._send(agent_convert.go_away(self._go_away_window))
                raise _Ended
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_repeat_seconds()):
                    await self._due.wait()

    def _owed(self) -> Iterator[_Response]:
        """What is to be said now, operations first; each fact becomes a message at the moment of its sending."""
        for command in self._commands_due():
            yield agent_convert.command(command)
        for question in self.logs.unsaid():
            yield agent_convert.read_log(question)
        if self._is_full_report_wanted:
            self._is_full_report_wanted = False
            yield agent_convert.full_report_request(self._sequence + 1)
        if self._is_acknowledgement_due:
            self._is_acknowledgement_due = False
            self._unacknowledged = 0
            self._heartbeat_period = self._engine.heartbeat_period(self.node_id)
            yield agent_convert.acknowledgement(
                self._sequence,
                echo_send_time=self._echo_send_time,
                server_time=self._clock.now(),
                heartbeat_period=self._heartbeat_period,
            )

    def _commands_due(self) -> tuple[commands.Command, ...]:
        now_seconds = asyncio.get_running_loop().time()
        asked = self._engine.commands(self.node_id)
        operations = {(command.operation_id, command.fence) for command in asked}
        self._answered &= operations
        wanted = tuple(command for command in asked if not self._is_answered(command))
        said = {command: at for command, at in self._said_at_seconds.items() if command in wanted}
        due = tuple(c for c in wanted if c not in said or now_seconds >= said[c] + COMMAND_REPEAT_SECONDS)
        self._said_at_seconds = said | dict.fromkeys(due, now_seconds)
        return due

    def _is_answered(self, command: commands.Command) -> bool:
        """An assignment is answered by any status of it; what else the engine still asks, it still wants."""
        return isinstance(command, commands.AssignCommand) and (command.operation_id, command.fence) in self._answered

    def _until_repeat_seconds(self) -> float | None:
        if not self._said_at_seconds:
            return None
        due_seconds = min(self._said_at_seconds.values()) + COMMAND_REPEAT_SECONDS
        return max(0.0, due_seconds - asyncio.get_running_loop().time())

    async def _send(self, response: _Response) -> None:
        self._engine.check_session(self.node_id, self._session_id)  # nothing goes down to whom nobody trusts any more
        async with _within(WRITE_DEADLINE_SECONDS, "cannot go on with the session: the agent took nothing"):
            await self._transport.send(response)


def _replaced(session: AgentSession, generation: int) -> errors.ConflictError:
    return errors.ConflictError(
        f"cannot go on with session {session.generation} of {session.node_id}: session {generation} is open",
        code="session_replaced",
        field="session_generation",
        value=str(session.generation),
        rule=f"the latest, {generation}",
    )


@contextlib.asynccontextmanager
async def _within(seconds: float | None, complaint: str) -> AsyncIterator[asyncio.Timeout]:
    try:
        async with asyncio.timeout(seconds) as deadline:
            yield deadline
    except TimeoutError as error:
        raise errors.UnavailableError(f"{complaint} for too long", code="agent_stalled") from error


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    """The errors of a group, whatever its nesting."""
    found: list[Exception] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
