"""Time and chance, as ports: the only module of the controller that reads either.

Everything else is given a ``Clock`` and an ``IdSource``, so that a run in virtual time repeats itself. Left out: what
the instants and identities are used for.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Protocol

from controller.core import model

# Crockford's digits: they sort as the numbers do, and none is mistaken for another.
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_BITS_PER_DIGIT = 5
# 48 bits of milliseconds reach the year 10889; 30 random bits tell apart what is made in one millisecond.
_TIME_DIGITS = 10
_RANDOM_DIGITS = 6


class Clock(Protocol):
    """What time it is."""

    def now(self) -> datetime:
        """Return the present instant, aware and in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary instant; never goes back."""
        ...


class IdSource(Protocol):
    """Identities that nobody else gives out."""

    def rollout_id(self, now: datetime) -> model.RolloutId:
        """Return a new identity that sorts after those of earlier instants."""
        ...

    def freeze_id(self, now: datetime) -> model.FreezeId:
        """Return a new identity that sorts after those of earlier instants."""
        ...

    def trigger_id(self, now: datetime) -> model.TriggerId:
        """Return a new identity that sorts after those of earlier instants."""
        ...

    def session_id(self) -> model.SessionId:
        """Return a new identity that cannot be guessed."""
        ...

    def controller_id(self) -> str:
        """Return a new identity for one life of a controller."""
        ...


def time_ordered_text(now: datetime, random_bits: int) -> str:
    """Write an instant and random bits so that text order is time order, to the millisecond."""
    milliseconds = int(now.timestamp() * 1000)
    return f"{_base32(milliseconds, _TIME_DIGITS)}{_base32(random_bits, _RANDOM_DIGITS)}"


def _base32(number: int, digits: int) -> str:
    shifts = range((digits - 1) * _BITS_PER_DIGIT, -1, -_BITS_PER_DIGIT)
    return "".join(_DIGITS[number >> shift & 31] for shift in shifts)


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the machine's wall clock."""
        return datetime.now(UTC)  # noqa: TID251 this is the one place that reads it

    def monotonic(self) -> float:
        """Return the machine's monotonic clock."""
        return time.monotonic()


class RandomIds:
    """Identities from the system's random source."""

    def rollout_id(self, now: datetime) -> model.RolloutId:
        """Return ``r-`` and 16 digits, the first ten of them the time."""
        return model.RolloutId("r-" + time_ordered_text(now, secrets.randbits(_RANDOM_DIGITS * _BITS_PER_DIGIT)))

    def freeze_id(self, now: datetime) -> model.FreezeId:
        """Return ``f-`` and 16 digits, the first ten of them the time."""
        return model.FreezeId("f-" + time_ordered_text(now, secrets.randbits(_RANDOM_DIGITS * _BITS_PER_DIGIT)))

    def trigger_id(self, now: datetime) -> model.TriggerId:
        """Return ``t-`` and 16 digits, the first ten of them the time."""
        return model.TriggerId("t-" + time_ordered_text(now, secrets.randbits(_RANDOM_DIGITS * _BITS_PER_DIGIT)))

    def session_id(self) -> model.SessionId:
        """Return 128 random bits."""
        return model.SessionId(secrets.token_hex(16))

    def controller_id(self) -> str:
        """Return 64 random bits."""
        return "c-" + secrets.token_hex(8)
