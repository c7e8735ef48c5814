"""Counts what an instance answered: how often in a row, and since when it is well without a break.

Rules kept here: a value; time is an argument. Left out: asking.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from agent.core import model


@dataclass(frozen=True, slots=True)
class HealthWatch:
    """What the probe of one instance said so far; another instance or pid begins with a new one.

    Invariant: ``healthy_since_seconds`` is set exactly while ``health`` is HEALTHY.

    Args:
        failure_threshold: Failures in a row that make the instance unhealthy, from 1.
        failures: Failures in a row so far.
        healthy_since_seconds: Monotonic instant of the first success since the last break.
    """

    failure_threshold: int
    health: model.Health = model.Health.UNKNOWN
    failures: int = 0
    healthy_since_seconds: float | None = None

    def seen(self, *, is_success: bool, now_seconds: float) -> HealthWatch:
        """Count one answer, given at a monotonic instant."""
        if is_success:
            since = now_seconds if self.healthy_since_seconds is None else self.healthy_since_seconds
            return replace(self, health=model.Health.HEALTHY, failures=0, healthy_since_seconds=since)
        failures = self.failures + 1
        if failures < self.failure_threshold:
            return replace(self, failures=failures)
        return replace(self, health=model.Health.UNHEALTHY, failures=failures, healthy_since_seconds=None)

    def healthy_for(self, now_seconds: float) -> timedelta:
        """Time without a break until a monotonic instant; zero while it is not healthy."""
        if self.healthy_since_seconds is None:
            return timedelta()
        return timedelta(seconds=max(0.0, now_seconds - self.healthy_since_seconds))
