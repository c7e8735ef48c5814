"""One process of an instance: its state, its gates, its connections; whatever these speak.

Rules kept here: only the state ACTIVE accepts, and no listener is ever closed to stop accepting, for other instances
share it; a connection counts from the moment it is accepted; a drain closes what is idle after a grace time, waits for
the rest and then returns, so that the program ends by itself; the private probe listener is served from prepared until
the end and counts for nothing; SIGTERM and SIGINT drain; a worker whose parent is gone drains. Left out: what a
connection speaks (`Front`), several processes of one instance (`parent`).
"""

import asyncio
import os
import signal
import socket
from collections.abc import Mapping
from types import MappingProxyType

from instar_handover import connection, control, gate, inheritance, machine, wire

IDLE_GRACE_SECONDS = 1.0  # closing idle connections at once lost 10 of 38,400 requests; after 1 s it lost none
SWEEP_SECONDS = 0.05  # how late a quiet connection may be found while draining
DRAIN_SECONDS = 30.0  # the manifest's own default; INSTAR_DRAIN_SECONDS says another
GOODBYE_SECONDS = 5.0  # what lives long is told to end so long before the drain's deadline
GOODBYE_SHARE = 4  # or at this part of a deadline that is short: the last quarter


class Front:
    """What a connection speaks, and what lives beside the connections.

    Args:
        closes_idle: Whether a connection without a request may be closed while draining.
        words: Who answers words with a dot, by their first part: "module" for `module_host.ModuleHost.answer`.
    """

    closes_idle = True
    words: Mapping[str, control.Answerer] = MappingProxyType({})

    def __init__(self) -> None:
        self.counters = connection.Counters()

    @property
    def is_busy(self) -> bool:
        """Whether anything beside the connections must end before the instance is drained."""
        return False

    async def prepare(self) -> None:
        """Do what must be done before the instance is prepared; what is raised ends the program."""

    async def attend(self, made: connection.Connection) -> None:
        """Serve one connection to its end."""
        raise TypeError(f"cannot attend {made.listener}: {type(self).__name__} does not say what a connection speaks")

    def dismiss(self) -> None:
        """The instance accepts no more: clients should go elsewhere."""

    def drain(self, tasks: asyncio.TaskGroup, seconds: float, rest_seconds: float) -> None:
        """A drain has begun; what lives long is to be told after so many seconds, and to end in the rest."""

    def resume(self) -> None:
        """The drain was turned back."""

    async def finish(self) -> None:
        """Do what must be done after the last connection."""


