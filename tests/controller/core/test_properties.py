"""What no sequence of events may bring about, and what every sequence must lead to.

``INSTAR_EXAMPLES`` says how many lives of rollouts each property looks at.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core import dispatch, effects, errors, events, model, progress, rollout
from controller.core import draft as drafts
from controller.store import codec
from tests.controller.core import lives, scenario

pytestmark = pytest.mark.core

ROUNDS_MAX = 400  # far more than any rollout of five nodes needs once its nodes answer

# Each example is a whole life of a rollout.
EXAMPLES = int(os.environ.get("INSTAR_EXAMPLES", "200"))
MUCH_EXPLORED, EXPLORED = settings(max_examples=EXAMPLES), settings(max_examples=EXAMPLES // 4)
State = model.OperationState
R = model.RolloutState
BEAT = progress.RETRY_PAUSE


# Of every step of a life.


def only_planned_changes_and_what_undoes_them_are_asked_of_nodes(taken: list[lives.Taken]) -> None:
    state = taken[0].before
    planned = {change for wave in state.plan.waves for change in wave.changes}
    planned |= {change for each in taken for change in each.decision.rollout.joined}
    undone = {progress.undo(change) for change in planned}
    for effect in lives.assigned(taken):
        assert effect.change in (undone if effect.is_reverting else planned)


def nothing_is_asked_of_a_node_before_it_is_approved(taken: list[lives.Taken]) -> None:
    approval, is_approved = taken[0].before.approval, False
    for each in taken:
        is_approved = is_approved or isinstance(each.event, events.Approved)
        assert approval is None or is_approved or not each.decision.effects
        after = each.decision.rollout.approval
        assert after is None or after.state is not model.ApprovalState.WAITING or each.event.at < after.expires_at


def no_operation_is_ever_asked_for_twice(taken: list[lives.Taken]) -> None:
    asked = [effect.operation_id for effect in lives.assigned(taken)]
    assert len(asked) == len(set(asked))


def what_starts_leaves_the_floor_available(taken: list[lives.Taken]) -> None:
    state = taken[0].before
    policy = state.request.policy
    for each in taken:
        after = each.decision.rollout
        total = state.plan.blast_radius.of_nodes + len(after.joined) - after.tally.removed
        fresh = {effect.change.node_id for effect in lives.assigned([each])} - unavailable(each.before) - ill(after)
        if fresh and policy.floor_percent and not after.is_emergency:
            assert 100 * (total - len(unavailable(after))) >= policy.floor_percent * total


def unavailable(state: model.Rollout) -> set[model.NodeId]:
    """Count from the changes and the standings alone."""
    silent_or_out = (each for each in state.changes.values() if not each.is_skipped and each.state is not None)
    out = {
        each.change.node_id
        for each in silent_or_out
        if each.state not in progress.ENDS and not (each.state is State.PERMANENT and each.is_proven)
    }
    return out | ill(state)


def ill(state: model.Rollout) -> set[model.NodeId]:
    """Name the nodes that are unavailable whatever is asked of them."""
    return {node_id for node_id in state.standings if is_against(state.standings[node_id])}


def is_against(standing: model.Standing) -> bool:
    return bool(standing.down or standing.unwell)


def what_starts_keeps_to_the_parallelism(taken: list[lives.Taken]) -> None:
    state = taken[0].before
    policy = state.request.policy
    for each in taken:
        after = each.decision.rollout
        is_back = after.state is R.REVERTING
        bound = policy.revert_max_parallel if is_back else policy.max_parallel
        out = [one for one in after.changes.values() if is_under_way(one) and one.is_reverting is is_back]
        if any(lives.assigned([each])) and bound and not after.is_emergency:
            assert len(out) <= bound


def is_under_way(each: model.Progress) -> bool:
    if each.is_skipped or (each.state is State.PERMANENT and each.is_proven):
        return False
    is_settling = each.state in progress.COMMITS and each.fault is not model.Fault.VERSION
    return each.state in progress.HOLDS or is_settling


def what_starts_keeps_to_the_failure_domains(taken: list[lives.Taken]) -> None:
    state = taken[0].before
    policy = state.request.policy
    for each in taken:
        after = each.decision.rollout
        zones = {one.change.node_id: one.change.domain for one in after.changes.values()}
        fresh = {effect.change.node_id for effect in lives.assigned([each])} - unavailable(each.before) - ill(after)
        for node_id in fresh if policy.domain_label and not after.is_emergency else ():
            mates = [other for other in unavailable(after) if zones.get(other, "") == zones[node_id]]
            assert not zones[node_id] or len(mates) <= policy.domain_max_parallel


def one_operation_holds_a_node(taken: list[lives.Taken]) -> None:
    for each in taken:
        held = [
            one.change.node_id
            for one in each.decision.rollout.changes.values()
            if one.state in progress.HOLDS and not one.is_skipped
        ]
        assert len(held) == len(set(held))


def nothing_starts_outside_a_window_but_what_goes_back(taken: list[lives.Taken]) -> None:
    state = taken[0].before
    spent = state.plan.operation_p95
    for each in taken:
        into = (each.event.at - scenario.START) % timedelta(minutes=30)
        for effect in lives.assigned([each]) if state.request.policy.windows else ():
            assert effect.is_reverting or into + spent <= timedelta(minutes=10)
            assert effect.is_reverting or effect.start_by <= each.event.at - into + timedelta(minutes=10) - spent


def what_could_begin_is_not_left_to_wait(taken: list[lives.Taken]) -> None:
    for each in taken:
        draft = drafts.open_on(each.decision.rollout)
        dispatch.fill(draft, each.event.at)
        assert not [effect for effect in draft.effects if isinstance(effect, effects.Assign)]


def a_step_names_exactly_the_changes_that_differ(taken: list[lives.Taken]) -> None:
    for each in taken:
        before, after = each.before.changes, each.decision.rollout.changes
        differing = {key for key in after if key not in before or before[key] != after[key]}
        assert differing <= set(each.decision.changed)
        assert len(each.decision.changed) == len(set(each.decision.changed))
        assert (each.decision.rollout is each.before) is (each.decision.rollout == each.before)


@EXPLORED
@given(st.data(), lives.rollouts())
def test_an_illegal_order_raises_and_changes_nothing(data: st.DataObject, state: model.Rollout) -> None:
    script = lives.Script(data, state)
    lives.play(data, script)
    before = script.state
    fields = {name: getattr(before, name) for name in model.Rollout.__slots__}
    for kind in lives.ORDERS:
        refused = refusal(before, lives.order(kind, script))
        assert refused is None or (str(refused).startswith("cannot ") and refused.code and refused.rule)
        assert fields == {name: getattr(before, name) for name in model.Rollout.__slots__}


def refusal(state: model.Rollout, order: events.Event) -> errors.InstarError | None:
    try:
        after = rollout.step(state, order).rollout
    except (errors.IllegalEventError, errors.RefusedError) as error:
        return error
    assert after is not state
    return None


@EXPLORED
@given(st.data(), lives.rollouts())
def test_words_about_other_operations_change_nothing(data: st.DataObject, state: model.Rollout) -> None:
    script = lives.Script(data, state)
    lives.play(data, script)
    for key, each in script.state.changes.items():
        if each.operation_id is None or each.state is None or script.state.state is not R.RUNNING:
            continue
        stale = lives.status(model.OperationId(each.operation_id + "0"), State.ABORTED, model.Fault.VERSION)
        decision = rollout.step(script.state, events.NodeReported(each.assigned_at or script.at, key.node_id, (stale,)))
        assert each.fault is model.Fault.VERSION or decision.rollout.changes[key].fault is not model.Fault.VERSION
        assert not any(isinstance(effect, effects.RememberBad) for effect in decision.effects)


@EXPLORED
@given(st.data(), lives.rollouts())
def test_without_evidence_against_the_version_nothing_goes_back(data: st.DataObject, state: model.Rollout) -> None:
    for each in lives.play(data, lives.Script(data, state, is_version_sound=True)):
        assert each.decision.rollout.state not in (R.REVERTING, R.REVERTED)
        assert not any(isinstance(effect, effects.RememberBad | effects.BlockEdge) for effect in each.decision.effects)


def a_bad_version_is_not_offered_again_to_a_node_that_left_it(taken: list[lives.Taken]) -> None:
    left: set[tuple[model.NodeId, model.Digest]] = set()
    for each in taken:
        for effect in each.decision.effects:
            if isinstance(effect, effects.Assign) and effect.change.kind in progress.VERSIONED:
                assert effect.is_reverting or (effect.change.node_id, effect.change.to_digest) not in left
            if isinstance(effect, effects.RememberBad):
                left.add((effect.node_id, effect.digest))


@EXPLORED
@given(st.data(), lives.rollouts())
def test_every_rollout_ends_once_its_nodes_answer(data: st.DataObject, state: model.Rollout) -> None:
    script = lives.Script(data, state)
    lives.play(data, script)
    current = lives.end(script.state, script.at, answers=True, rounds_max=ROUNDS_MAX)
    assert current.state.is_terminal, rollout.waiting_for(current, script.at)
    assert rollout.next_deadline(current) is None
    assert rollout.outstanding(current) == ()
    assert rollout.waiting_for(current, script.at) is None


@EXPLORED
@given(st.data(), lives.rollouts())
def test_every_rollout_ends_though_its_nodes_are_silent(data: st.DataObject, state: model.Rollout) -> None:
    script = lives.Script(data, state)
    lives.play(data, script)
    current = lives.end(script.state, script.at, answers=False, rounds_max=ROUNDS_MAX)
    assert current.state.is_terminal, rollout.waiting_for(current, script.at)


def whatever_has_not_ended_says_what_it_waits_for(taken: list[lives.Taken]) -> None:
    for each in taken:
        found = rollout.waiting_for(each.decision.rollout, each.event.at)
        assert (found is None) is each.decision.rollout.state.is_terminal
        assert found is None or (found.code and found.message)


# A pause.


def what_is_paused_has_no_deadline_and_starts_nothing(taken: list[lives.Taken]) -> None:
    for each in taken:
        if each.decision.rollout.state is R.PAUSED:
            assert rollout.next_deadline(each.decision.rollout) is None
            assert not [one for one in each.decision.effects if isinstance(one, effects.Assign | effects.Proceed)]


@EXPLORED
@given(st.data(), lives.rollouts(has_windows=False), st.integers(1, 10_000))
def test_a_pause_stops_every_clock(data: st.DataObject, state: model.Rollout, beats: int) -> None:
    """Pausing and going on leads to the same decisions as doing neither, each later by the length of the pause."""
    script, length = lives.Script(data, state), beats * BEAT
    script.kinds = [kind for kind in script.kinds if kind not in ("pause", "resume")]
    taken = lives.play(data, script)
    running = [number for number, each in enumerate(taken) if each.decision.rollout.state is R.RUNNING]
    if not running:
        return
    number = data.draw(st.sampled_from(running))
    current, at = taken[number].decision.rollout, taken[number].event.at
    current = rollout.step(current, events.Paused(at, "ann", "order")).rollout
    current = rollout.step(current, events.Resumed(at + length, "ann", "order")).rollout
    for each in taken[number + 1 :]:
        decision = rollout.step(current, later(each.event, length))
        assert [shape(effect) for effect in decision.effects] == [
            shape(shifted(effect, length)) for effect in each.decision.effects
        ]
        current = decision.rollout
        assert current.state is each.decision.rollout.state
        assert current.tally == each.decision.rollout.tally
        due = rollout.next_deadline(each.decision.rollout)
        assert rollout.next_deadline(current) == (None if due is None else due + length)


def later(event: events.Event, length: timedelta) -> events.Event:
    if isinstance(event, events.ControllerAbsent):
        return replace(event, since=event.since + length, at=event.at + length, judge_from=event.judge_from + length)
    return replace(event, at=event.at + length)


def shifted(effect: effects.Effect, length: timedelta) -> effects.Effect:
    return replace(effect, start_by=effect.start_by + length) if isinstance(effect, effects.Assign) else effect


def shape(effect: effects.Effect) -> str:
    return repr(effect)


# Its journal, and its rows.


def its_journal_played_again_leads_to_the_same_decisions(taken: list[lives.Taken]) -> None:
    state = taken[0].before
    current = rollout.create(state.id, state.request, replace(state.plan), actor=state.actor, at=state.created_at)
    for each in taken:
        decision = rollout.step(current, each.event)
        assert decision == each.decision
        current = decision.rollout


def what_was_stored_and_read_decides_as_what_was_not(taken: list[lives.Taken]) -> None:
    for each in taken[-5:]:
        stored = codec.decode(codec.encode(each.before, model.Rollout), model.Rollout)
        event = codec.decode(codec.encode(each.event, events.Event), events.Event)
        assert rollout.step(stored, event) == each.decision


RULES = (
    nothing_is_asked_of_a_node_before_it_is_approved,
    only_planned_changes_and_what_undoes_them_are_asked_of_nodes,
    no_operation_is_ever_asked_for_twice,
    what_starts_leaves_the_floor_available,
    what_starts_keeps_to_the_parallelism,
    what_starts_keeps_to_the_failure_domains,
    one_operation_holds_a_node,
    nothing_starts_outside_a_window_but_what_goes_back,
    what_could_begin_is_not_left_to_wait,
    a_step_names_exactly_the_changes_that_differ,
    a_bad_version_is_not_offered_again_to_a_node_that_left_it,
    whatever_has_not_ended_says_what_it_waits_for,
    what_is_paused_has_no_deadline_and_starts_nothing,
    its_journal_played_again_leads_to_the_same_decisions,
    what_was_stored_and_read_decides_as_what_was_not,
)


@MUCH_EXPLORED
@given(st.data(), lives.rollouts())
def test_no_sequence_of_events_breaks_an_invariant_or_one_of_these_rules(
    data: st.DataObject, state: model.Rollout
) -> None:
    taken = lives.play(data, lives.Script(data, state))
    for rule in RULES if taken else ():
        rule(taken)
