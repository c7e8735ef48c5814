"""Serves any asyncio stream protocol under the hand-over protocol.

    async def on_connection(reader, writer, connection):
        while request := await read_request(reader):
            connection.begin()
            is_last = connection.should_close
            writer.write(answer(request, close=is_last))
            await writer.drain()
            connection.end()
            if is_last:
                return

    asyncio.run(asyncio_server.serve(on_connection, prepare=load_everything))

Rules kept here: only the state ACTIVE accepts, and no listener is ever closed to stop accepting, for other instances
share it; a connection counts from the moment it is accepted; a drain announces the end (`should_close`), closes what is
idle after a grace time, waits for the rest and then returns, so that the program ends by itself; the private probe
listener is served from prepared until exit and counts for nothing; SIGTERM and SIGINT drain. Left out: HTTP, TLS.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence

from instar_handover import connection, control, gate, inheritance, machine, wire

IDLE_GRACE_SECONDS = 1.0  # closing idle connections at once lost 10 of 38,400 requests; after 1 s it lost none
SWEEP_SECONDS = 0.05  # how late a quiet connection may be found while draining

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, connection.Connection], Awaitable[None]]
Prepare = Callable[[], Awaitable[None]]


async def serve(on_connection: Handler, *, prepare: Prepare | None = None, address: str = "127.0.0.1:8080") -> None:
    """Serve until drained; under a keeper on the sockets that it passes, by hand on `address`.

    Args:
        on_connection: Called once for each connection, which is closed when it returns. It brackets each request with
            `connection.begin()` and `connection.end()` and makes an answer the last one when `connection.should_close`.
        prepare: Awaited before the instance says that it is prepared; what it raises ends the program.
        address: "127.0.0.1:8080", "[::1]:8080" or "unix:/path"; used only without a keeper.

    Raises:
        inheritance.InheritanceError: The environment promises sockets that this process cannot take.
    """
    inherited = inheritance.take(os.environ)
    async with asyncio.TaskGroup() as tasks:
        if inherited is None:
            service = _Service(on_connection, tasks, [inheritance.Listener("", inheritance.listen(address))])
        else:
            service = _Service(on_connection, tasks, inherited.listeners)
            service.answer_keeper(inherited)
        preparing = tasks.create_task(service.prepare(prepare, is_alone=inherited is None), name="prepare")
        await service.finished.wait()
        preparing.cancel()
        service.close()


class _Service:
    """One instance: its state, its gates, its connections."""

    def __init__(self, handler: Handler, tasks: asyncio.TaskGroup, listeners: Sequence[inheritance.Listener]) -> None:
        self.finished = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        self._tasks = tasks
        self._gates = [gate.Gate(listener, self._on_accept) for listener in listeners]
        self._listeners = listeners
        self._probe_gate: gate.Gate | None = None
        self._control: control.Control | None = None
        self._state = machine.State.STARTING
        self._counters = connection.Counters()
        self._connections: set[connection.Connection] = set()
        self._probe_tasks: set[asyncio.Task[None]] = set()
        self._draining_since = 0.0
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal)

    def answer_keeper(self, inherited: inheritance.Inheritance) -> None:
        probe = inheritance.Listener(inheritance.PROBE_NAME, inherited.probe)
        self._probe_gate = gate.Gate(probe, self._on_probe)
        self._control = control.Control(inherited.control, self, self._listeners)

    async def prepare(self, prepare: Prepare | None, *, is_alone: bool) -> None:
        if prepare is not None:
            await prepare()
        if self._state is not machine.State.STARTING:  # told to drain meanwhile
            return
        self.move(machine.Event.READY)
        if is_alone:
            self.move(machine.Event.ACTIVATE)

    def status(self) -> wire.Status:
        return wire.Status(self._state, self._counters.served, self._counters.in_flight, len(self._connections))

    def move(self, event: machine.Event) -> None:
        state, was = machine.step(self._state, event), self._state
        if state is was:
            return
        self._state = state
        for each in self._gates:
            if state is machine.State.ACTIVE:
                each.open()
            else:
                each.shut()
        self._enter(state)

    def close(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)
        if self._probe_gate is not None:
            self._probe_gate.shut()
        if self._control is not None:
            self._control.close()
        for task in self._probe_tasks:
            task.cancel()

    def _enter(self, state: machine.State) -> None:
        if state is machine.State.PREPARED:
            if self._probe_gate is not None:
                self._probe_gate.open()
            self._notify("prepared")
        elif state is machine.State.DRAINING:
            self._draining_since = self._loop.time()
            self._loop.call_soon(self._sweep)
        elif state is machine.State.DRAINED:
            self._notify("drained")
            self.finished.set()

    def _sweep(self) -> None:
        if self._state is not machine.State.DRAINING:  # resumed: the drain is over
            return
        if not self._connections:
            self.move(machine.Event.EMPTIED)
            return
        now = self._loop.time()
        for each in self._connections:
            each.close_if_idle(now, self._draining_since, IDLE_GRACE_SECONDS)
        self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _on_accept(self, accepted: socket.socket, listener: str) -> None:
        made = connection.Connection(accepted, listener, self._counters, self._is_closing, is_probe=False)
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
            await made.attend(self._handler)
        except Exception as error:  # noqa: BLE001  # one broken connection must not end the others in the group
            context = {"message": f"cannot go on with a connection on {made.listener}", "exception": error}
            self._loop.call_exception_handler(context)

    def _on_signal(self) -> None:
        if self._state is not machine.State.DRAINED:
            self.move(machine.Event.DRAIN)

    def _notify(self, word: str) -> None:
        if self._control is not None:
            self._control.notify(word)
