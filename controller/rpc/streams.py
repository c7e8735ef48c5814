"""The streams that are open, and what cuts them before their time: a proof that ends, a caller that is denied.

Rules kept here: a stream outlives no right to it by more than a second; only a refusal cuts, never that something
cannot be found out just now; what is cut is told why. Left out: that each message is authorised before it goes down
(`door`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controller import clock
from controller.core import errors
from controller.rpc import callers, principals

LOOK_SECONDS = 0.25  # between two looks: with the work itself well within a second
_logger = logging.getLogger(__name__)

Again = Callable[[], principals.Principal]


@dataclass(eq=False, slots=True)
class Live:
    """One open stream.

    Args:
        again: Authorises it once more; raises what it would be refused with.
        ended: Why it was cut; None while it was not.
    """

    task: asyncio.Task[object]
    again: Again
    principal: principals.Principal
    ended: errors.InstarError | None = None


class Streams:
    """The streams that are open."""

    def __init__(self, known: callers.Callers, time: clock.Clock) -> None:
        self._callers = known
        self._clock = time
        self._live: set[Live] = set()
        self._revision = 0

    def __len__(self) -> int:
        """How many are open."""
        return len(self._live)

    @contextlib.contextmanager
    def open(self, principal: principals.Principal, again: Again) -> Iterator[Live]:
        """Keep the stream of the running task in sight."""
        task = asyncio.current_task()
        assert task is not None, "a stream is served by a task"  # noqa: S101  # of gRPC's own
        live = Live(task, again, principal)
        self._live.add(live)
        try:
            yield live
        finally:
            self._live.discard(live)

    async def run(self) -> None:
        """Look after them for ever."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Cut what may go on no longer."""
        revision = self._callers.revision()
        has_changed, self._revision = revision != self._revision, revision
        now = self._clock.now()
        for live in tuple(self._live):
            is_over = live.principal.until is not None and live.principal.until <= now
            if has_changed or is_over:
                self._authorise(live)

    def _authorise(self, live: Live) -> None:
        try:
            live.principal = live.again()
        except errors.UnavailableError as error:
            _logger.warning("cannot authorise a stream of %s again: %s", live.principal, error)
        except errors.InstarError as error:
            if live.ended is None:
                _logger.info("a stream of %s is cut: %s", live.principal, error)
                live.ended = error
                live.task.cancel()
