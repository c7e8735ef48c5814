"""The agent's side of the keeper's socket: one method per verb, typed results.

Rules kept here: every request has a deadline; every answer is converted once, at this edge; a refusal of the keeper is
a `KeeperError` with the keeper's code; when the connection is lost every waiting request fails with code `keeper_gone`
and `closed` is set: the agent then ends itself, for a new keeper starts a new agent. Events only hurry the reader
along, `inspect` is the truth: when the queue is full the oldest event is dropped. Left out: deciding what to ask.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, unique
from pathlib import Path
from typing import Any

ANSWER_TIMEOUT = timedelta(seconds=10)  # over what the verb itself may take; the keeper answers within milliseconds
START_TIMEOUT = timedelta(seconds=60)  # the keeper reads the whole release again before it starts it
VERIFY_TIMEOUT = timedelta(seconds=150)  # the verifier's own limit is 120 s of processor time
CONNECT_RETRY = timedelta(milliseconds=50)  # a keeper that is starting listens within this order of time
EVENTS_MAX = 256  # instances change a few times per operation; more than this is a reader that is gone
LINE_MAX_BYTES = 1 << 20  # an inspection of 64 instances is about 40 KiB


@unique
class Word(Enum):
    """What the keeper can be asked to say to an instance."""

    HELLO = "hello"
    ACTIVATE = "activate"
    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    STATUS = "status"


@unique
class InstanceState(Enum):
    """Where an instance stands, as the keeper knows it."""

    STARTING = "starting"
    PREPARED = "prepared"
    ACTIVE = "active"
    PAUSED = "paused"
    DRAINING = "draining"
    DRAINED = "drained"
    EXITED = "exited"


@unique
class Decision(Enum):
    """How an operation ended on this node."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"


@unique
class Cause(Enum):
    """Why an operation ended as it did; only the death of the new instance speaks against its version."""

    AGENT_ASKED = "agent_asked"
    AGENT_AWAY = "agent_away"
    INSTANCE_DIED = "instance_died"
    ALL_DIED = "all_died"


@unique
class OnShutdown(Enum):
    """What a shutdown of the keeper does to the components."""

    KEEP = "keep"
    STOP = "stop"


class KeeperError(Exception):
    """The keeper refused or could not do what was asked.

    Codes of the keeper: invalid_request, unknown_verb, unknown_instance, unknown_socket, socket_in_use, listen_failed,
    release_outside, command_outside, digest_mismatch, start_failed, instance_conflict, too_many, instance_gone,
    instance_timeout, instance_refused, mark_unknown, mark_conflict, write_failed, verify_failed.
    Codes of this side: keeper_gone, keeper_timeout.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class KeeperFacts:
    """Who the keeper is.

    Args:
        instance_token: Random text, new with each life of a keeper.
        interpreter: The Python that runs components whose command begins with "python".
    """

    keeper_version: str
    pid: int
    boot_id: str
    instance_token: str
    interpreter: str


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """What to start.

    Args:
        command: Program and arguments; the first is "python" or names a file of the release.
        environment: Beside the variables of the hand-over protocol; TRACEPARENT goes here.
        sockets: Names given to `listen` before, in the order of the manifest.
        stop_timeout: Time between SIGTERM and SIGKILL when the keeper itself stops the instance.
        operation_id: The operation that starts it; empty where there is none.
    """

    id: str
    component: str
    version: str
    digest: str
    release_dir: Path
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    sockets: Sequence[str] = ()
    stop_timeout: timedelta = timedelta(seconds=5)
    operation_id: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One process group of a component, as the keeper sees it.

    Args:
        started_at_monotonic: Seconds on CLOCK_MONOTONIC when it was started.
        start_time: Clock ticks since boot, from /proc; with the boot id and the pid it names the process for ever.
        served: Requests answered in this life of the process, as of its last word.
        in_flight: Requests begun and not yet answered.
        accepted: Connections accepted and not yet closed.
        exit_code: None while it runs, and for ever when an adopted process ends, for it is not the keeper's child.
        signal: The signal that ended it, if one did.
        restarts: How often the keeper started it again.
        protocol: Version of the hand-over protocol; 0 until the instance has answered once.
    """

    id: str
    component: str
    version: str
    digest: str
    pid: int
    started_at_monotonic: float
    start_time: int
    state: InstanceState
    served: int
    in_flight: int
    accepted: int
    exit_code: int | None
    signal: int | None
    restarts: int
    is_kept: bool
    operation_id: str
    release_dir: Path
    protocol: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What an instance said of itself, fresh."""

    state: InstanceState
    served: int
    in_flight: int
    accepted: int
    protocol: int


@dataclass(frozen=True, slots=True)
class Mark:
    """An uncommitted operation that the keeper watches over.

    Args:
        remaining: Until the keeper rolls back by itself if no agent is attached; not positive when that has passed.
        is_rolling_back: The keeper has decided; commit answers ROLLED_BACK from now on.
    """

    operation_id: str
    new_instance_id: str
    old_instance_id: str | None
    remaining: timedelta
    is_rolling_back: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation ended, by the keeper's decision."""

    operation_id: str
    decision: Decision
    cause: Cause
    why: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything the keeper holds."""

    instances: tuple[Instance, ...]
    marks: tuple[Mark, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier printed, at most 64 KiB, and its exit code; None when a signal ended it."""

    exit_code: int | None
    output: str


