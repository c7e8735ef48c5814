from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.analysis import looks

pytestmark = pytest.mark.core

spans = st.timedeltas(timedelta(0), timedelta(days=2))
HOUR = looks.Schedule(timedelta(minutes=1), timedelta(hours=1))


def test_looks_lie_half_as_far_again_and_end_at_the_end() -> None:
    minutes = [round(at / timedelta(minutes=1), 1) for at in HOUR.instants()]
    assert minutes == [1, 1.5, 2.3, 3.4, 5.1, 7.7, 11.7, 17.6, 26.5, 39.8, 60]


def test_an_instant_belongs_to_its_look() -> None:
    assert HOUR.number(timedelta(seconds=59)) == 0
    assert [HOUR.number(at) for at in HOUR.instants()] == list(range(1, 12))


def test_great_harm_is_looked_for_first() -> None:
    assert HOUR.share(timedelta(0)) == HOUR.share(timedelta(minutes=1)) == pytest.approx(0.15 + 0.7 / 11)
    assert HOUR.share(timedelta(hours=1)) == pytest.approx(0.3 / 132 + 0.7 / 11)
    assert HOUR.share(timedelta(hours=2)) == pytest.approx(0.3 / 156)


@given(spans, spans)
def test_all_looks_together_spend_no_more_than_there_is(first: timedelta, end: timedelta) -> None:
    schedule = looks.Schedule(first, end)
    at, spent, last = timedelta(milliseconds=1), 0.0, 0
    while at < timedelta(days=400):
        if schedule.number(at) > last:
            last = schedule.number(at)
            spent += schedule.share(at)
        at *= 1.2
    assert spent <= 1 + 1e-9
