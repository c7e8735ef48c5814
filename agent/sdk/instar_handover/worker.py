"""One worker, as its parent sees it: a process, and the line to it.

Rules kept here: what a worker was told last is known from the moment of telling, whatever it has answered so far; every
question to a worker that ends is settled. Left out: what becomes of the others (`parent`).
"""

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable

from instar_handover import machine, wire

# How a worker gets from what it was told last to where the instance is; what is missing needs no word.
WORDS = {
    (machine.State.PREPARED, machine.State.ACTIVE): machine.Event.ACTIVATE,
    (machine.State.ACTIVE, machine.State.ACTIVE): machine.Event.RESUME,
    (machine.State.PAUSED, machine.State.ACTIVE): machine.Event.RESUME,
    (machine.State.DRAINING, machine.State.ACTIVE): machine.Event.RESUME,
    (machine.State.ACTIVE, machine.State.PAUSED): machine.Event.PAUSE,
    (machine.State.PAUSED, machine.State.PAUSED): machine.Event.PAUSE,
    (machine.State.STARTING, machine.State.DRAINING): machine.Event.DRAIN,
    (machine.State.PREPARED, machine.State.DRAINING): machine.Event.DRAIN,
    (machine.State.ACTIVE, machine.State.DRAINING): machine.Event.DRAIN,
    (machine.State.PAUSED, machine.State.DRAINING): machine.Event.DRAIN,
    (machine.State.DRAINING, machine.State.DRAINING): machine.Event.DRAIN,
}


class Worker:
    """A worker's process.

    Args:
        process: Its process, just started.
        line: The parent's end of the connection to it.
        on_prepared: Called when it is prepared.
        on_exit: Called when it has ended, with its exit code, negative for a signal.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        line: socket.socket,
        *,
        on_prepared: Callable[["Worker"], None],
        on_exit: Callable[["Worker", int], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.told = machine.State.STARTING
        self.status = wire.Status(machine.State.STARTING, 0, 0, 0)
        self.started_at_seconds = self._loop.time()
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._line = line
        self._on_prepared = on_prepared
        self._on_exit = on_exit
        self._answers: dict[int, asyncio.Future[bool]] = {}
        self._last_id = 0
        line.settimeout(0)
        self._loop.add_reader(line, self._read)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, state: machine.State) -> asyncio.Future[bool] | None:
        """Say the word that brings it to the state of the instance; None where it needs none."""
        event = WORDS.get((self.told, state))
        if event is None:
            return None
        self.told = machine.step(self.told, event)
        return self.ask(event.value)

    def ask(self, word: str) -> asyncio.Future[bool]:
        """Say a word; the future tells whether it obeyed, and is settled also when it ends."""
        answer: asyncio.Future[bool] = self._loop.create_future()
        self._last_id += 1
        self._answers[self._last_id] = answer
        try:
            self._line.send(wire.encode_request(wire.Request(word, self._last_id)))
        except OSError:  # it has ended, or has let very many words pile up
            del self._answers[self._last_id]
            answer.set_result(False)
        return answer

    def end(self) -> None:
        """Kill it, if it is alive, and let go of it."""
        self._process.kill()
        self._process.wait()
        self._let_go()

    def _read(self) -> None:
        try:
            datagram = self._line.recv(wire.MESSAGE_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            datagram = b""
        if not datagram:
            self._loop.remove_reader(self._line)  # it is ending: `_reap` follows
            return
        self._take(wire.decode_message(datagram))

    def _take(self, message: wire.Message) -> None:
        self.status = message.status
        if message.word == "prepared" and self.told is machine.State.STARTING:
            self.told = machine.State.PREPARED
            self._on_prepared(self)
        answer = self._answers.pop(message.id, None) if message.id is not None else None
        if answer is not None and not answer.done():
            answer.set_result(not message.error)

    def _reap(self) -> None:
        self._drink_up()
        code = self._process.wait()
        self._let_go()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(False)
        self._on_exit(self, code)

    def _drink_up(self) -> None:
        """Read what it said last: how much it has served."""
        while True:
            try:
                datagram = self._line.recv(wire.MESSAGE_MAX_BYTES)
            except OSError:
                return
            if not datagram:
                return
            self._take(wire.decode_message(datagram))

    def _let_go(self) -> None:
        self._loop.remove_reader(self._line)
        self._loop.remove_reader(self._pidfd)
        self._line.close()
        os.close(self._pidfd)
