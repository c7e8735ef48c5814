from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from agent.core import model, session, told

pytestmark = pytest.mark.core

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PERIOD = timedelta(seconds=10)
FACTS = model.HelloFacts("boot", "token", "1.0.0", ("driver.handover",), 7)
WEB = model.ComponentStatus("web", "1.0.0", "sha256:a", "sha256:a", model.Health.HEALTHY, timedelta(seconds=3))
LOAD = model.Metric("system.cpu.utilization", "", 0.5)
RUNNING = model.OperationStatus("r/1", 8, "web", model.OperationState.RUNNING, model.Step.FETCH, None, "", "", NOW)
COMMITTED = replace(RUNNING, state=model.OperationState.COMMITTED, step=model.Step.COMMIT)
FETCHED = model.StepRecord("r/1", 1, model.Step.FETCH, NOW, NOW, is_success=True, evidence={})
EVERYTHING = model.Report(metrics=(LOAD,), components=(WEB,), conditions=())
LOW = model.Condition("disk_low", "", "less than 256 MiB are free", NOW)
TEXT = model.LogText(3, "web-1", "a line\n")
WELCOME = session.Welcomed(NOW, "s-1", 3, 1, PERIOD, NOW)


def acknowledged(sequence: int, *, at: datetime = NOW) -> session.Acknowledged:
    return session.Acknowledged(at, sequence, NOW, NOW, PERIOD)


EVENTS: dict[type[session.Event], session.Event] = {
    type(event): event
    for event in (
        session.Opened(NOW, FACTS, EVERYTHING),
        session.Beat(NOW, EVERYTHING),
        session.Read(TEXT),
        session.Lost(),
        WELCOME,
        acknowledged(1),
        session.FullReportRequested(1),
        session.Commanded(model.Proceed("r/1", 8, model.Step.SWITCH, model.Step.COMMIT)),
        session.WentAway(PERIOD),
    )
}


def run(*events: session.Event) -> session.Session:
    """The session after these events."""
    reached = session.Session()
    for event in events:
        reached = session.step(reached, event).session
    return reached


def opened(report: model.Report = EVERYTHING) -> session.Session:
    return run(session.Opened(NOW, FACTS, report), WELCOME)


def beat(at: session.Session, report: model.Report) -> tuple[session.Session, session.SendHeartbeat]:
    decision = session.step(at, session.Beat(NOW, report))
    (sent,) = decision.effects
    assert isinstance(sent, session.SendHeartbeat)
    return decision.session, sent


REACHED = {
    session.State.CLOSED: run(),
    session.State.GREETING: run(session.Opened(NOW, FACTS, EVERYTHING)),
    session.State.OPEN: opened(),
    session.State.LEAVING: run(session.Opened(NOW, FACTS, EVERYTHING), WELCOME, session.WentAway(PERIOD)),
}


