from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import stability

pytestmark = pytest.mark.core


def turned(*at_seconds: float) -> stability.Stability:
    counted = stability.Stability()
    for each in at_seconds:
        counted = counted.turned(each)
    return counted


def test_what_turns_once_too_often_within_the_window_flaps() -> None:
    turns = [float(second) for second in range(stability.TURNS_MAX)]
    assert not turned(*turns).is_flapping(10)
    assert turned(*turns, 9).is_flapping(10)


def test_it_is_over_as_soon_as_enough_turns_have_left_the_window() -> None:
    flapping = turned(*(float(second) for second in range(stability.TURNS_MAX + 1)))
    assert flapping.is_flapping(stability.WINDOW_SECONDS - 0.1)
    assert not flapping.is_flapping(stability.WINDOW_SECONDS)


def test_several_deaths_between_two_looks_count_each() -> None:
    assert stability.Stability().turned(1, stability.TURNS_MAX + 1).is_flapping(1)
    assert not stability.Stability().turned(1, stability.TURNS_MAX).is_flapping(1)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 1000)), max_size=50))
def test_no_more_is_remembered_than_decides(turns: list[tuple[float, int]]) -> None:
    counted = stability.Stability()
    for at_seconds, times in sorted(turns):
        counted = counted.turned(at_seconds, times)
    assert len(counted.turns_seconds) <= stability.TURNS_MAX + 1
