"""Identities that sort as time does, and the clock that may be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from controller import clock

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_rollout_identities_sort_by_the_millisecond_in_which_they_were_made() -> None:
    ids = clock.RandomIds()
    made = [ids.rollout_id(_NOW + timedelta(milliseconds=number)) for number in range(2000)]
    assert made == sorted(made)


def test_identities_of_freezes_sort_as_well_and_are_told_apart_from_those_of_rollouts() -> None:
    ids = clock.RandomIds()
    made = [ids.freeze_id(_NOW + timedelta(milliseconds=number)) for number in range(2000)]
    assert made == sorted(set(made))
    assert {(len(each), each[:2]) for each in made} == {(18, "f-")}


def test_rollout_identities_of_one_instant_differ_and_are_short() -> None:
    ids = clock.RandomIds()
    made = {ids.rollout_id(_NOW) for _ in range(1000)}
    assert len(made) == 1000
    assert {len(each) for each in made} == {18}


def test_the_clock_is_aware_and_its_monotonic_side_never_goes_back() -> None:
    system = clock.SystemClock()
    before = system.monotonic()
    assert system.now().tzinfo is UTC
    assert system.monotonic() >= before
