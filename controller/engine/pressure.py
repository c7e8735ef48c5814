"""How hard the controller is pressed, measured: how late its loop is, and how long work waits to be stored.

Theory of operation. What the loop owes piles up in front of it, so a short sleep of this module's own ends late by as
much as anybody's answer does. Work for the store piles up at the desk, whose oldest piece has an age. A single long
piece of work, such as a large plan, makes one look late and harms nobody for long; so what counts is the least of the
latest looks: a delay that does not go away.

Rules kept: what is refused first is what others can best do without: reads, then heartbeats that have nothing to tell;
what belongs to an operation is never refused nor put off. Reads are answered from memory, so a slow store alone does
not keep anybody from looking. Left out: how much one caller may ask (`controller.rpc.quotas`).

Source: Nichols and Jacobson, "Controlling queue delay" (CoDel), 2012.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Never

from controller.core import errors

LOOK_SECONDS = 0.1  # between two looks
LOOKS = 5  # that must all be late: a stall of half a second is none
READS_REFUSED_SECONDS = 0.5  # above it an answer would come too late for whoever looks at a screen
HEARTBEATS_THINNED_SECONDS = 1.0  # a tenth of the usual period: above it more heartbeats come than are taken
OVERLOADED = "overloaded"


class Pressure:
    """What the latest looks have found; calm until `run` has looked.

    Args:
        work_waits_seconds: For how long the oldest piece of work has waited at the desk.
        monotonic: Seconds that never go back.
    """

    def __init__(self, work_waits_seconds: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._work_waits_seconds = work_waits_seconds
        self._monotonic = monotonic
        self._late: deque[float] = deque([0.0] * LOOKS, maxlen=LOOKS)
        self._waited: deque[float] = deque([0.0] * LOOKS, maxlen=LOOKS)

    async def run(self) -> Never:
        """Look for ever."""
        while True:
            before_seconds = self._monotonic()
            await asyncio.sleep(LOOK_SECONDS)
            self._late.append(max(0.0, self._monotonic() - before_seconds - LOOK_SECONDS))
            self._waited.append(self._work_waits_seconds())

    @property
    def loop_late_seconds(self) -> float:
        """By how much everything that the loop does comes late."""
        return min(self._late)

    @property
    def work_late_seconds(self) -> float:
        """By how much work is stored late, or done at all."""
        return max(min(self._waited), self.loop_late_seconds)

    @property
    def is_thinning(self) -> bool:
        """True while heartbeats that have nothing to tell should be fewer."""
        return self.work_late_seconds >= HEARTBEATS_THINNED_SECONDS

    def check_read(self) -> None:
        """Let somebody read.

        Raises:
            ExhaustedError: The loop is late, code OVERLOADED.
        """
        late_seconds = self.loop_late_seconds
        if late_seconds >= READS_REFUSED_SECONDS:
            raise errors.ExhaustedError(
                f"cannot answer a read now: the controller is {late_seconds:.1f} s late",
                code=OVERLOADED,
                field="controller",
                rule=f"reads are answered while it is less than {READS_REFUSED_SECONDS:g} s late",
                # Sooner the looks cannot have found anything else.
                retry_after=timedelta(seconds=LOOKS * (LOOK_SECONDS + late_seconds)),
            )
