"""An asyncio event loop in virtual time whose every choice comes from a seed.

Rules kept: no thread, no file descriptor, no clock of the machine; time moves only when nothing is ready; callbacks
that are ready at once run in an order drawn from the seed. When nothing is ready and nothing is scheduled, the loop
raises: what waits then would wait for ever.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

Result = TypeVar("Result")


class DeadlockError(Exception):
    """Every task waits and no timer is set."""


class _NoSelector:
    """Stands where a selector would: instead of waiting it moves the clock to the next timer."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[NoReturn]:
        if timeout is None:
            raise DeadlockError("cannot go on: nothing is ready and nothing is scheduled")
        if timeout > 0:
            self._loop.advance_to_next_timer()
        return []

    def close(self) -> None:
        """Nothing is open."""

    def get_map(self) -> dict[int, NoReturn]:
        return {}


class VirtualLoop(asyncio.BaseEventLoop):
    """One seeded run of a world.

    Args:
        seed: Decides the order of callbacks and every draw from ``random``.
    """

    # The names that BaseEventLoop itself uses for its queues.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)  # noqa: S311 a simulation wants repeatable draws, not secret ones
        self.callbacks = 0
        self._now_seconds = 0.0
        self._trace = hashlib.sha256()
        self._selector = _NoSelector(self)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self._now_seconds

    def advance_to_next_timer(self) -> None:
        """Move the clock to the earliest timer; what is due in the past moves nothing."""
        self._now_seconds = max(self._now_seconds, self._scheduled[0].when())

    def record(self, line: str) -> None:
        """Add a line to the trace; two runs are the same when their traces hash alike."""
        self._trace.update(f"{self._now_seconds:.6f} {line}\n".encode())

    @property
    def trace_hash(self) -> str:
        """Hash over all that was recorded so far."""
        return self._trace.hexdigest()

    def run_in_executor(  # there are no threads: what would run on one runs now
        self, _executor: object, func: Callable[..., Result], *args: object
    ) -> asyncio.Future[Result]:
        done: asyncio.Future[Result] = self.create_future()
        done.set_result(func(*args))
        return done

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no descriptors, so there are no events of theirs."""

    def _write_to_self(self) -> None:
        """Nothing sleeps in a system call, so nothing has to be woken."""

    def _run_once(self) -> None:
        if len(self._ready) > 1:
            shuffled = list(self._ready)
            self.random.shuffle(shuffled)
            self._ready.clear()
            self._ready.extend(shuffled)
        self.callbacks += len(self._ready)
        super()._run_once()  # type: ignore[misc]  # private, and checked by test_loop on each Python