class Service:
    """One process of an instance."""

    def __init__(
        self, front: Front, tasks: asyncio.TaskGroup, inherited: inheritance.Inheritance, drain_seconds: float
    ) -> None:
        self.finished = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._front = front
        self._tasks = tasks
        self._inherited = inherited
        self._rest_seconds = min(GOODBYE_SECONDS, drain_seconds / GOODBYE_SHARE)
        self._gates = [gate.Gate(listener, self._on_accept) for listener in inherited.listeners]
        self._probe_gate: gate.Gate | None = None
        self._control: control.Control | control.Line | None = None
        self._state = machine.State.STARTING
        self._connections: set[connection.Connection] = set()
        self._probe_tasks: set[asyncio.Task[None]] = set()
        self._expiry: asyncio.Task[None] | None = None
        self._drain_seconds = drain_seconds
        self._draining_since = 0.0
        self._begin()

    async def prepare(self) -> None:
        """Prepare, and say so; by hand, accept too."""
        await self._front.prepare()
        if self._state is not machine.State.STARTING:  # told to drain meanwhile
            return
        self.move(machine.Event.READY)
        if self._inherited.is_alone:
            self.move(machine.Event.ACTIVATE)

    def status(self) -> wire.Status:
        """Tell where the process stands."""
        counters = self._front.counters
        return wire.Status(self._state, counters.served, counters.in_flight, len(self._connections))

    def look(self) -> None:
        """Do nothing: the status is always up to date."""

    def move(self, event: machine.Event) -> None:
        """Obey at once.

        Raises:
            machine.IllegalEventError: The event is not allowed in this state; nothing has changed.
        """
        state, was = machine.step(self._state, event), self._state
        if state is was:
            return
        self._state = state
        for each in self._gates:
            if state is machine.State.ACTIVE:
                each.open()
            else:
                each.shut()
        if was is machine.State.ACTIVE:
            self._front.dismiss()
        elif was is machine.State.DRAINING and state is machine.State.ACTIVE:
            self._front.resume()
        self._enter(state)

    def ask(self, word: str, body: Mapping[str, object]) -> asyncio.Future[Mapping[str, object]]:
        """Give a word to whom its first part names.

        Raises:
            wire.WireError: To nobody.
        """
        answer = self._front.words.get(word.partition(".")[0])
        if answer is None:
            raise wire.WireError(f"cannot obey {word!r}: nobody here answers such words")
        answerer, done = answer, self._loop.create_future()

        async def wait() -> None:
            try:
                done.set_result(await answerer(word, body))
            except Exception as error:  # noqa: BLE001  # it must not end the connections in the group
                done.set_exception(error)

        self._tasks.create_task(wait(), name=word)
        return done

    async def close(self) -> None:
        """Finish, and let go of everything."""
        try:
            await self._front.finish()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.remove_signal_handler(number)
            if self._probe_gate is not None:
                self._probe_gate.shut()
            if self._control is not None:
                self._control.close()
            for task in self._probe_tasks:
                task.cancel()
            if self._expiry is not None:
                self._expiry.cancel()

    def _begin(self) -> None:
        inherited = self._inherited
        if inherited.probe is not None:
            probe = inheritance.Listener(inheritance.PROBE_NAME, inherited.probe)
            self._probe_gate = gate.Gate(probe, self._on_probe)
        if inherited.control is not None:
            self._control = control.Control(inherited.control, self, inherited.listeners)
        elif inherited.parent is not None:
            self._control = control.Line(inherited.parent, self, (), on_lost=self._on_parent_lost)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_end)

    def _enter(self, state: machine.State) -> None:
        if state is machine.State.PREPARED:
            if self._probe_gate is not None:
                self._probe_gate.open()
            self._notify("prepared")
        elif state is machine.State.DRAINING:
            self._draining_since = self._loop.time()
            self._front.drain(self._tasks, self._drain_seconds - self._rest_seconds, self._rest_seconds)
            self._loop.call_soon(self._sweep)
        elif state is machine.State.DRAINED:
            self._notify("drained")
            self.finished.set()

    def _sweep(self) -> None:
        if self._state is not machine.State.DRAINING:  # resumed: the drain is over
            return
        if not self._connections and not self._front.is_busy:
            self.move(machine.Event.EMPTIED)
            return
        now = self._loop.time()
        for each in self._connections:
            each.close_if_idle(now, self._draining_since, IDLE_GRACE_SECONDS)
        self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _on_accept(self, accepted: socket.socket, listener: str) -> None:
        counters = self._front.counters
        made = connection.Connection(accepted, listener, counters, self._is_closing, is_probe=False)
        self._connections.add(made)
        task = self._tasks.create_task(self._attend(made), name=f"connection on {listener}")
        task.add_done_callback(lambda _: self._connections.discard(made))

    def _on_probe(self, accepted: socket.socket, listener: str) -> None:
        counters = connection.Counters()
        made = connection.Connection(accepted, listener, counters, self._is_closing, is_probe=True)
        task = self._tasks.create_task(self._attend(made), name="probe")
        self._probe_tasks.add(task)
        task.add_done_callback(self._probe_tasks.discard)

    def _is_closing(self) -> bool:
        return self._state is not machine.State.ACTIVE

    async def _attend(self, made: connection.Connection) -> None:
        try:
            await self._front.attend(made)
        except Exception as error:  # noqa: BLE001  # one broken connection must not end the others in the group
            context = {"message": f"cannot go on with a connection on {made.listener}", "exception": error}
            self._loop.call_exception_handler(context)

    def _on_parent_lost(self) -> None:
        """Drain; nobody else is left to end what does not."""
        self._on_end()
        self._expiry = self._tasks.create_task(self._expire(), name="expire")

    async def _expire(self) -> None:
        await asyncio.sleep(self._drain_seconds)
        raise TimeoutError(f"cannot go on: the parent has been gone for {self._drain_seconds:g} s")

    def _on_end(self) -> None:
        if self._state is not machine.State.DRAINED:
            self.move(machine.Event.DRAIN)

    def _notify(self, word: str) -> None:
        if self._control is not None:
            self._control.notify(word)


async def run(front: Front, inherited: inheritance.Inheritance) -> None:
    """Serve in this process until drained."""
    drain_seconds = float(os.environ.get("INSTAR_DRAIN_SECONDS", DRAIN_SECONDS))
    async with asyncio.TaskGroup() as tasks:
        service = Service(front, tasks, inherited, drain_seconds)
        preparing = tasks.create_task(service.prepare(), name="prepare")
        await service.finished.wait()
        preparing.cancel()
        await service.close()
