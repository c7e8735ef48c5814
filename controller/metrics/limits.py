"""How much is kept of what nodes measure, and for how long.

Rules kept: whatever the limits, what is kept of a series has a fixed size. Left out: where they are set
(`controller.config`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from controller.metrics import windows

# Readings closer together than this share of a period count as one: heartbeats come early when something happens.
SPACING_SHARE = 0.75
# Readings kept at full resolution, at most: half an hour of one each second, in 15 KiB a series.
FINE_SLOTS_MAX = 1_800
# Readings kept in the thin ring, at most: a day of one each minute.
COARSE_SLOTS_MAX = 1_441
# Periods without a reading after which the latest one speaks for nothing any more.
STALE_PERIODS = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept.

    Args:
        window: At full resolution, in memory.
        past: Thinned out, in memory.
        step: Time between two readings of the thin past.
        retention: The thin past, in the store.
    """

    window: timedelta = timedelta(minutes=30)
    past: timedelta = timedelta(hours=4)
    step: timedelta = timedelta(minutes=1)
    retention: timedelta = timedelta(hours=6)

    def extent(self, period: timedelta) -> windows.Extent:
        """Say how many readings these are, at a time between two."""
        return windows.Extent(
            fine_slots=min(FINE_SLOTS_MAX, max(2, self.window // period)),
            fine_spacing=ticks(SPACING_SHARE * period),
            coarse_slots=min(COARSE_SLOTS_MAX, self.past // self.step + 1),
            coarse_spacing=ticks(self.step),
        )


def ticks(span: timedelta) -> int:
    """A span of time in ticks, at least one."""
    return max(1, round(span.total_seconds() * windows.TICKS_PER_SECOND))
