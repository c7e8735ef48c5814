"""The one place where the world changes: pieces of work are drafted in turn, and committed together.

Theory of operation. Whoever wants a change hands in a piece of work: a function from a draft to an answer. The desk
runs all that has gathered, each on the world that the ones before it leave, writes what they drafted as one
transaction, makes the new world known, and only then answers. While a transaction is being written the next pieces
gather; so a fast store makes small transactions and a slow one makes large ones. When far more waits than one
transaction should take, as after an order to a whole fleet, transactions grow: then nothing is gained by answering the
first soon, and each flush to disk that is shared lets the last be answered sooner. Between the slices of a large one
the loop serves others.

What follows from a piece of work by rule, whoever asked for it, is drafted right behind it.

Rules kept: work that raises leaves no mark, and harms no other; nobody hears of a change that is not durable; when a
transaction fails the world is read again from the store, for what failed may have been written all the same; until that
has been possible nothing is drafted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from controller import clock as clocks
from controller.core import errors, model
from controller.engine import draft as drafts
from controller.engine import world as worlds
from controller.store import database, reading

Answer = TypeVar("Answer")

# Pieces of work in one transaction: enough to share a flush to disk, few enough to answer within tens of milliseconds.
WORK_MAX = 64
# And where so much waits that this is less than a quarter of it: a larger one would share little more.
STORM_WORK_MAX = 256
_STORM_SHARE = 4
# Above it nobody may hand in what can wait: as many as there are connections, with a few minutes of work.
WAITING_MAX = 16_384
FULL_RETRY_AFTER = timedelta(seconds=1)  # some hundred pieces later

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Work:
    run: Callable[[drafts.Draft], Any]
    answer: asyncio.Future[Any]
    came_at_seconds: float


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is done beside a transaction.

    Args:
        follow: Drafts what follows from a piece of work.
        published: Called after each transaction with what it wrote; must not raise.
        doubted: Called when it is not known whether a transaction was written; must not raise.
    """

    follow: Callable[[drafts.Draft], None]
    published: Callable[[drafts.Draft], None]
    doubted: Callable[[], None]


class Desk:
    """Changes the world, one transaction after another.

    Args:
        owner: This life of the controller, as the leases name it.
        connected: Nodes that have a live session now.
    """

    def __init__(
        self,
        store: database.Store,
        clock: clocks.Clock,
        owner: str,
        hooks: Hooks,
        connected: Collection[model.NodeId],
    ) -> None:
        self._store = store
        self._clock = clock
        self._owner = owner
        self._hooks = hooks
        self._connected = connected
        self._waiting: list[_Work] = []
        self._has_work = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._is_closed = False
        self._is_doubted = False  # the world may not be what is stored, and could not be read again
        self.world = self._read()

    async def submit(self, work: Callable[[drafts.Draft], Answer]) -> Answer:
        """Have the work done, and return its answer once all that it drafted is durable.

        Raises:
            ConflictError: Somebody else changed a rollout of the transaction first.
            UnavailableError: The store could not write.
        """
        if self._is_closed:
            raise errors.UnavailableError("cannot do it now: the controller is stopping", code="stopping")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Work(work, answer, self._clock.monotonic()))
        self._has_work.set()
        return await answer

    @property
    def waits_seconds(self) -> float:
        """For how long the oldest piece of work has waited for its turn."""
        return self._clock.monotonic() - self._waiting[0].came_at_seconds if self._waiting else 0.0

    def check_room(self) -> None:
        """Let somebody hand in work that can wait; what belongs to an operation does not ask.

        Raises:
            ExhaustedError: WAITING_MAX pieces wait, code ``desk_full``.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise errors.ExhaustedError(
                f"cannot take it now: {len(self._waiting)} pieces of work wait to be stored",
                code="desk_full",
                field="controller",
                rule=f"less than {WAITING_MAX} pieces of work",
                retry_after=FULL_RETRY_AFTER,
            )

    def read_again(self) -> None:
        """Make the world what the store holds now."""
        self.world = self._read()

    async def run(self) -> None:
        """Serve until ``close``."""
        while not self._is_closed or self._waiting:
            await self._has_work.wait()
            size = max(WORK_MAX, min(STORM_WORK_MAX, len(self._waiting) // _STORM_SHARE))
            works, self._waiting = self._waiting[:size], self._waiting[size:]
            if not self._waiting and not self._is_closed:
                self._has_work.clear()
            await self._serve(works)
        self._has_ended.set()

    async def close(self) -> None:
        """Refuse further work, and return once ``run`` has done what it was given before."""
        self._is_closed = True
        self._has_work.set()
        await self._has_ended.wait()

    async def _serve(self, works: list[_Work]) -> None:
        if self._is_doubted and (failure := self._read_or_doubt()):
            _answer([(work, _Outcome()) for work in works], failure)
            return
        batch = drafts.Draft(self.world, self._clock.now())
        answers: list[tuple[_Work, _Outcome]] = []
        for first in range(0, len(works), WORK_MAX):
            if first:
                await asyncio.sleep(0)
            due = (each for each in works[first : first + WORK_MAX] if not each.answer.done())
            answers += [(work, self._draft(work, batch)) for work in due]
        _answer(answers, await self._write(batch))

    def _draft(self, work: _Work, batch: drafts.Draft) -> _Outcome:
        draft = drafts.Draft(batch.world, batch.at, earlier=batch)
        try:
            value = work.run(draft)
            self._hooks.follow(draft)
            if draft.closing is not None:
                draft.closing()
        except Exception as error:  # noqa: BLE001 it is whoever handed the work in that hears of it
            return _Outcome(error=error)
        batch.absorb(draft)
        return _Outcome(value)

    async def _write(self, batch: drafts.Draft) -> Exception | None:
        if not batch.is_empty:
            try:
                await self._store.commit(batch.commit())
            except Exception as error:  # noqa: BLE001 whatever a driver raises, the answer is the same
                return self._recover(error)
        self.world = batch.world
        try:
            self._hooks.published(batch)
        except Exception:  # noqa: BLE001 what is stored is stored, whatever a listener makes of it
            _log.exception("cannot tell everybody of a commit")
        return None

    def _recover(self, error: Exception) -> errors.InstarError:
        _log.error("cannot commit: %s", error)
        self._hooks.doubted()
        self._read_or_doubt()
        return _ours(error)

    def _read_or_doubt(self) -> errors.InstarError | None:
        """Read the world again; where that fails nothing is drafted on it before it has been read."""
        try:
            self.world = self._read()
        except Exception as error:  # noqa: BLE001 whatever a driver raises, the answer is the same
            _log.error("cannot read the store again: %s", error)
            self._is_doubted = True
            return _ours(error)
        self._is_doubted = False
        return None

    def _read(self) -> worlds.World:
        return worlds.from_snapshot(self._store.read(reading.snapshot), self._owner, self._connected)


def _answer(answers: list[tuple[_Work, _Outcome]], failure: Exception | None) -> None:
    for work, outcome in answers:
        if work.answer.done():
            continue
        error = failure or outcome.error
        if error is not None:
            work.answer.set_exception(error)
        else:
            work.answer.set_result(outcome.value)


def _ours(error: Exception) -> errors.InstarError:
    """Say what a driver raised as whoever asked can take it."""
    if isinstance(error, errors.InstarError):
        return error
    return errors.UnavailableError(
        f"cannot store it: {error}",
        code="store_unavailable",
        field="store",
        rule="what is accepted is durable; nothing is accepted that cannot be written",
    )
