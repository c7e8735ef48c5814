"""What holds of the operation machine whatever happens to it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import effects, events, machine, model, operation, transitions
from tests.agent.core import stories

pytestmark = pytest.mark.core
MOMENTS = st.integers(0, 200).map(stories.at)
STEPS = st.sampled_from(model.Step)
FAULTS = st.sampled_from(model.Fault)
HOLDS = st.sampled_from([model.Step.SWITCH, model.Step.COMMIT])
EVENTS: st.SearchStrategy[events.Event] = st.one_of(
    st.builds(events.Began, MOMENTS),
    st.builds(events.Succeeded, MOMENTS, STEPS),
    st.builds(events.Failed, MOMENTS, STEPS, FAULTS, st.just("reason"), st.just("cannot")),
    st.builds(events.RolledBack, MOMENTS, FAULTS, st.just("rolled_back"), st.just("cannot")),
    st.builds(events.Recovered, MOMENTS, st.sampled_from(events.KeeperDecision)),
    st.builds(events.Ticked, MOMENTS),
    st.builds(
        events.Observed,
        MOMENTS,
        st.sampled_from(model.Health),
        st.integers(0, 20).map(lambda seconds: timedelta(seconds=seconds)),
        st.integers(0, 20),
    ),
    st.builds(events.InstanceLost, MOMENTS, st.just("cannot")),
    st.builds(events.Proceeded, MOMENTS, HOLDS, st.none() | HOLDS),
    st.builds(events.Cancelled, MOMENTS, st.just("so")),
    st.builds(events.Superseded, MOMENTS),
)
CHANGING = {model.ChangeKind.INSTALL, model.ChangeKind.UPGRADE}
ASSIGNMENTS = st.sampled_from(
    [
        stories.assignment(kind=kind, hold_before=hold, to_digest=stories.NEW if kind in CHANGING else "")
        for kind in model.ChangeKind
        for hold in (None, model.Step.SWITCH, model.Step.COMMIT)
    ]
)
PATIENT = st.lists(EVENTS, max_size=40)
NOT_RETURNING = {
    transitions.Phase.SETTLING,
    transitions.Phase.PERMANENT,
    transitions.Phase.UNWELL,
    transitions.Phase.SUPERSEDED,
}


def journey(assignment: model.Assignment, told: Sequence[events.Event]) -> list[operation.Decision]:
    """All decisions; what is illegal is left out, and must have changed nothing."""
    decisions = [operation.accept(assignment, stories.at(0))]
    for event in _helped(told):
        before = decisions[-1].state
        try:
            decisions.append(machine.step(before, event))
        except machine.IllegalEventError:
            assert type(event) not in transitions.TRANSITIONS[before.phase] or isinstance(
                event, events.Succeeded | events.Failed
            )
    return decisions


def _helped(told: Sequence[events.Event]) -> list[events.Event]:
    """Mix in what brings an operation forward, since chance alone seldom leaves FETCH."""
    forward: list[events.Event] = [events.Began(stories.at(0))]
    forward += [events.Succeeded(stories.at(1), step) for step in stories.STEPS_UNTIL_SOAK]
    mixed: list[events.Event] = []
    for index, event in enumerate(told):
        mixed += forward[index * 2 : index * 2 + 2]
        mixed.append(event)
    return mixed


@given(ASSIGNMENTS, PATIENT)
def test_what_is_committed_is_never_undone(assignment: model.Assignment, told: list[events.Event]) -> None:
    phases = [decision.state.phase for decision in journey(assignment, told)]
    committed = next((index for index, phase in enumerate(phases) if phase in NOT_RETURNING), len(phases))
    assert set(phases[committed:]) <= NOT_RETURNING


@given(ASSIGNMENTS, PATIENT)
def test_what_ended_stays_as_it_ended(assignment: model.Assignment, told: list[events.Event]) -> None:
    states = [decision.state for decision in journey(assignment, told)]
    ended = next((index for index, state in enumerate(states) if state.phase in transitions.TERMINAL), len(states))
    assert len(set(map(repr, states[ended:]))) <= 1


@given(ASSIGNMENTS, PATIENT)
def test_nothing_but_the_keepers_decision_passes_a_hold_that_stands(
    assignment: model.Assignment, told: list[events.Event]
) -> None:
    passes = {transitions.Phase.SWITCH: {model.Step.SWITCH}, transitions.Phase.COMMIT: {model.Step.COMMIT}}
    if assignment.kind in transitions.ENDING:
        passes[transitions.Phase.COMMIT] = {model.Step.SWITCH, model.Step.COMMIT}
    decisions = journey(assignment, [event for event in told if not _is_committed(event)])
    for before, after in itertools.pairwise(decision.state for decision in decisions):
        if after.phase is not before.phase:
            assert after.assignment.hold_before not in passes.get(after.phase, set())


def _is_committed(event: events.Event) -> bool:
    return isinstance(event, events.Recovered) and event.decision is events.KeeperDecision.COMMITTED


@given(ASSIGNMENTS, PATIENT)
def test_steps_are_recorded_once_each_and_in_order(assignment: model.Assignment, told: list[events.Event]) -> None:
    decisions = journey(assignment, told)
    indexes = [record.index for decision in decisions for record in decision.records]
    assert indexes == list(range(1, len(indexes) + 1))
    assert decisions[-1].state.steps_ended == len(indexes)


@given(ASSIGNMENTS, PATIENT)
def test_whatever_failed_says_whose_fault_it_was(assignment: model.Assignment, told: list[events.Event]) -> None:
    status = operation.status(journey(assignment, told)[-1].state)
    if status.state in {model.OperationState.ABORTED, model.OperationState.REFUSED}:
        assert status.fault is not None
        assert status.reason
    if status.state is model.OperationState.PERMANENT:
        assert status.fault is None


@given(ASSIGNMENTS, PATIENT, st.sampled_from(events.KeeperDecision))
def test_after_a_crash_at_any_point_the_outcome_is_old_or_new(
    assignment: model.Assignment, told: list[events.Event], decision: events.KeeperDecision
) -> None:
    crashed = journey(assignment, told)[-1].state
    if crashed.phase in transitions.TERMINAL:
        return
    ended = _finish(machine.step(crashed, events.Recovered(stories.at(300), decision)))
    is_new = ended.phase in NOT_RETURNING
    assert is_new or ended.phase is transitions.Phase.ABORTED
    if crashed.phase is transitions.Phase.SETTLING or decision is events.KeeperDecision.COMMITTED:
        assert is_new or crashed.phase is transitions.Phase.ABORTING


def _finish(decision: operation.Decision) -> operation.Operation:
    """Do all that is owed, successfully, until the operation has ended."""
    owed: list[effects.Effect] = list(decision.effects)
    state = decision.state
    while state.phase not in transitions.TERMINAL:
        event: events.Event = events.Observed(stories.at(300), model.Health.HEALTHY, timedelta(days=1), 100)
        if owed:
            effect = owed.pop(0)
            step = effect.step if isinstance(effect, effects.Perform) else model.Step.BAKE
            event = events.Succeeded(stories.at(300), step)
        decision = machine.step(state, event)
        owed += decision.effects
        state = decision.state
    return state


def test_what_a_step_tells_is_bounded_and_why_it_failed_is_never_cut_off() -> None:
    told = {f"key-{number:02}": "x" * 9999 for number in range(99)}
    story = stories.Story().begins().succeeds(model.Step.FETCH, told)
    failed = events.Failed(story.now(), model.Step.VERIFY, model.Fault.VERSION, "bad", "y" * 9999, told)
    story.happens(failed)
    for record in story.records:
        assert len(record.evidence) == 16
        assert max(map(len, record.evidence.values())) == 1024
    assert story.records[-1].evidence["reason"] == "bad"
    assert len(story.status.message) == 512
