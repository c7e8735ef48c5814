"""What scenarios do not show: bounds of instants, what is quiet, what is stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core import model
from controller.core.triggers import draft as drafts
from controller.core.triggers import events, explaining, guards, machine, schedules
from tests.controller.core import scenario
from tests.controller.core.triggers import definitions

pytestmark = pytest.mark.core

START = scenario.START
SECOND = timedelta(seconds=1)
A, B = model.NodeId("a"), model.NodeId("b")


def play(trigger: model.Trigger, *happened: events.Event) -> tuple[model.TriggerStatus, list[drafts.Decision]]:
    status, decisions = machine.begin(trigger, "", START), []
    for event in happened:
        decisions.append(machine.step(trigger, status, event, machine.NOTHING_AROUND))
        status = decisions[-1].status
    return status, decisions


def seen(seconds: int, node_id: model.NodeId = A, *, is_met: bool | None = True) -> events.Seen:
    return events.Seen(START + seconds * SECOND, node_id, is_met, None if is_met is None else not is_met)


def test_what_is_quiet_changes_nothing() -> None:
    trigger = definitions.trigger(replace(definitions.THRESHOLD, pending_for=60 * SECOND))
    status, _ = play(trigger, seen(0))
    assert [machine.is_quiet(status, B, is_met=each) for each in (False, None, True)] == [True, True, False]
    assert not machine.is_quiet(status, A, is_met=False)
    quiet = machine.step(trigger, status, seen(1, B, is_met=False), machine.NOTHING_AROUND)
    assert (quiet.status, quiet.signals, quiet.firings) == (status, {}, ())
    faulty, _ = play(trigger, events.EvaluationFailed(START, "cost_exceeded", "it costs too much"))
    assert not machine.is_quiet(faulty, B, is_met=False)


def test_of_a_signal_that_only_goes_on_no_more_is_stored_than_what_a_restart_needs() -> None:
    trigger = definitions.trigger(replace(definitions.THRESHOLD, pending_for=100 * SECOND, keep_firing_for=70 * SECOND))
    holds = [seen(at) for at in range(0, 200, 10)]
    over = [seen(at, is_met=False) for at in range(200, 280, 10)]
    _, decisions = play(trigger, *holds, *over)
    stored = [at * 10 for at, each in enumerate(decisions) if each.signals]
    assert stored == [0, 30, 60, 90, 100, 200, 230, 260, 270]


def test_a_firing_is_there_once_with_all_that_was_decided_of_it() -> None:
    trigger = definitions.trigger(definitions.THRESHOLD, definitions.UPGRADE)
    status, decisions = play(trigger, seen(0))
    firing = decisions[0].firings[0]
    assert decisions[0].firings == decisions[0].acts == status.open == machine.outstanding(status)
    assert (firing.id, firing.number, firing.attempts) == ("t.1", 1, 1)
    assert (firing.fired_at, firing.released_at) == (START, START)
    assert firing.cause == model.Cause("the condition holds on a", node_ids=(A,))


def test_an_approval_that_was_not_given_is_kept_with_what_became_of_it() -> None:
    approval = model.Guards(approval=model.ApprovalGuard(60 * SECOND), concurrency=model.ConflictPolicy.SUPERSEDE)
    trigger = definitions.trigger(model.ByHand(), guards=replace(approval, cooldown=timedelta(0)))
    fired = [events.FiredByHand(START + each * SECOND, "bob", "") for each in (0, 1)]
    _, decisions = play(trigger, *fired, events.Tick(START + 61 * SECOND))
    states = [(each.number, each.approval.state) for made in decisions for each in made.firings if each.approval]
    state = model.ApprovalState
    assert states == [(1, state.WAITING), (1, state.WITHDRAWN), (2, state.WAITING), (2, state.EXPIRED)]


@pytest.mark.parametrize(
    ("cron", "zone", "after", "due"),
    [
        # Clocks go from 2:00 to 3:00: right after the gap, once, and by the second.
        ("30 2 * * *", "America/New_York", "2026-03-08T06:59:59", "2026-03-08T07:00:00"),
        ("30 2 * * *", "America/New_York", "2026-03-08T07:00:00", "2026-03-09T06:30:00"),
        ("10 30 2 * * *", "America/New_York", "2026-03-08T06:00:00", "2026-03-08T07:00:00"),
        ("0 1-5 * * *", "America/New_York", "2026-03-08T06:30:00", "2026-03-08T07:00:00"),
        ("0 1-5 * * *", "America/New_York", "2026-03-08T07:00:00", "2026-03-08T08:00:00"),
        # They go from 2:00 back to 1:00: once, the first time, also for who asks in the second hour.
        ("30 1 * * *", "America/New_York", "2026-11-01T05:00:00", "2026-11-01T05:30:00"),
        ("30 1 * * *", "America/New_York", "2026-11-01T05:30:00", "2026-11-02T06:30:00"),
        ("30 1 * * *", "America/New_York", "2026-11-01T06:10:00", "2026-11-02T06:30:00"),
        ("0 30 1 * * *", "America/New_York", "2026-11-01T05:30:00", "2026-11-02T06:30:00"),
        # What is due every hour follows the time that passes.
        ("0 * * * *", "America/New_York", "2026-11-01T05:00:00", "2026-11-01T06:00:00"),
        ("*/30 1 * * *", "America/New_York", "2026-11-01T05:30:00", "2026-11-01T06:00:00"),
        # Strictly after, by the microsecond.
        ("0 0 * * *", "UTC", "2026-01-01T00:00:00", "2026-01-02T00:00:00"),
        ("0 0 * * *", "UTC", "2025-12-31T23:59:59.999999", "2026-01-01T00:00:00"),
    ],
)
def test_a_schedule_is_due_strictly_after(cron: str, zone: str, after: str, due: str) -> None:
    found = schedules.next_run(model.Schedule(cron, zone), datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(due).replace(tzinfo=UTC)


def test_a_schedule_that_is_never_due_has_no_next_run() -> None:
    trigger = definitions.trigger(model.Schedule("0 0 */30 2 MON#5"))
    status, _ = play(trigger)
    assert (status.next_run_at, machine.next_deadline(trigger, status, machine.NOTHING_AROUND)) == (None, None)
    found = explaining.explain(trigger, status, machine.NOTHING_AROUND, START)
    assert (found.next_chance_at, found.next_chance) == (None, "never, for it is not due any more")


def test_windows_that_never_open_leave_no_chance() -> None:
    never = model.Guards(windows=(model.Window(timedelta(), SECOND, days=frozenset({9})),))
    trigger = definitions.trigger(model.ByHand(), guards=never)
    status, decisions = play(trigger, events.FiredByHand(START, "bob", ""))
    assert decisions[0].firings[0].reason.message == "no window is open, and none ever opens"
    assert machine.next_deadline(trigger, status, machine.NOTHING_AROUND) == START + trigger.guards.held_max
    found = explaining.explain(trigger, status, machine.NOTHING_AROUND, START)
    assert (found.next_chance_at, found.next_chance) == (None, "firing 1 goes on, and once a window opens")


def test_an_explanation_names_the_guards_in_the_order_in_which_they_are_asked() -> None:
    trigger = definitions.trigger(model.ByHand())
    frozen = guards.Around("freeze f1 holds it", START + 60 * SECOND)
    found = explaining.explain(trigger, machine.begin(trigger, "", START), frozen, START)
    names = ["enabled", "cooldown", "hourly cap", "concurrency", "freeze", "window", "approval"]
    assert [each.name for each in found.guards] == names
    assert [each.name for each in found.guards if not each.is_open] == ["freeze"]
    assert found.guards[4].opens_at == found.next_chance_at == START + 60 * SECOND


def test_an_explanation_takes_notice_of_the_time_though_nobody_else_has_yet() -> None:
    asking = model.Guards(
        cooldown=timedelta(0), concurrency=model.ConflictPolicy.QUEUE, approval=model.ApprovalGuard(60 * SECOND)
    )
    trigger = definitions.trigger(model.ByHand(), guards=asking)
    status, _ = play(trigger, events.FiredByHand(START, "bob", ""))
    for late, is_open in ((59, False), (61, True)):
        found = explaining.explain(trigger, status, machine.NOTHING_AROUND, START + late * SECOND)
        assert found.guards[3].is_open is is_open, late


def test_what_was_over_before_something_came_stands_not_in_its_way_though_nobody_has_looked() -> None:
    asking = model.Guards(cooldown=timedelta(0), approval=model.ApprovalGuard(60 * SECOND))
    trigger = definitions.trigger(model.ByHand(), guards=asking)
    late = events.FiredByHand(START + 61 * SECOND, "bob", "")
    _, decisions = play(trigger, events.FiredByHand(START, "bob", ""), late)
    found = [(each.number, each.reason.code) for each in decisions[-1].firings]
    assert found == [(1, "approval_expired"), (2, "approval_awaited")]


def test_what_was_measured_is_told_of_ten_nodes_those_first_on_which_it_holds() -> None:
    trigger = definitions.trigger(model.ByHand())
    few = [explaining.ValueLine(model.NodeId(f"n{number:02}"), is_met=False, values=()) for number in range(11)]
    one = explaining.ValueLine(model.NodeId("z"), is_met=True, values=(("load", 9.0),))
    known = explaining.explain(trigger, machine.begin(trigger, "", START), machine.NOTHING_AROUND, START, (*few, one))
    assert [each.node_id for each in known.values] == ["z", *(f"n{number:02}" for number in range(9))]
    lines = explaining.lines(known)
    assert "  last on z: load 9; it holds" in lines
    assert "  last on n00: nothing is read; it does not hold" in lines
    assert "  and 2 more nodes" in lines


def test_a_window_that_is_always_open_is_said_to_be() -> None:
    always = model.Guards(windows=(model.Window(timedelta(), timedelta(days=7)),))
    trigger = definitions.trigger(model.ByHand(), guards=always)
    found = explaining.explain(trigger, machine.begin(trigger, "", START), machine.NOTHING_AROUND, START)
    assert found.guards[5].why == "one is always open"