@dataclass(frozen=True, slots=True)
class InstanceEvent:
    """An instance changed state; `was` is the state before."""

    instance: Instance
    was: InstanceState


class Keeper:
    """One connection to the keeper's socket.

    Requests may overlap. Every method raises `KeeperError`; every verb is idempotent, so asking again is always safe.
    """

    def __init__(self, line: _Line) -> None:
        self._line = line

    @classmethod
    async def connect(cls, path: Path, *, within: timedelta = ANSWER_TIMEOUT) -> Keeper:
        """Connect, trying again until the keeper listens or the time is over.

        Raises:
            KeeperError: With code keeper_gone.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + within.total_seconds()
        while True:
            try:
                _, line = await loop.create_unix_connection(_Line, str(path))
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if loop.time() >= until:
                    raise KeeperError("keeper_gone", f"cannot reach the keeper at {path}: {error}") from error
                await asyncio.sleep(CONNECT_RETRY.total_seconds())
            else:
                return cls(line)

    @property
    def events(self) -> asyncio.Queue[InstanceEvent]:
        """Events since `watch`."""
        return self._line.events

    @property
    def closed(self) -> asyncio.Event:
        """Set when the connection is gone, whoever ended it."""
        return self._line.closed

    async def close(self) -> None:
        """End the connection; the keeper then counts this agent as away."""
        self._line.hang_up()
        await self._line.closed.wait()

    async def hello(self) -> KeeperFacts:
        """Ask who the keeper is."""
        return KeeperFacts(**await self._ask("hello"))

    async def attach(self) -> None:
        """Be the agent: while an attached client is connected, the keeper leaves marks past their deadline alone."""
        await self._ask("attach")

    async def watch(self) -> None:
        """Send events to `events` from now on."""
        await self._ask("watch")

    async def listen(self, name: str, address: str, *, backlog: int = 1024) -> None:
        """Open a listening socket once; the same name and address again is success.

        Args:
            name: Component, dot, name of the manifest's socket: "web.http".
            address: "127.0.0.1:8080", "[::1]:8080" or "unix:/path".
            backlog: Connections that may wait to be accepted.
        """
        await self._ask("listen", name=name, address=address, backlog=backlog)

    async def start(self, spec: InstanceSpec) -> Instance:
        """Check the release's digest again and start it; the same id again is success."""
        body = {
            "id": spec.id,
            "component": spec.component,
            "version": spec.version,
            "digest": spec.digest,
            "release_dir": str(spec.release_dir),
            "command": list(spec.command),
            "environment": dict(spec.environment),
            "sockets": list(spec.sockets),
            "stop_timeout_seconds": spec.stop_timeout.total_seconds(),
            "operation_id": spec.operation_id,
        }
        return _instance((await self._ask("start", START_TIMEOUT, instance=body))["instance"])

    async def say(self, instance_id: str, word: Word, timeout: timedelta) -> Answer:  # noqa: ASYNC109  # the keeper keeps it
        """Say a word to an instance and wait for its answer; repeating a word is success.

        Raises:
            KeeperError: instance_timeout, instance_gone, or instance_refused for a word that its state does not allow.
        """
        seconds = timeout.total_seconds()
        answer = await self._ask("say", timeout, instance_id=instance_id, word=word.value, timeout_seconds=seconds)
        return _answer(answer)

    async def mark(
        self, operation_id: str, new_instance_id: str, old_instance_id: str | None, deadline: timedelta
    ) -> None:
        """Put the uncommitted mark; asked again, it stands as it stood, with its first deadline.

        While it stands, and the new instance dies, or no agent is attached past the deadline, the keeper resumes the
        old instance first, then pauses, drains and stops the new one, and records ROLLED_BACK.
        """
        await self._ask(
            "mark",
            operation_id=operation_id,
            new_instance_id=new_instance_id,
            old_instance_id=old_instance_id,
            deadline_seconds=deadline.total_seconds(),
        )

    async def commit(self, operation_id: str, current_instance_id: str) -> Outcome:
        """Decide: clear the mark, unless the keeper has rolled back already; the same id gives the same answer.

        Raises:
            KeeperError: mark_unknown when the keeper knows neither a mark nor an outcome of this operation.
        """
        return _outcome(await self._ask("commit", operation_id=operation_id, current_instance_id=current_instance_id))

    async def unmark(self, operation_id: str) -> None:
        """Forget the mark after an abort by the agent; a commit of this operation then answers ROLLED_BACK."""
        await self._ask("unmark", operation_id=operation_id)

    async def keep(self, component: str, instance_id: str) -> None:
        """Make this the committed instance of its component: started again, and activated, whenever it dies."""
        await self._ask("keep", component=component, instance_id=instance_id)

    async def stop(self, instance_id: str, timeout: timedelta) -> None:  # noqa: ASYNC109  # between SIGTERM and SIGKILL
        """SIGTERM, then SIGKILL after the time; returns when it is gone and forgotten; unknown is success."""
        await self._ask("stop", timeout, instance_id=instance_id, timeout_seconds=timeout.total_seconds())

    async def inspect(self) -> Inspection:
        """Everything that the keeper holds; counters are as of each instance's last word."""
        ok = await self._ask("inspect")
        return Inspection(
            instances=tuple(_instance(item) for item in ok["instances"]),
            marks=tuple(_mark(item) for item in ok["marks"]),
            outcomes=tuple(_outcome(item) for item in ok["outcomes"]),
        )

    async def verify(self, digest: str) -> Verdict:
        """Run the verifier on the fetched bundle, as a disposable child of the keeper."""
        return Verdict(**await self._ask("verify", VERIFY_TIMEOUT, digest=digest))

    async def shutdown(self, components: OnShutdown) -> None:
        """End the keeper, and the agent with it."""
        await self._ask("shutdown", START_TIMEOUT, components=components.value)

    async def _ask(self, verb: str, takes: timedelta = timedelta(0), **body: object) -> dict[str, Any]:
        return await self._line.ask(verb, body, takes + ANSWER_TIMEOUT)


