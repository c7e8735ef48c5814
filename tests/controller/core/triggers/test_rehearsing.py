from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from controller.core import model
from controller.core.triggers import events, rehearsing
from tests.controller.core import scenario
from tests.controller.core.triggers import definitions

pytestmark = pytest.mark.core

START = scenario.START
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NODE = model.NodeId("a")


def seen(*spans: tuple[int, int], every: timedelta = MINUTE / 2, hours: int = 2) -> Iterator[events.Seen]:
    """A heartbeat twice a minute; the condition holds within the spans, given in minutes."""
    for number in range(int(hours * HOUR / every)):
        at = number * every
        is_met = any(begin * MINUTE <= at < end * MINUTE for begin, end in spans)
        yield events.Seen(START + at, NODE, is_met, not is_met)


def told(trigger: model.Trigger, sights: Iterator[events.Event], hours: int = 2) -> list[str]:
    return list(rehearsing.lines(rehearsing.rehearse(trigger, sights, START, START + hours * HOUR)))


def test_a_schedule_would_have_fired_at_each_of_its_instants_though_nothing_was_recorded() -> None:
    trigger = replace(definitions.trigger(model.Schedule("0 2 * * *")), is_enabled=False, changed_at=START + 9 * HOUR)
    assert told(trigger, iter(()), hours=28) == [
        "would have fired twice between 2026-01-01T00:00:00+00:00 and 2026-01-02T04:00:00+00:00",
        "  2026-01-01T02:00:00+00:00  fires:  it was due at 2026-01-01T02:00:00+00:00",
        "  2026-01-02T02:00:00+00:00  fires:  it was due at 2026-01-02T02:00:00+00:00",
        "note: freezes are not taken into account",
    ]


def test_what_would_have_been_held_or_dropped_is_told_with_its_reason() -> None:
    guards = model.Guards(cooldown=30 * MINUTE, approval=model.ApprovalGuard(HOUR))
    trigger = definitions.trigger(definitions.THRESHOLD, definitions.UPGRADE, guards)
    assert told(trigger, seen((10, 20), (25, 50), (55, 58))) == [
        "would have fired twice between 2026-01-01T00:00:00+00:00 and 2026-01-01T02:00:00+00:00",
        "  2026-01-01T00:10:00+00:00  fires:  the condition holds on a",
        "  2026-01-01T00:25:00+00:00  fires at 2026-01-01T00:40:00+00:00:  the condition holds on a",
        "  2026-01-01T00:55:00+00:00  DROPPED, the condition is over:  the condition holds on a",
        "note: each action is taken to succeed at once, though a rollout takes its time and may fail",
        "note: each approval is taken to be given at once",
        "note: freezes are not taken into account",
    ]


def test_what_is_still_held_at_the_end_is_told_as_it_stands() -> None:
    guards = model.Guards(windows=(model.Window(22 * HOUR, HOUR),))
    found = told(definitions.trigger(definitions.THRESHOLD, guards=guards), seen((10, 20)))
    assert found[:2] == [
        "would have fired 0 times between 2026-01-01T00:00:00+00:00 and 2026-01-01T02:00:00+00:00",
        "  2026-01-01T00:10:00+00:00  DROPPED, the condition is over:  the condition holds on a",
    ]
    found = told(definitions.trigger(definitions.THRESHOLD, guards=guards), seen((110, 120)))
    assert "  HELD, no window is open, until 2026-01-01T22:00:00+00:00:" in found[1]


def test_a_version_that_was_available_before_is_no_occasion() -> None:
    moves = [
        events.Moved(START + each, version)
        for each, version in ((-HOUR, "1.0.0"), (0 * HOUR, "1.0.0"), (HOUR, "1.1.0"))
    ]
    found = told(definitions.trigger(definitions.CHANNEL), iter(moves))
    assert found[0].startswith("would have fired once ")
    assert "channel stable points to web 1.1.0" in found[1]


def test_what_was_recorded_outside_of_the_time_counts_for_nothing() -> None:
    event = model.ReceivedEvent("ci", "e1", "build.done")
    sights = [events.Arrived(START + each * HOUR, event) for each in (-1, 0, 2, 3)]
    found = rehearsing.rehearse(definitions.trigger(model.EventMatch("build.done")), sights, START, START + 2 * HOUR)
    assert [each.fired_at for each in found.firings] == [START, START + 2 * HOUR]
    assert (found.since, found.until) == (START, START + 2 * HOUR)


def test_time_passes_between_what_was_recorded() -> None:
    event = model.ReceivedEvent("ci", "e1", "build.done")
    trigger = definitions.trigger(model.EventMatch("build.done", debounce=MINUTE))
    sights = [events.Arrived(START, event), events.Arrived(START + HOUR, event)]
    found = rehearsing.rehearse(trigger, sights, START, START + 2 * HOUR)
    assert [each.fired_at for each in found.firings] == [START + MINUTE, START + HOUR + MINUTE]


def test_after_an_evaluation_that_fails_nobody_looks_for_as_long_as_it_rests() -> None:
    instants = (START, START + 5 * MINUTE)
    failed = [events.EvaluationFailed(each, "cost_exceeded", "it costs too much") for each in instants]
    happened: list[events.Event] = [*failed, *seen((1, 30))]
    sights = sorted(happened, key=lambda each: each.at)
    found = told(definitions.trigger(definitions.THRESHOLD), iter(sights))
    assert found[1] == "  2026-01-01T00:10:00+00:00  fires:  the condition holds on a"
    assert found[2] == "note: once an evaluation would have failed, after each of which it rests"


def test_a_rehearsal_of_too_many_firings_ends_early_and_says_so() -> None:
    guards = model.Guards(cooldown=timedelta(0))
    trigger = definitions.trigger(model.Schedule("* * * * * *"), guards=guards)
    found = rehearsing.rehearse(trigger, iter(()), START, START + 24 * HOUR)
    assert len(found.firings) == rehearsing.FIRINGS_MAX
    assert found.until == START + timedelta(seconds=rehearsing.FIRINGS_MAX)
    assert found.notes[-1] == "it was given up at 2026-01-01T02:46:40+00:00, after 10000 firings"
    more = rehearsing.rehearse(trigger, seen(hours=24), START, START + 24 * HOUR)
    assert more.until == found.until


def test_days_of_quiet_heartbeats_are_no_steps() -> None:
    trigger = definitions.trigger(definitions.THRESHOLD)
    many = seen((100, 101), every=timedelta(milliseconds=10), hours=1)
    found = rehearsing.rehearse(trigger, (each for each in many), START, START + 2 * HOUR)
    assert (found.firings, found.until) == ((), START + 2 * HOUR)
