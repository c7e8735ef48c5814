"""Who may open a session now, and how much may be said in it: token buckets, so that no crowd takes up the time of all.

Rules kept: turning away costs nearly nothing and says when to come back; nodes with an operation in flight outrank the
others. Left out: whether the caller may come at all (`callers`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

from controller.core import errors

SESSIONS_PER_SECOND = 200.0  # new ones; 10,000 agents are back within a minute and the API still answers
SESSIONS_BURST = 1_000  # at once, after a quiet time; who waits for its turn costs less than who is turned away
MESSAGES_PER_SECOND = 40.0  # of one agent, on the long run; ours leaves 50 ms between two
MESSAGES_BURST = 400.0  # at once
SESSIONS_RESERVED = 50  # of the burst, for nodes with an operation in flight
OPENING_MAX = 16  # sessions that are being made known at once: some ten milliseconds of the loop, and one flush to disk


class TokenBucket:
    """One token for each new session.

    Args:
        monotonic: Seconds that never go back.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._tokens = float(SESSIONS_BURST)
        self._filled_at_seconds = monotonic()
        self._next_slot_seconds = 0.0  # before it everybody has been told to come who may

    def take(self, *, is_urgent: bool) -> timedelta:
        """Take a token; return nothing when there was one, else the time after which to try again.

        Each of a crowd is told another time, one token apart, so that nobody comes in vain again.
        """
        now_seconds = self._monotonic()
        gained = (now_seconds - self._filled_at_seconds) * SESSIONS_PER_SECOND
        self._tokens = min(float(SESSIONS_BURST), self._tokens + gained)
        self._filled_at_seconds = now_seconds
        left_over = self._tokens - (1 if is_urgent else 1 + SESSIONS_RESERVED)
        if left_over < 0:
            slot_seconds = max(self._next_slot_seconds, now_seconds - left_over / SESSIONS_PER_SECOND)
            self._next_slot_seconds = slot_seconds + 1 / SESSIONS_PER_SECOND
            return timedelta(seconds=slot_seconds - now_seconds)
        self._tokens -= 1
        return timedelta()


class Turns:
    """Who is made known now: of a crowd only OPENING_MAX at once, so that the loop has time for others between them."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(OPENING_MAX)

    @contextlib.asynccontextmanager
    async def take(self, *, is_urgent: bool) -> AsyncIterator[None]:
        """Wait for one's turn, in the order of coming; who is urgent does not wait."""
        if is_urgent:
            yield
            return
        async with self._free:
            yield


class Allowance:
    """What one agent may still say in its session.

    Args:
        node_id: Whose it is, for the refusal.
        monotonic: Seconds that never go back.
    """

    def __init__(self, node_id: str, monotonic: Callable[[], float]) -> None:
        self._node_id = node_id
        self._monotonic = monotonic
        self._left = MESSAGES_BURST
        self._filled_at_seconds = monotonic()

    def take(self) -> None:
        """Count a message.

        Raises:
            ExhaustedError: It is one too many, code ``too_many_messages``.
        """
        now_seconds = self._monotonic()
        gained = (now_seconds - self._filled_at_seconds) * MESSAGES_PER_SECOND
        self._left = min(MESSAGES_BURST, self._left + gained) - 1
        self._filled_at_seconds = now_seconds
        if self._left < 0:
            raise errors.ExhaustedError(
                f"cannot go on with the session: node {self._node_id} says too much",
                code="too_many_messages",
                field="message",
                rule=f"at most {MESSAGES_PER_SECOND:g} messages a second, and {MESSAGES_BURST:g} at once",
                retry_after=timedelta(seconds=1),
            )
