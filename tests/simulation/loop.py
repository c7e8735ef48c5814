"""An asyncio event loop in virtual time whose every choice comes from a seed.

Rules kept: no thread, no file descriptor, no clock of the machine; time moves only when nothing is ready; callbacks
that are ready at once run in an order drawn from the seed. When nothing is ready and nothing is scheduled, the loop
raises: what waits then would wait for ever. A process of the run is whatever began under its name (`process`): it can
stand still as a whole, while messages to it wait, and be stopped at any one of its steps.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class DeadlockError(Exception):
    """Every task waits and no timer is set."""


# The process that a callback belongs to; empty for what nobody stops.
process: contextvars.ContextVar[str] = contextvars.ContextVar("process", default="")
# Of the timers that wait, the share above which cancelled ones are thrown out together.
CANCELLED_SHARE_MAX = 0.5


class _NoSelector:
    """Stands where a selector would."""

    def close(self) -> None:
        """Nothing is open."""

    def get_map(self) -> dict[int, object]:
        return {}


class VirtualLoop(asyncio.BaseEventLoop):
    """One seeded run of a world.

    Args:
        seed: Decides the order of callbacks and every draw from ``random``.
    """

    # The names that BaseEventLoop itself uses for its queues.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _timer_cancelled_count: int
    _stopping: bool

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)  # noqa: S311 a simulation wants repeatable draws, not secret ones
        self.callbacks = 0
        self._now_seconds = 0.0
        self._trace = hashlib.sha256()
        self._selector = _NoSelector()
        self._clock_resolution = 1e-9
        self._still: dict[str, list[asyncio.Handle]] = {}
        self._stops: dict[str, tuple[int, Callable[[], None]]] = {}

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self._now_seconds

    def stand_still(self, name: str) -> None:
        """Let nothing of a process run until `go_on`; what would have run waits."""
        self._still.setdefault(name, [])

    def is_still(self, name: str) -> bool:
        """Tell whether a process stands still."""
        return name in self._still

    def go_on(self, name: str) -> None:
        """Let a process run again, with all that has become due meanwhile."""
        self._stops.pop(name, None)
        self._ready.extend(self._still.pop(name, ()))

    def stop_within(self, name: str, steps: int, then: Callable[[], None]) -> None:
        """Let a process stand still after a number of its own steps from now, and call ``then`` at that instant."""
        self._stops[name] = (steps, then)

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
        self._fall_due()
        todo = list(self._ready)
        self._ready.clear()
        if len(todo) > 1:
            self.random.shuffle(todo)
        self.callbacks += len(todo)
        is_watched = bool(self._still or self._stops)
        for handle in todo:
            if handle._cancelled or (is_watched and self._is_held(handle)):
                continue
            handle._run()

    def _fall_due(self) -> None:
        """Make ready what is due; where nothing is ready, move the clock to the earliest timer."""
        scheduled, ready = self._scheduled, self._ready
        if self._timer_cancelled_count > CANCELLED_SHARE_MAX * len(scheduled):
            self._throw_out_cancelled()
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]  # as BaseEventLoop does
        if not ready and not self._stopping:
            if not scheduled:
                raise DeadlockError("cannot go on: nothing is ready and nothing is scheduled")
            self._now_seconds = max(self._now_seconds, scheduled[0].when())
        end_seconds = self._now_seconds + self._clock_resolution
        while scheduled and scheduled[0].when() < end_seconds:
            due = heapq.heappop(scheduled)
            due._scheduled = False  # type: ignore[attr-defined]  # as BaseEventLoop does
            if due._cancelled:
                self._timer_cancelled_count -= 1
            else:
                ready.append(due)

    def _throw_out_cancelled(self) -> None:
        kept = []
        for timer in self._scheduled:
            if timer._cancelled:
                timer._scheduled = False  # type: ignore[attr-defined]  # as BaseEventLoop does
            else:
                kept.append(timer)
        heapq.heapify(kept)
        self._scheduled[:] = kept
        self._timer_cancelled_count = 0

    def _is_held(self, handle: asyncio.Handle) -> bool:
        """Tell whether the process of a callback stands still, and put the callback by."""
        name = handle._context.get(process, "")  # type: ignore[attr-defined]  # private, and in every CPython
        stop = self._stops.get(name)
        if stop is not None:
            steps, then = stop
            self._stops[name] = (steps - 1, then)
            if steps <= 0:
                del self._stops[name]
                self.stand_still(name)
                then()
        held = self._still.get(name)
        if held is None:
            return False
        held.append(handle)
        return True
