"""What no sequence of events may bring about, and what every sequence must lead to."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core import effects, errors, events, invariants, model, planner, progress, requests, rollout
from tests.controller.core import scenario

pytestmark = pytest.mark.core

NODES = ("a", "b", "c", "d", "e")
ROUNDS_MAX = 60  # far more than any rollout of five nodes needs once its nodes answer

EXPLORED = settings(max_examples=40)  # each is a whole life of a rollout
State = model.OperationState
R = model.RolloutState
ALLOWED = {events.Began: {R.PENDING}, events.RevertRequested: {R.RUNNING, R.SUCCEEDED, R.FAILED}}
policies = st.builds(
    model.Policy,
    max_parallel=st.integers(0, 3),
    max_failures=st.integers(0, 2),
    unknown_deadline=st.sampled_from([timedelta(seconds=20), timedelta(minutes=5)]),
    healthy_deadline=st.just(timedelta(minutes=1)),
    progress_deadline=st.just(timedelta(minutes=4)),
)


@st.composite
def rollouts(draw: st.DrawFn) -> model.Rollout:
    """An accepted rollout over one to five nodes; in some of version some lack the component, or have no way back."""
    kind = draw(st.sampled_from([None, None, *requests.KINDS]))
    names = NODES[: draw(st.integers(1, len(NODES)))]
    versions = ["1.0.0", "1.0.0", ""] if kind is None else ["1.0.0"]
    is_stopped = kind is model.ChangeKind.START
    nodes = [stopped(scenario.node(name, draw(st.sampled_from(versions))), is_stopped=is_stopped) for name in names]
    is_canary = draw(st.booleans())
    request = model.UpgradeRequest(
        component=model.ComponentName("web"),
        target_version="" if kind else "1.1.0",
        strategy=model.Strategy.CANARY if is_canary else model.Strategy.IMMEDIATE,
        policy=replace(draw(policies), restart_allowed=True),
        install=kind is None,
        name="spring",
        kind=kind,
    )
    old = scenario.release("1.0.0", schema="1")
    new = scenario.release("1.1.0", schema=draw(st.sampled_from("12")), migrations="1>2")
    plan = planner.plan(request, nodes, [old, new])
    return rollout.create(model.RolloutId("r1"), request, plan, actor="ann", at=scenario.START)


def stopped(node: model.Node, *, is_stopped: bool) -> model.Node:
    components = {name: replace(each, is_stopped=is_stopped) for name, each in node.components.items()}
    return replace(node, components=components)


class Script:
    """Draws one event after the other, each a little later than the one before."""

    def __init__(self, data: st.DataObject, state: model.Rollout, *, is_version_sound: bool = False) -> None:
        self.draw = data.draw
        self.state = state
        self.at = scenario.START
        faults = [model.Fault.INFRASTRUCTURE, model.Fault.COMMAND, None]
        self.faults = st.sampled_from(faults if is_version_sound else [model.Fault.VERSION, *faults])
        states = [each for each in State if not (is_version_sound and each is State.COMMITTED)]
        self.states = st.sampled_from(states)
        self.kinds = ["begin", "report", "report", "report", "report", "tick", "due", "absent"]
        self.kinds += [] if is_version_sound else ["revert"]

    def event(self) -> events.Event:
        self.at += timedelta(seconds=self.draw(st.sampled_from([0, 1, 7, 45])))
        match self.draw(st.sampled_from(self.kinds)):
            case "begin":
                return events.Began(self.at)
            case "tick":
                return events.Ticked(self.at)
            case "due":
                self.at = max(self.at, rollout.next_deadline(self.state) or self.at)
                return events.Ticked(self.at)
            case "absent":
                since, self.at = self.at, self.at + timedelta(minutes=self.draw(st.integers(0, 9)))
                return events.ControllerAbsent(since, self.at, self.at + timedelta(minutes=1))
            case "revert":
                return events.RevertRequested(self.at, "ann", "order")
            case _:
                return self.report()

    def report(self) -> events.NodeReported:
        key = self.draw(st.sampled_from(sorted(self.state.changes, key=repr)))
        statuses = (self.status(self.state.changes[key]),) if self.draw(st.booleans()) else ()
        version, healthy_for = self.draw(st.sampled_from(["1.0.0", "1.1.0"])), self.draw(st.sampled_from([0, 10]))
        runs = replace(scenario.installed(version, timedelta(seconds=healthy_for)), is_stopped=self.draw(st.booleans()))
        is_full = self.draw(st.booleans())
        components = (runs,) if self.draw(st.booleans()) else ()
        conditions = self.draw(st.sampled_from([(), (), (scenario.condition("journal_failed"),)]))
        return events.NodeReported(self.at, key.node_id, statuses, components, is_full, conditions)

    def status(self, at: model.Progress) -> model.OperationStatus:
        latest = at.operation_id or model.OperationId("r1/0/nobody/web/forward/1")
        operation_id = self.draw(st.sampled_from([latest, latest, model.OperationId(latest[:-1] + "0")]))
        state, fault = self.draw(self.states), self.draw(self.faults)
        return status(operation_id, state, fault)


def status(operation_id: model.OperationId, state: State, fault: model.Fault | None) -> model.OperationStatus:
    reason = "because" if fault else ""
    name = model.ComponentName("web")
    return model.OperationStatus(operation_id, 1, name, state, None, fault, reason, "", scenario.START)


def play(data: st.DataObject, script: Script) -> list[rollout.Decision]:
    """Take up to forty events, checking every state on the way."""
    decisions = []
    for _ in range(data.draw(st.integers(0, 40))):
        event = script.event()
        try:
            decision = rollout.step(script.state, event)
        except (errors.IllegalEventError, errors.RefusedError):
            continue
        assert not invariants.violations(decision.rollout)
        script.state = decision.rollout
        decisions.append(decision)
    return decisions


@EXPLORED
@given(st.data(), rollouts())
def test_the_invariants_hold_after_any_sequence_of_events(data: st.DataObject, state: model.Rollout) -> None:
    play(data, Script(data, state))


@EXPLORED
@given(st.data(), rollouts())
def test_only_planned_changes_and_what_undoes_them_are_asked_of_nodes(
    data: st.DataObject, state: model.Rollout
) -> None:
    planned = {change for wave in state.plan.waves for change in wave.changes}
    undone = {progress.undo(change) for change in planned}
    for decision in play(data, Script(data, state)):
        for effect in decision.effects:
            if isinstance(effect, effects.Assign):
                assert effect.change in (undone if effect.is_reverting else planned)


@EXPLORED
@given(st.data(), rollouts())
def test_no_operation_is_ever_asked_for_twice(data: st.DataObject, state: model.Rollout) -> None:
    asked = [
        effect.operation_id
        for decision in play(data, Script(data, state))
        for effect in decision.effects
        if isinstance(effect, effects.Assign)
    ]
    assert len(asked) == len(set(asked))


@EXPLORED
@given(st.data(), rollouts())
def test_a_step_begins_nothing_beyond_the_slots_that_are_free(data: st.DataObject, state: model.Rollout) -> None:
    script = Script(data, state)
    bound = state.request.policy.max_parallel or len(state.changes)
    for decision in play(data, script):
        begun = [each for each in decision.effects if isinstance(each, effects.Assign) and not each.is_reverting]
        tally = decision.rollout.tally
        if begun and decision.rollout.state is R.RUNNING:
            assert tally.holding + tally.settling <= bound


@EXPLORED
@given(st.data(), rollouts())
def test_a_step_names_exactly_the_changes_that_differ(data: st.DataObject, state: model.Rollout) -> None:
    before = state
    for decision in play(data, Script(data, state)):
        differing = {key for key in before.changes if before.changes[key] != decision.rollout.changes[key]}
        assert differing <= set(decision.changed)
        assert len(decision.changed) == len(set(decision.changed))
        assert (decision.rollout is before) is (decision.rollout == before)
        before = decision.rollout


@EXPLORED
@given(st.data(), rollouts())
def test_an_illegal_event_raises_and_changes_nothing(data: st.DataObject, state: model.Rollout) -> None:
    script = Script(data, state)
    play(data, script)
    before = script.state
    fields = {name: getattr(before, name) for name in model.Rollout.__slots__}
    for order in (events.Began(script.at), events.RevertRequested(script.at, "ann", "order")):
        is_allowed = before.state in ALLOWED[type(order)]
        touched = [each for each in before.changes.values() if each.is_touched]
        if is_allowed and isinstance(order, events.RevertRequested) and not has_way_back(touched):
            with pytest.raises(errors.RefusedError, match=r"cannot revert .* no way leads back"):
                rollout.step(before, order)
        elif is_allowed:
            assert rollout.step(before, order).rollout is not before
        else:
            with pytest.raises(errors.IllegalEventError, match=f"cannot take .* is {before.state.value}"):
                rollout.step(before, order)
        assert fields == {name: getattr(before, name) for name in model.Rollout.__slots__}


def has_way_back(touched: list[model.Progress]) -> bool:
    return not touched or any(not each.change.no_way_back for each in touched)


@EXPLORED
@given(st.data(), rollouts())
def test_words_about_other_operations_change_nothing(data: st.DataObject, state: model.Rollout) -> None:
    script = Script(data, state)
    play(data, script)
    for key, each in script.state.changes.items():
        if each.operation_id is None or script.state.state is not R.RUNNING:
            continue
        stale = status(model.OperationId(each.operation_id + "0"), State.ABORTED, model.Fault.VERSION)
        decision = rollout.step(script.state, events.NodeReported(each.assigned_at or script.at, key.node_id, (stale,)))
        assert each.fault is model.Fault.VERSION or decision.rollout.changes[key].fault is not model.Fault.VERSION
        assert not any(isinstance(effect, effects.RememberBad) for effect in decision.effects)


@EXPLORED
@given(st.data(), rollouts())
def test_without_evidence_against_the_version_nothing_goes_back(data: st.DataObject, state: model.Rollout) -> None:
    script = Script(data, state, is_version_sound=True)
    for decision in play(data, script):
        assert decision.rollout.state not in (R.REVERTING, R.REVERTED)
        assert not any(isinstance(effect, effects.RememberBad) for effect in decision.effects)


@EXPLORED
@given(st.data(), rollouts())
def test_every_rollout_ends_once_its_nodes_answer(data: st.DataObject, state: model.Rollout) -> None:
    script = Script(data, state)
    play(data, script)
    at, current = script.at, script.state
    if current.state is R.PENDING:
        current = rollout.step(current, events.Began(at)).rollout
    for _ in range(ROUNDS_MAX):
        if current.state.is_terminal:
            break
        at += timedelta(seconds=10)
        for key in sorted(current.changes, key=repr):
            current = rollout.step(current, answer(current, key, at)).rollout
        current = rollout.step(current, events.Ticked(at)).rollout
    assert current.state.is_terminal
    assert rollout.next_deadline(current) is None
    assert rollout.outstanding(current) == ()


@EXPLORED
@given(st.data(), rollouts())
def test_every_rollout_ends_though_its_nodes_are_silent(data: st.DataObject, state: model.Rollout) -> None:
    script = Script(data, state)
    play(data, script)
    current = script.state
    if current.state is R.PENDING:
        current = rollout.step(current, events.Began(script.at)).rollout
    for _ in range(ROUNDS_MAX):
        due = rollout.next_deadline(current)
        if due is None:
            break
        current = rollout.step(current, events.Ticked(due)).rollout
    assert current.state.is_terminal


def answer(state: model.Rollout, key: model.ChangeKey, at: datetime) -> events.NodeReported:
    """Say that the latest operation of a node is done; a cancelled one has been given up."""
    each = state.changes[key]
    if each.operation_id is None:
        return events.NodeReported(at, key.node_id, is_full=True)
    cancelled = {effect.operation_id for effect in rollout.outstanding(state) if isinstance(effect, effects.Cancel)}
    is_cancelled = each.operation_id in cancelled
    told = status(each.operation_id, State.ABORTED if is_cancelled else State.PERMANENT, None)
    change = progress.wanted(each)
    version = change.from_version if is_cancelled else change.to_version
    is_stopped = change.kind is (model.ChangeKind.START if is_cancelled else model.ChangeKind.STOP)
    runs = (replace(scenario.installed(version, timedelta(hours=1)), is_stopped=is_stopped),) if version else ()
    return events.NodeReported(at, key.node_id, (told,), runs, is_full=True)
