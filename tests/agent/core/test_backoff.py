from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import backoff

pytestmark = pytest.mark.core

DRAWS = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 10_000), DRAWS)
def test_no_delay_is_longer_than_the_cap(failures: int, draw: float) -> None:
    waiting = backoff.Backoff(failures=failures)
    assert timedelta() <= waiting.delay(draw) <= backoff.CAP


def test_the_ceiling_doubles_with_each_failure_until_the_cap() -> None:
    waiting = backoff.Backoff(base=timedelta(seconds=1), cap=timedelta(seconds=5))
    ceilings = []
    for _ in range(5):
        ceilings.append(waiting.delay(0.5).total_seconds() * 2)
        waiting = waiting.failed()
    assert ceilings == [1, 2, 4, 5, 5]


def test_agents_that_have_reached_the_cap_are_still_spread_over_all_of_it() -> None:
    waiting = backoff.Backoff(failures=100)
    assert [waiting.delay(draw / 4) for draw in range(4)] == [backoff.CAP * draw / 4 for draw in range(4)]


def test_a_reset_begins_again_at_the_base() -> None:
    assert backoff.Backoff().failed().failed().reset() == backoff.Backoff()


def test_a_window_is_filled_from_its_beginning_to_its_end() -> None:
    window = timedelta(minutes=1)
    assert backoff.spread(window, 0) == timedelta()
    assert backoff.spread(window, 0.75) == timedelta(seconds=45)
    assert backoff.spread(-window, 0.75) == timedelta()


@given(DRAWS)
def test_a_heartbeat_comes_a_little_before_its_period_and_never_after(draw: float) -> None:
    period = timedelta(seconds=10)
    assert period * (1 - backoff.PERIOD_JITTER) <= backoff.heartbeat_delay(period, draw) <= period
