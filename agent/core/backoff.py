"""When an agent tries again: every wait is drawn at random, so that a fleet that fell together does not rise together.

Rules kept: the jitter is full and is applied after the cap, so that agents at the cap are spread as well; only a useful
exchange (an acknowledged heartbeat) resets the growth, never a connection that was merely accepted; a draw is an
argument, from 0 up to but not including 1. Left out: what is tried, and the clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

BASE = timedelta(seconds=1)  # a lone hiccup costs half a second on average
CAP = timedelta(
    seconds=15
)  # a controller that comes back has its fleet again soon; where it is crowded it says when to come
SPREAD_MAX = timedelta(minutes=30)  # 100,000 agents come back in a third of it; nobody sends a fleet away for long
DOUBLINGS_MAX = 16  # far past any cap; keeps the power finite after years of failures
PERIOD_JITTER = 0.1  # share of a heartbeat period that is drawn anew each time, so that phases never align


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential waiting with full jitter.

    Args:
        failures: Tries since the last useful exchange.
    """

    base: timedelta = BASE
    cap: timedelta = CAP
    failures: int = 0

    def delay(self, draw: float) -> timedelta:
        """Time to wait before the next try, from nothing up to the capped, doubled base."""
        ceiling = min(self.cap, self.base * (1 << min(self.failures, DOUBLINGS_MAX)))
        return ceiling * draw

    def failed(self) -> Backoff:
        """The same after one more try without a useful exchange."""
        return replace(self, failures=self.failures + 1)

    def reset(self) -> Backoff:
        """The same after a useful exchange."""
        return replace(self, failures=0)


def spread(window: timedelta, draw: float) -> timedelta:
    """An instant of a window that a controller announced, at most SPREAD_MAX, as time from its beginning."""
    return min(max(window, timedelta()), SPREAD_MAX) * draw


def heartbeat_delay(period: timedelta, draw: float) -> timedelta:
    """Time until the next heartbeat: never longer than the period, drawn anew each time."""
    return period * (1 - PERIOD_JITTER * draw)
