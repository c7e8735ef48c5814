"""Questions for the end of a component's log: asked of a node over its live session, answered or given up in time.

Rules kept: a question has a number within its session, and an answer that nobody waits for is dropped; a session that
ends leaves no question open; only so many questions are open at once over all sessions, since each answer is held in
memory; nothing of it is stored. Left out: what a log is, and whether there is one (the agent says it).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controller.core import errors, model

READ_DEADLINE_SECONDS = 10.0  # somebody waits for the answer; a tail is read within milliseconds
READS_MAX = 16  # questions at once: with 64 KiB each the answers take 1 MiB at most
NODE_READS_MAX = 4  # of these at one node: it reads no more at one time


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a node; the answer repeats the number."""

    request_id: int
    component: model.ComponentName
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a log, from a line's beginning on; ``error`` says why there is none."""

    request_id: int
    instance_id: str
    text: str
    error: str


class Questions:
    """The questions of one session.

    Args:
        wake: Called when there is something new to say.
    """

    def __init__(self, node_id: model.NodeId, wake: Callable[[], None]) -> None:
        self._node_id = node_id
        self._wake = wake
        self._count = 0
        self._unsaid: list[Question] = []
        self._waiting: dict[int, asyncio.Future[Answer]] = {}

    async def read(self, component: model.ComponentName, max_bytes: int) -> Answer:
        """Ask for the end of a component's log.

        Raises:
            RefusedError: The session ended before the answer came.
            UnavailableError: No answer came in time, or the node has enough to read already.
        """
        if len(self._waiting) >= NODE_READS_MAX:
            raise _too_many(NODE_READS_MAX)
        self._count += 1
        question = Question(self._count, component, max_bytes)
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[question.request_id] = waiting
        self._unsaid.append(question)
        self._wake()
        try:
            async with asyncio.timeout(READ_DEADLINE_SECONDS):
                return await waiting
        except TimeoutError as error:
            raise _no_answer(self._node_id) from error
        finally:
            self._waiting.pop(question.request_id, None)

    def unsaid(self) -> Iterator[Question]:
        """Take the questions that are still to be said, in order."""
        while self._unsaid:
            question = self._unsaid.pop(0)
            if question.request_id in self._waiting:
                yield question

    def take(self, answer: Answer) -> None:
        """Give an answer to whoever waits for it."""
        waiting = self._waiting.get(answer.request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def end(self) -> None:
        """Let all who wait know that no answer will come."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(not_connected(self._node_id))


class Room:
    """How many questions may still be asked, over all sessions."""

    def __init__(self) -> None:
        self._open = 0

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for one question.

        Raises:
            UnavailableError: There is none.
        """
        if self._open >= READS_MAX:
            raise _too_many(READS_MAX)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


def not_connected(node_id: model.NodeId) -> errors.RefusedError:
    """The error of a node that cannot be asked."""
    return errors.RefusedError(
        f"cannot ask node {node_id}: it is not connected",
        code="node_not_connected",
        field="node_id",
        value=node_id,
        rule="a node is asked over its live session",
    )


def _too_many(most: int) -> errors.UnavailableError:
    return errors.UnavailableError(
        f"cannot read the log: {most} are being read",
        code="too_many_log_reads",
        field="component",
        rule=f"at most {READS_MAX} at once, and {NODE_READS_MAX} at one node",
    )


def _no_answer(node_id: model.NodeId) -> errors.UnavailableError:
    """The error of a node that did not answer in time."""
    return errors.UnavailableError(
        f"cannot read the log: node {node_id} did not answer within {READ_DEADLINE_SECONDS:.0f} s",
        code="node_silent",
        field="node_id",
        value=node_id,
        rule="a node answers in time",
    )
