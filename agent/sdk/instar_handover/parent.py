"""The parent of several workers: one instance for the keeper, one keeper for each of its workers.

The parent holds the control socket; the workers share the listeners, the probe listener too, and each is the same
program started again, which finds a connected socket to its parent in the place of the keeper's.

Rules kept here: a word goes to all workers and is done when all have obeyed or ended; a worker that ends while the
instance prepares fails the preparation, one that ends later is replaced and counted, and when none is left the instance
ends; what a worker that ended has served stays in the sum; when the parent is gone, the workers drain by themselves.
Left out: what a worker serves (`service`).
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping

from instar_handover import control, inheritance, machine, wire, worker

REPLACE_FIRST_SECONDS = 0.2  # doubled by each early death in a row
REPLACE_MAX_SECONDS = 30.0
STEADY_SECONDS = 30.0  # a life this long makes the next death a first one
LOOK_SECONDS = 1.0  # for which a status waits for busy workers; then it tells what they last said


class WorkersError(Exception):
    """The instance cannot go on: a worker ended before all were prepared, or none is left."""


class Parent:
    """An instance of several workers.

    Args:
        inherited: What the workers share.
        count: How many workers serve.
        tasks: Where words wait for their answers.
    """

    def __init__(self, inherited: inheritance.Inheritance, count: int, tasks: asyncio.TaskGroup) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._inherited = inherited
        self._tasks = tasks
        self._state = machine.State.STARTING
        self._deaths = 0
        self._early_deaths = 0
        self._served_by_gone = 0
        self._control = None
        if inherited.control is not None:
            self._control = control.Control(inherited.control, self, inherited.listeners)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal)
        self._workers = [self._start() for _ in range(count)]

    def status(self) -> wire.Status:
        """Sum up what the workers last said."""
        shown = [each.status for each in self._workers]
        return wire.Status(
            self._state,
            served=self._served_by_gone + sum(each.served for each in shown),
            in_flight=sum(each.in_flight for each in shown),
            accepted=sum(each.accepted for each in shown),
            worker_deaths=self._deaths,
        )

    def look(self) -> asyncio.Future[None]:
        """Ask every worker where it stands."""
        answers = [each.ask("status") for each in self._workers]

        async def wait() -> None:
            if answers:
                await asyncio.wait(answers, timeout=LOOK_SECONDS)

        return self._tasks.create_task(wait(), name="look")

    def move(self, event: machine.Event) -> asyncio.Future[None]:
        """Tell every worker; done when all have obeyed or ended.

        Raises:
            machine.IllegalEventError: The event is not allowed in this state; nothing has changed.
        """
        state, was = machine.step(self._state, event), self._state
        self._state = state
        answers = [answer for each in self._workers if (answer := each.tell(state)) is not None]
        done: asyncio.Future[None] = self._loop.create_future()

        async def wait() -> None:
            obeyed = await asyncio.gather(*answers)
            if state is machine.State.ACTIVE and not any(obeyed):
                self._state = was
                why = f"cannot {event.value}: every worker has ended or is about to"
                done.set_exception(machine.IllegalEventError(why))
            else:
                done.set_result(None)

        self._tasks.create_task(wait(), name=event.value)
        return done

    def ask(self, word: str, body: Mapping[str, object]) -> asyncio.Future[Mapping[str, object]]:
        """Refuse: what one worker would answer is not true of the others.

        Raises:
            wire.WireError: Always.
        """
        raise wire.WireError(f"cannot obey {word!r} {sorted(body)}: an instance of several workers cannot")

    def close(self) -> None:
        """Let go of everything; workers that are left are ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)
        if self._control is not None:
            self._control.close()
        for each in self._workers:
            each.end()

    def _start(self) -> worker.Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            passed, descriptors = inheritance.pass_on(self._inherited, theirs)
            kept = {name: text for name, text in os.environ.items() if name not in inheritance.OF_THE_KEEPER}
            process = subprocess.Popen(  # noqa: S603  # this very program
                [sys.executable, *sys.orig_argv[1:]],
                env={**kept, **passed},
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
            )
        return worker.Worker(process, ours, on_prepared=self._on_prepared, on_exit=self._on_exit)

    def _on_prepared(self, prepared: worker.Worker) -> None:
        if self._state is not machine.State.STARTING:  # it replaces one that ended
            prepared.tell(self._state)
        elif all(each.told is machine.State.PREPARED for each in self._workers):
            self._state = machine.step(self._state, machine.Event.READY)
            self._notify("prepared")
            if self._inherited.is_alone:
                self.move(machine.Event.ACTIVATE)

    def _on_exit(self, ended: worker.Worker, code: int) -> None:
        self._workers.remove(ended)
        self._served_by_gone += ended.status.served
        if self._state is machine.State.STARTING:
            self._fail(f"cannot prepare: worker {ended.pid} ended with {code}")
        elif self._state is machine.State.DRAINING:
            if not self._workers:
                self._state = machine.step(self._state, machine.Event.EMPTIED)
                self._notify("drained")
                self._finish()
        else:
            self._follow_death(ended, code)

    def _follow_death(self, ended: worker.Worker, code: int) -> None:
        self._deaths += 1
        if not self._workers:
            self._fail(f"cannot go on: no worker is left, the last one ended with {code}")
            return
        self._replace_later(ended)

    def _replace_later(self, ended: worker.Worker) -> None:
        is_early = self._loop.time() - ended.started_at_seconds < STEADY_SECONDS
        self._early_deaths = self._early_deaths + 1 if is_early else 1
        pause = min(REPLACE_FIRST_SECONDS * 2 ** (self._early_deaths - 1), REPLACE_MAX_SECONDS)
        self._loop.call_later(pause, self._replace)

    def _replace(self) -> None:
        if not self._workers or self._state in (machine.State.DRAINING, machine.State.DRAINED):
            return
        try:
            self._workers.append(self._start())
        except OSError as error:  # out of processes or descriptors for now
            self._loop.call_exception_handler({"message": "cannot replace a worker", "exception": error})
            self._loop.call_later(REPLACE_MAX_SECONDS, self._replace)

    def _on_signal(self) -> None:
        if self._state is not machine.State.DRAINED:
            self.move(machine.Event.DRAIN)

    def _notify(self, word: str) -> None:
        if self._control is not None:
            self._control.notify(word)

    def _finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)

    def _fail(self, why: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(WorkersError(why))


async def run(inherited: inheritance.Inheritance, count: int) -> None:
    """Serve with so many workers until they have drained.

    Raises:
        WorkersError: A worker ended before all were prepared, or all have ended.
    """
    async with asyncio.TaskGroup() as tasks:
        made = Parent(inherited, count, tasks)
        try:
            await asyncio.shield(made.finished)
        finally:
            made.close()
