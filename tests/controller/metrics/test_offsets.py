"""When a node said something, whatever its clock says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.metrics import offsets


def delays(seed: int, count: int) -> list[float]:
    draw = random.Random(seed)  # noqa: S311 a test's own
    return [0.005 + draw.expovariate(1 / 0.05) for _ in range(count)]


@given(skew=st.floats(-1e6, 1e6), seed=st.integers(0, 1_000))
def test_hours_of_skew_are_found_within_the_shortest_delay(skew: float, seed: int) -> None:
    clock = offsets.ClockOffset()
    taken: list[float] = []
    late = delays(seed, 50)
    for number, delay in enumerate(late):
        sent = 1e9 + 10 * number
        taken.append(clock.corrected(sent + skew, sent + delay) - sent)
    least = min(late[-offsets.MESSAGES_MAX :])
    assert taken[-1] == pytest.approx(least, abs=1e-5)
    assert all(0 <= error <= delay + 1e-5 for error, delay in zip(taken, late, strict=True))


@pytest.mark.parametrize("step", [7_200.0, -7_200.0, 15.0, -15.0])
def test_a_clock_that_is_set_is_followed_at_once_where_it_jumps_past_a_message(step: float) -> None:
    clock = offsets.ClockOffset()
    for number in range(20):
        sent = 1e9 + 10 * number
        skew = step if number >= 10 else 0.0
        assert clock.corrected(sent + skew, sent + 0.02) == pytest.approx(sent + 0.02, abs=1e-6)


def test_a_clock_that_is_set_back_a_little_is_followed_within_so_many_messages() -> None:
    clock = offsets.ClockOffset()
    found = []
    for number in range(20):
        sent = 1e9 + 10 * number
        skew = -3.0 if number >= 10 else 0.0
        found.append(clock.corrected(sent + skew, sent + 0.02) - sent)
    assert found[10] == pytest.approx(-2.98)
    assert found[10 + offsets.MESSAGES_MAX - 1] == pytest.approx(0.02)
    assert found == sorted(found[:10]) + found[10:]


@given(
    skew=st.floats(-1e5, 1e5),
    gaps=st.lists(st.floats(0.1, 60), min_size=2, max_size=30),
    late=st.lists(st.floats(0, 0.09), min_size=30, max_size=30),
)
def test_what_was_said_later_is_never_taken_for_earlier(skew: float, gaps: list[float], late: list[float]) -> None:
    clock, sent, taken = offsets.ClockOffset(), 1e9, []
    for gap, delay in zip(gaps, late, strict=False):
        sent += gap
        taken.append(clock.corrected(sent + skew, sent + delay))
    assert taken == sorted(taken)


def test_a_message_that_is_said_again_was_said_when_it_was_said() -> None:
    clock = offsets.ClockOffset()
    first = clock.corrected(5.0, 6.0)
    assert clock.corrected(5.0, 60.0) == first