@pytest.mark.parametrize("kind", get_args(session.Event), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", session.State, ids=lambda state: state.name)
def test_every_event_either_leads_where_the_table_says_or_raises(
    state: session.State, kind: type[session.Event]
) -> None:
    before = REACHED[state]
    copy = replace(before)
    target = session.TRANSITIONS.get((state, kind))
    if target is None:
        with pytest.raises(session.IllegalMessageError, match="cannot take"):
            session.step(before, EVENTS[kind])
    else:
        assert session.step(before, EVENTS[kind]).session.state is target
    assert before == copy


def test_the_hello_is_message_one_and_tells_everything() -> None:
    decision = session.step(session.Session(), session.Opened(NOW, FACTS, EVERYTHING))
    assert decision.effects == (session.SendHello(1, FACTS, EVERYTHING),)


def test_a_welcome_makes_the_first_heartbeat_due_at_once() -> None:
    decision = session.step(REACHED[session.State.GREETING], WELCOME)
    assert decision.effects == (session.BeatSoon(),)
    assert (decision.session.session_id, decision.session.generation) == ("s-1", 3)


def test_a_welcome_tells_how_the_two_clocks_stand() -> None:
    second = timedelta(seconds=1)
    welcome = replace(WELCOME, at=NOW + 2 * second, server_time=NOW + 11 * second)
    after = session.step(REACHED[session.State.GREETING], welcome).session
    assert after.clock == session.ClockReading(offset=10 * second, round_trip=2 * second)


@pytest.mark.parametrize(
    "message",
    [replace(WELCOME, protocol_version=2), replace(WELCOME, heartbeat_period=timedelta())],
    ids=["another protocol", "no period"],
)
def test_a_welcome_that_cannot_be_lived_with_is_refused(message: session.Welcomed) -> None:
    with pytest.raises(session.IllegalMessageError, match="cannot"):
        session.step(REACHED[session.State.GREETING], message)


def test_what_has_not_changed_is_not_told_again() -> None:
    after, sent = beat(opened(), EVERYTHING)
    assert sent == session.SendHeartbeat(2, NOW, model.Report(), is_full=False)
    _, sent = beat(after, EVERYTHING)
    assert sent.sequence == 3


def test_what_has_changed_is_told_once() -> None:
    sicker = replace(WEB, health=model.Health.UNHEALTHY)
    changed = model.Report(metrics=(replace(LOAD, value=0.6),), components=(sicker,))
    after, sent = beat(opened(), changed)
    assert sent.report == changed
    _, sent = beat(after, changed)
    assert sent.report == model.Report()


def test_a_metric_that_is_shown_no_longer_is_told_as_gone_once_and_told_again_when_it_is_back() -> None:
    silent = replace(EVERYTHING, metrics=())
    after, sent = beat(opened(), silent)
    assert sent.report == model.Report(gone_metrics=(LOAD.key,))
    after, sent = beat(after, silent)
    assert sent.report == model.Report()
    after, sent = beat(after, EVERYTHING)
    assert sent.report == model.Report(metrics=(LOAD,))
    wanted = session.step(after, session.FullReportRequested(2)).session
    assert beat(wanted, silent)[1].report.gone_metrics == ()  # a full report says so by what it lacks


def test_a_counter_of_another_process_is_told_though_its_value_is_the_same() -> None:
    counter = model.Metric("requests_total", "web", 5.0, model.SeriesKind.COUNTER, life=1)
    after, _ = beat(opened(), replace(EVERYTHING, metrics=(LOAD, counter)))
    younger = replace(counter, life=2)
    _, sent = beat(after, replace(EVERYTHING, metrics=(LOAD, younger)))
    assert sent.report == model.Report(metrics=(younger,))


def test_a_component_that_left_is_told_as_removed_once() -> None:
    after, sent = beat(opened(), replace(EVERYTHING, components=()))
    assert sent.report == model.Report(removed=("web",))
    _, sent = beat(after, replace(EVERYTHING, components=()))
    assert sent.report == model.Report()


def test_conditions_are_told_in_full_reports_and_in_deltas_only_when_they_changed() -> None:
    wrong = replace(EVERYTHING, conditions=(LOW,))
    after, sent = beat(opened(), wrong)
    assert sent.report == model.Report(conditions=(LOW,))
    after, sent = beat(after, wrong)
    assert sent.report.conditions is None
    after, sent = beat(after, EVERYTHING)
    assert sent.report == model.Report(conditions=())
    wanted = session.step(after, session.FullReportRequested(2)).session
    assert beat(wanted, EVERYTHING)[1].report.conditions == ()


def test_the_end_of_a_log_is_a_message_of_its_own() -> None:
    decision = session.step(opened(), session.Read(TEXT))
    assert decision.effects == (session.SendLogText(2, TEXT),)
    _, sent = beat(decision.session, EVERYTHING)
    assert sent.sequence == 3


def test_results_are_told_in_every_message_until_one_that_carried_them_is_acknowledged() -> None:
    results = replace(EVERYTHING, operations=(RUNNING,), steps=(FETCHED,))
    after, first = beat(opened(), results)
    after, second = beat(after, results)
    assert first.report == second.report == model.Report(operations=(RUNNING,), steps=(FETCHED,))
    decision = session.step(after, acknowledged(2))
    assert decision.effects == (session.Settle((RUNNING,), (FETCHED,)),)
    _, third = beat(decision.session, results)
    assert third.report == model.Report()


def test_an_acknowledgement_settles_only_what_its_messages_carried() -> None:
    after, _ = beat(opened(), replace(EVERYTHING, operations=(RUNNING,)))
    after, _ = beat(after, replace(EVERYTHING, operations=(COMMITTED,)))
    decision = session.step(after, acknowledged(2))
    assert decision.effects == (session.Settle((RUNNING,), ()),)
    after, sent = beat(decision.session, replace(EVERYTHING, operations=(COMMITTED,)))
    assert sent.report.operations == (COMMITTED,)
    assert session.step(after, acknowledged(4)).effects == (session.Settle((COMMITTED,), ()),)


def test_the_hello_carries_results_too() -> None:
    after = opened(replace(EVERYTHING, operations=(COMMITTED,)))
    assert session.step(after, acknowledged(1)).effects == (session.Settle((COMMITTED,), ()),)


def test_an_acknowledgement_that_says_nothing_new_settles_nothing() -> None:
    after, _ = beat(opened(), replace(EVERYTHING, operations=(COMMITTED,)))
    after = session.step(after, acknowledged(2)).session
    for sequence in (1, 2):
        assert session.step(after, acknowledged(sequence)) == session.Decision(after)


def test_a_result_that_changes_back_is_told_again() -> None:
    after, _ = beat(opened(), replace(EVERYTHING, operations=(RUNNING,)))
    after = session.step(after, acknowledged(2)).session
    after, _ = beat(after, replace(EVERYTHING, operations=(COMMITTED,)))
    after = session.step(after, acknowledged(3)).session
    _, sent = beat(after, replace(EVERYTHING, operations=(RUNNING,)))
    assert sent.report.operations == (RUNNING,)


def test_more_results_than_one_message_holds_follow_once_the_first_are_acknowledged() -> None:
    steps = tuple(replace(FETCHED, index=index) for index in range(1, told.STEPS_MAX + 3))
    results = replace(EVERYTHING, steps=steps)
    after, sent = beat(opened(), results)
    assert sent.report.steps == steps[: told.STEPS_MAX]
    after = session.step(after, acknowledged(2)).session
    _, sent = beat(after, results)
    assert sent.report.steps == steps[told.STEPS_MAX :]


def test_a_controller_that_never_acknowledges_costs_a_bounded_memory() -> None:
    after = opened()
    for index in range(3 * session.CARRIED_MAX):
        after, _ = beat(after, replace(EVERYTHING, operations=(replace(RUNNING, message=str(index)),)))
    assert len(after.carried) == session.CARRIED_MAX


def test_a_request_for_everything_is_answered_soon_and_once() -> None:
    results = replace(EVERYTHING, operations=(RUNNING,))
    settled = session.step(beat(opened(), results)[0], acknowledged(2)).session
    decision = session.step(settled, session.FullReportRequested(2))
    assert decision.effects == (session.BeatSoon(),)
    after, sent = beat(decision.session, results)
    assert sent.is_full
    assert sent.report == results
    assert not beat(after, results)[1].is_full


@pytest.mark.parametrize("sequence", [0, 2])
def test_a_sequence_that_was_never_sent_is_refused(sequence: int) -> None:
    for message in (acknowledged(sequence), session.FullReportRequested(sequence)):
        with pytest.raises(session.IllegalMessageError, match="messages 1 to 1 were sent"):
            session.step(opened(), message)


def test_only_an_acknowledged_heartbeat_proves_a_session() -> None:
    greeted = session.step(opened(), acknowledged(1)).session
    assert not greeted.is_proven
    assert session.step(beat(greeted, EVERYTHING)[0], acknowledged(2)).session.is_proven


def test_an_acknowledgement_tells_the_offset_of_the_clocks_and_the_next_period() -> None:
    after, _ = beat(opened(), EVERYTHING)
    ahead = timedelta(minutes=5)
    came_at = NOW + timedelta(seconds=2)
    ack = session.Acknowledged(came_at, 2, NOW, NOW + timedelta(seconds=1) + ahead, timedelta(seconds=30))
    heard = session.step(after, ack).session
    assert heard.clock == session.ClockReading(offset=ahead, round_trip=timedelta(seconds=2))
    assert heard.heartbeat_period == timedelta(seconds=30)


@pytest.mark.parametrize("echo", [None, NOW + timedelta(seconds=1)], ids=["no echo", "clock was set back"])
def test_an_acknowledgement_without_a_usable_echo_tells_no_offset(echo: datetime | None) -> None:
    after, _ = beat(opened(), EVERYTHING)
    told = replace(acknowledged(2, at=NOW), echo_sent_at=echo, server_time=NOW + timedelta(hours=1))
    assert session.step(after, told).session.clock == after.clock


def test_a_lost_session_keeps_the_clock_reading_and_nothing_that_was_told() -> None:
    after, _ = beat(opened(), replace(EVERYTHING, operations=(RUNNING,)))
    heard = session.step(after, acknowledged(2)).session
    lost = session.step(heard, session.Lost()).session
    assert lost == session.Session(heartbeat_period=PERIOD, clock=heard.clock)
    assert lost.clock is not None


def test_commands_go_to_the_node_and_going_away_ends_the_session() -> None:
    command = model.Cancel("r/1", 8, "reverted")
    assert session.step(opened(), session.Commanded(command)).effects == (session.TakeCommand(command),)
    assert session.step(opened(), session.WentAway(PERIOD)).effects == (session.Leave(PERIOD),)
