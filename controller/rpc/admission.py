"""Who may open a session now: a token bucket, so that a fleet that comes back at once is let in at a bearable pace.

Rules kept: turning away costs nearly nothing and says when to come back; nodes with an operation in flight outrank the
others. Left out: whether the caller may come at all (`principals`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

SESSIONS_PER_SECOND = 200.0  # new ones; 10,000 agents are back within a minute and the API still answers
SESSIONS_BURST = 400  # at once, after a quiet time
SESSIONS_RESERVED = 50  # of the burst, for nodes with an operation in flight


class TokenBucket:
    """One token for each new session.

    Args:
        monotonic: Seconds that never go back.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._tokens = float(SESSIONS_BURST)
        self._filled_at_seconds = monotonic()

    def take(self, *, is_urgent: bool) -> timedelta:
        """Take a token; return nothing when there was one, else the time after which to try again."""
        now_seconds = self._monotonic()
        gained = (now_seconds - self._filled_at_seconds) * SESSIONS_PER_SECOND
        self._tokens = min(float(SESSIONS_BURST), self._tokens + gained)
        self._filled_at_seconds = now_seconds
        left_over = self._tokens - (1 if is_urgent else 1 + SESSIONS_RESERVED)
        if left_over < 0:
            return timedelta(seconds=-left_over / SESSIONS_PER_SECOND)
        self._tokens -= 1
        return timedelta()
