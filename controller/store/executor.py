"""Where transactions run: one writer thread with a FIFO queue, or at once where a run has to repeat itself.

Rules kept: transactions run one at a time, in the order in which they were asked for; what is asked after the end is
refused. Measured on SQLite, one writer with a queue beats any number of writers with locks by both median and worst
case. Left out: grouping, which the engine does before it asks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Protocol, TypeVar

Result = TypeVar("Result")


class Executor(Protocol):
    """Runs pieces of blocking work one after another."""

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run the work after all that was asked before, and return what it returns or raise what it raises."""
        ...

    def close(self) -> None:
        """Return once everything that was asked has run."""
        ...


class InlineExecutor:
    """Runs the work at once, on the loop's own thread: for virtual time."""

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run the work now."""
        return work()

    def close(self) -> None:
        """Nothing is left to run."""


class WriterThread:
    """Runs the work on one thread of its own."""

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="instar-store")

    async def run(self, work: Callable[[], Result]) -> Result:
        """Queue the work; once begun it runs to its end, also when the caller no longer waits."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    def close(self) -> None:
        """Wait for what was queued."""
        self._thread.shutdown(wait=True)