class _Line(asyncio.Protocol):
    """Newline-delimited JSON both ways; answers find their request by id."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[InstanceEvent] = asyncio.Queue(EVENTS_MAX)
        self.closed = asyncio.Event()
        self._transport: asyncio.WriteTransport | None = None
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101  # a Unix stream always is
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            self._take(json.loads(line))
        if len(self._buffer) > LINE_MAX_BYTES:
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.closed.set()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(KeeperError("keeper_gone", f"cannot go on: the keeper hung up ({exc})"))

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, verb: str, body: Mapping[str, object], within: timedelta) -> dict[str, Any]:
        if self._transport is None:
            raise KeeperError("keeper_gone", f"cannot ask {verb}: the keeper hung up")
        self._last_id += 1
        request_id = self._last_id
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = future
        self._transport.write(json.dumps({"id": request_id, "do": verb, **body}).encode() + b"\n")
        try:
            async with asyncio.timeout(within.total_seconds()):
                return await future
        except TimeoutError as error:
            raise KeeperError("keeper_timeout", f"cannot wait for {verb} longer than {within}") from error
        finally:
            del self._pending[request_id]

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._put(InstanceEvent(_instance(message["instance"]), InstanceState(message["was"])))
            return
        future = self._pending.get(message["id"])
        if future is None or future.done():
            return
        error = message.get("error")
        if error is None:
            future.set_result(message["ok"])
        else:
            future.set_exception(KeeperError(error["code"], error["message"]))

    def _put(self, event: InstanceEvent) -> None:
        if self.events.full():
            self.events.get_nowait()
        self.events.put_nowait(event)


def _instance(body: dict[str, Any]) -> Instance:
    return Instance(
        **{**body, "state": InstanceState(body["state"]), "release_dir": Path(body["release_dir"])},
    )


def _answer(body: dict[str, Any]) -> Answer:
    return Answer(**{**body, "state": InstanceState(body["state"])})


def _mark(body: dict[str, Any]) -> Mark:
    return Mark(
        operation_id=body["operation_id"],
        new_instance_id=body["new_instance_id"],
        old_instance_id=body["old_instance_id"],
        remaining=timedelta(seconds=body["remaining_seconds"]),
        is_rolling_back=body["is_rolling_back"],
    )


def _outcome(body: dict[str, Any]) -> Outcome:
    return Outcome(body["operation_id"], Decision(body["outcome"]), Cause(body["cause"]), body["why"])
