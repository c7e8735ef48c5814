from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import model, windows

pytestmark = pytest.mark.core

BERLIN = "Europe/Berlin"
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def utc(month: int, day: int, hour: float = 0, year: int = 2026) -> datetime:
    return datetime(year, month, day, tzinfo=UTC) + timedelta(hours=hour)


def window(opens: float, lasts: float, *days: int, zone: str = "UTC") -> model.Window:
    return model.Window(timedelta(hours=opens), timedelta(hours=lasts), frozenset(days), zone)


NIGHT = (window(22, 8, zone=BERLIN),)


@pytest.mark.parametrize(
    ("night", "closes"),
    [
        (utc(1, 10, 21), utc(1, 11, 5)),  # winter
        (utc(7, 10, 20), utc(7, 11, 4)),  # summer
        (utc(3, 28, 21), utc(3, 29, 4)),  # the night that has an hour less
        (utc(10, 24, 20), utc(10, 25, 5)),  # the night that has an hour more
    ],
)
def test_a_night_ends_at_six_on_the_wall_whatever_the_season(night: datetime, closes: datetime) -> None:
    assert windows.opens_at(NIGHT, night - HOUR) == night
    assert windows.closes_at(NIGHT, night + HOUR) == closes
    assert windows.opens_at(NIGHT, closes) == night + timedelta(days=1) - _shift(night)


def _shift(night: datetime) -> timedelta:
    """How much earlier the next evening is, by the clock of the world."""
    return {utc(3, 28, 21): HOUR, utc(10, 24, 20): -HOUR}.get(night, timedelta())


def test_a_window_that_opens_in_the_skipped_hour_opens_at_its_end_and_is_as_long_as_ever() -> None:
    skipped = (window(2.5, 0.5, zone=BERLIN),)
    assert windows.opens_at(skipped, utc(3, 29)) == utc(3, 29, 1)
    assert windows.closes_at(skipped, utc(3, 29, 1)) == utc(3, 29, 1.5)
    assert windows.opens_at(skipped, utc(3, 29, 1.5)) == utc(3, 30, 0.5)


def test_a_window_that_closes_in_the_skipped_hour_closes_at_its_end() -> None:
    assert windows.closes_at((window(1, 1.5, zone=BERLIN),), utc(3, 29, 0.5)) == utc(3, 29, 1)


def test_a_window_opens_once_in_the_hour_that_comes_twice() -> None:
    twice = (window(2.25, 0.5, zone=BERLIN),)
    assert windows.opens_at(twice, utc(10, 24, 23)) == utc(10, 25, 0.25)
    assert windows.closes_at(twice, utc(10, 25, 0.25)) == utc(10, 25, 0.75)
    assert windows.opens_at(twice, utc(10, 25, 0.75)) == utc(10, 26, 1.25)


def test_the_day_is_that_of_the_zone() -> None:
    monday = (window(0, 1, 1, zone="Pacific/Auckland"),)  # thirteen hours ahead of the world in January
    assert windows.opens_at(monday, utc(1, 1)) == utc(1, 4, 11)


def test_without_windows_it_is_always_open() -> None:
    assert windows.opens_at((), utc(1, 1)) == utc(1, 1)
    assert windows.closes_at((), utc(1, 1)) is None
    assert windows.is_open((), utc(1, 1), for_=timedelta(days=999))
    assert windows.longest((), utc(1, 1)) is None


def test_windows_that_touch_are_one_and_may_have_no_end() -> None:
    halves = (window(0, 12), window(12, 12))
    assert windows.closes_at(halves, utc(1, 1, 3)) is None
    assert windows.closes_at((window(0, 24, zone=BERLIN),), utc(10, 20)) is None
    assert windows.closes_at((window(0, 168, 1),), utc(1, 1)) is None
    assert windows.is_open(halves, utc(1, 1, 3), for_=timedelta(days=99))
    assert windows.longest(halves, utc(1, 1)) is None


def test_windows_that_overlap_close_together() -> None:
    both = (window(8, 4), window(11, 6), window(20, 1))
    assert windows.closes_at(both, utc(1, 1, 9)) == utc(1, 1, 17)
    assert windows.longest(both, utc(1, 1)) == timedelta(hours=9)


def test_a_window_without_a_day_that_exists_never_opens() -> None:
    never = (window(8, 4, 9),)
    assert windows.opens_at(never, utc(1, 1)) is None
    assert not windows.is_open(never, utc(1, 1), for_=timedelta())
    assert windows.longest(never, utc(1, 1)) == timedelta()


def test_it_is_closed_where_none_contains_the_instant() -> None:
    assert windows.closes_at((window(8, 4),), utc(1, 1, 13)) == utc(1, 1, 13)
    assert not windows.is_open((window(8, 4),), utc(1, 1, 12), for_=timedelta())


def test_what_would_not_end_in_the_window_finds_it_closed() -> None:
    assert windows.is_open((window(8, 4),), utc(1, 1, 11), for_=HOUR)
    assert not windows.is_open((window(8, 4),), utc(1, 1, 11), for_=HOUR + MINUTE)


def test_the_longest_stretch_is_found_whatever_the_day() -> None:
    week = (window(8, 4, 1), window(20, 30, 4), window(1, 2))
    for day in range(1, 15):
        assert windows.longest(week, utc(1, day, 13)) == timedelta(hours=31)


def test_a_weekend_lasts_from_friday_to_monday() -> None:
    weekend = (window(18, 60, 5, zone=BERLIN),)
    friday = utc(1, 2, 17)
    assert windows.opens_at(weekend, utc(1, 1)) == friday
    assert windows.closes_at(weekend, utc(1, 4)) == friday + timedelta(hours=60)


each_window = st.builds(
    window,
    st.integers(0, 23),
    st.sampled_from([0.25, 1, 5, 23, 24, 30, 168]),
    st.integers(1, 7),
    st.integers(1, 7),
    zone=st.sampled_from(["UTC", BERLIN, "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]),
)
instants = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 zones follow


@given(st.lists(each_window, min_size=1, max_size=3).map(tuple), instants, st.floats(0, 1))
def test_it_is_open_from_each_opening_to_its_closing_and_closed_from_there_to_the_next(
    some: tuple[model.Window, ...], at: datetime, share: float
) -> None:
    opens = windows.opens_at(some, at)
    assert opens is not None
    assert at <= opens <= at + timedelta(days=8)
    if opens > at:
        between = at + (opens - at) * share * 0.999
        assert not windows.is_open(some, between, for_=timedelta())
        assert windows.opens_at(some, between) == opens
    closes = windows.closes_at(some, opens)
    if closes is not None:
        assert closes > opens
        assert windows.is_open(some, opens + (closes - opens) * share * 0.999, for_=timedelta())
        assert not windows.is_open(some, closes, for_=timedelta())
