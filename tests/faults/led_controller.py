"""`python -m tests.faults.led_controller`: real controllers, one life after another, that kill themselves at a point.

A line of JSON on stdin asks for a life; a process of its own then runs what `python -m controller` runs, forked from
this one so that it need not be imported anew each time. What a life comes by goes out by line: where it listens, each
point that it passes, and the one at which it died; so does its end, which this process alone can see.

Rules kept here: nothing of the product is changed but where the points lie: around the commit of a transaction, before
a message goes down to an agent, and before an answer goes to a caller; the kill is SIGKILL, from inside, before
anything else is done. Left out: what the points are called (`transitions`), and who chooses among them (`lives`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import selectors
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import controller.__main__ as program
from controller.config import tls

tls.pin_version()

import controller.server  # noqa: E402, F401  # it imports gRPC, which now speaks TLS 1.3 alone
from controller.engine import desk as desks  # noqa: E402
from controller.rpc import door, sessions  # noqa: E402
from controller.store import database, sqlite, writing  # noqa: E402
from tests.faults import transitions  # noqa: E402


@dataclasses.dataclass
class Life:
    """What a life is told, and what it has come by.

    Args:
        armed: Where it shall die: at the first of these that it comes by.
        spared: Transitions at which earlier lives have died; at each other one this life dies, at the boundary that is
            that one's turn. None where it only dies where it is armed.
        is_hasty: It is broken: it acknowledges before it commits.
        names: Of what the transaction writes that is under way.
        groups: By an act that is yet to be answered: all that was written with it.
    """

    number: int
    armed: Collection[tuple[str, str]]
    spared: Collection[str] | None
    is_hasty: bool
    names: list[str] = dataclasses.field(default_factory=list)
    groups: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def say(self, **what: object) -> None:
        """Tell who asked for this life."""
        os.write(1, json.dumps({"life": self.number, **what}).encode() + b"\n")

    def come_by(self, boundary: str, names: Collection[str]) -> None:
        """Die here, where that is wanted."""
        self.say(boundary=boundary, names=list(names))
        hit = [name for name in names if (boundary, name) in self.armed] or self._turn(boundary, names)
        if hit:
            self.say(died_at=boundary, names=hit)
            os.kill(os.getpid(), signal.SIGKILL)

    def _turn(self, boundary: str, names: Collection[str]) -> Collection[str]:
        """What is met here for the first time, where this boundary is its turn; what was written with it counts too."""
        fresh = [] if self.spared is None else [name for name in names if name not in self.spared]
        if not fresh:
            return ()
        leading = next(filter(transitions.is_answered, fresh), fresh[0])
        if boundary == transitions.BEFORE_ANSWER:
            fresh = self.groups.get(leading, fresh)
        elif transitions.is_answered(leading):
            self.groups[leading] = fresh
        return fresh if transitions.turn(leading, boundary) == boundary else ()


def lead(life: Life) -> None:
    """Lay the points."""
    _around_commits(life)
    _before_messages(life)
    _before_answers(life)
    if life.is_hasty:
        _acknowledge_early(life)


def _around_commits(life: Life) -> None:
    write, apply, submit = sqlite.File.write, writing.apply, database.Store.write

    def led_submit(store: database.Store, work: Callable[[Any], Any]) -> Any:  # noqa: ANN401  # as the product has it
        def named(connection: Any) -> Any:  # noqa: ANN401
            life.names = [transitions.of_work(work)]
            return work(connection)

        return submit(store, named)

    def led_apply(connection: Any, commit: Any, log: Any) -> None:  # noqa: ANN401
        life.names = list(transitions.of_commit(commit))
        apply(connection, commit, log)

    def led_write(file: sqlite.File, work: Callable[[Any], Any]) -> Any:  # noqa: ANN401
        def up_to_commit(connection: Any) -> Any:  # noqa: ANN401
            result = work(connection)
            life.come_by(transitions.BEFORE_COMMIT, life.names)
            return result

        result = write(file, up_to_commit)
        life.come_by(transitions.AFTER_COMMIT, life.names)
        return result

    database.Store.write = led_submit  # type: ignore[method-assign,assignment]
    writing.apply = led_apply
    sqlite.File.write = led_write  # type: ignore[method-assign,assignment]


def _before_messages(life: Life) -> None:
    send = sessions.AgentSession._send

    async def led(session: sessions.AgentSession, response: Any) -> None:  # noqa: ANN401
        life.come_by(transitions.BEFORE_SEND, [str(response.WhichOneof("message"))])
        await send(session, response)

    sessions.AgentSession._send = led  # type: ignore[method-assign,assignment]


def _before_answers(life: Life) -> None:
    wrapped = door.Door._wrapped

    def led(post: door.Door, handler: Any, method: str) -> Any:  # noqa: ANN401
        made = wrapped(post, handler, method)
        name = method.rpartition("/")[2]
        behaviour = made.stream_unary or made.unary_unary
        if behaviour is None or not transitions.is_act(name):
            return made

        async def answer(request: Any, context: Any) -> Any:  # noqa: ANN401
            response = await behaviour(request, context)
            life.come_by(transitions.BEFORE_ANSWER, [transitions.of_answer(name)])
            return response

        made_again = door._MAKERS[made.request_streaming, made.response_streaming]
        return made_again(answer, made.request_deserializer, made.response_serializer)

    door.Door._wrapped = led  # type: ignore[method-assign,assignment]


def _acknowledge_early(life: Life) -> None:
    """Break the promise of the desk: answer first, and write once the caller, who so has its answer, asks again."""
    write, serve, wrapped = desks.Desk._write, desks.Desk._serve, door.Door._wrapped
    asked_again = asyncio.Event()
    held: list[Any] = []

    async def early(desk: desks.Desk, batch: Any) -> Exception | None:  # noqa: ANN401  # a draft
        names = () if batch.is_empty else transitions.of_commit(batch.commit())
        if not any((transitions.BEFORE_COMMIT, name) in life.armed for name in names):
            return await write(desk, batch)
        desk.world = batch.world
        held.append(batch)
        return None

    async def late(desk: desks.Desk, works: Any) -> None:  # noqa: ANN401
        await serve(desk, works)
        if held:
            await asked_again.wait()
            await write(desk, held.pop())

    def called(post: door.Door, handler: Any, method: str) -> Any:  # noqa: ANN401
        if held and not method.endswith("/Connect"):
            asked_again.set()
        return wrapped(post, handler, method)

    desks.Desk._write = early  # type: ignore[method-assign,assignment]
    desks.Desk._serve = late  # type: ignore[method-assign,assignment]
    door.Door._wrapped = called  # type: ignore[method-assign,assignment]


def live(order: Mapping[str, Any]) -> int:
    """Be a controller, until the end.

    Args:
        order: ``life``, ``armed``, ``spared``, ``environment``, ``log``, ``hasty``.
    """
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(order["environment"])
    armed = {(boundary, name) for boundary, name in order["armed"]}
    life = Life(order["life"], armed, order["spared"], order["hasty"])
    lead(life)
    program._say = lambda address: life.say(listens=address)
    return program.main()


def main() -> None:
    """Do as the lines on stdin say, until they end; then end whoever still lives."""
    lives: dict[int, tuple[int, int]] = {}  # by pidfd: number and pid
    with selectors.DefaultSelector() as either:
        either.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in either.select():
                if key.fd != 0:
                    either.unregister(key.fd)
                    _bury(key.fd, *lives.pop(key.fd))
                    continue
                line = sys.stdin.buffer.readline()
                if not line:
                    for _, pid in lives.values():
                        os.kill(pid, signal.SIGKILL)
                    return
                order = json.loads(line)
                descriptor, pid = _fork(order)
                lives[descriptor] = order["life"], pid
                either.register(descriptor, selectors.EVENT_READ)


def _fork(order: Mapping[str, Any]) -> tuple[int, int]:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = live(order)
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.write(1, json.dumps({"life": order["life"], "pid": pid}).encode() + b"\n")
    return os.pidfd_open(pid), pid


def _bury(descriptor: int, number: int, pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    os.close(descriptor)
    os.write(1, json.dumps({"life": number, "ended": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


if __name__ == "__main__":
    main()
