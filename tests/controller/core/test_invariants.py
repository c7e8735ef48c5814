"""Each rule is broken once on purpose, so that a rule that can no longer speak is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from rpds import HashTrieMap

from controller.core import effects, events, invariants, model, rollout
from tests.controller.core import rolling, scenario

pytestmark = pytest.mark.core

State = model.OperationState
R = model.RolloutState
HOLD = model.RuleHold("errors", model.RuleState.FIRING, scenario.START, None)
DOWN = model.Standing(down="not connected")


def created(policy: model.Policy | None = None) -> model.Rollout:
    """A canary of one node, c, before two others."""
    request = model.UpgradeRequest(
        component=model.ComponentName("web"),
        target_version="1.1.0",
        strategy=model.Strategy.CANARY,
        policy=policy or model.Policy(),
        name="spring",
    )
    plan = rolling.planned({"nodes": "c,a,b", "canary": "1", "domains": "a:north,b:north,c:south"}, "")
    return rollout.create(model.RolloutId("r1"), request, plan, actor="ann", at=scenario.START)


def asked() -> model.Approval:
    """An approval that is waited for."""
    until = scenario.START + timedelta(hours=1)
    return model.Approval(model.RolloutId("r1"), "spring", "web 1.1.0", "", "ann", scenario.START, until)


def running() -> model.Rollout:
    return rollout.step(created(), events.Began(scenario.START)).rollout


def done() -> model.Rollout:
    state = running()
    while not state.state.is_terminal:
        for each in [each for each in state.changes.values() if each.state is State.ASSIGNED]:
            told = model.OperationStatus(
                operation_id=each.operation_id or model.OperationId(""),
                fence=1,
                component=each.change.component,
                state=State.PERMANENT,
                step=None,
                fault=None,
                reason="",
                message="",
                changed_at=scenario.START,
            )
            runs = scenario.installed("1.1.0", timedelta(hours=1))
            report = events.NodeReported(scenario.START, each.change.node_id, (told,), (runs,))
            state = rollout.step(state, report).rollout
    return state


def reverting() -> model.Rollout:
    return rollout.step(done(), events.RevertRequested(scenario.START, "ann", "order")).rollout


def paused() -> model.Rollout:
    return rollout.step(running(), events.Paused(scenario.START, "ann", "order")).rollout


def altered(state: model.Rollout, node_id: str, /, **fields: object) -> model.Rollout:
    key = next(each for each in state.changes if each.node_id == node_id)
    after = replace(state.changes[key], **fields)  # type: ignore[arg-type] # the test breaks one field on purpose
    return replace(state, changes=state.changes.insert(key, after))


def replanned(state: model.Rollout, /, **fields: object) -> model.Rollout:
    """Let the change of c be another than was planned."""
    first = next(each for each in state.changes.values() if each.change.node_id == "c")
    return altered(state, "c", change=replace(first.change, **fields))  # type: ignore[arg-type] # as above


def with_second_change_of(state: model.Rollout, node_id: str) -> model.Rollout:
    """Plan the node's change a second time, and let both hold the node."""
    first = next(each for each in state.changes.values() if each.change.node_id == node_id)
    wave = replace(state.plan.waves[1], index=3, changes=(first.change,))
    second = replace(first, wave=3)
    plan = replace(state.plan, waves=(*state.plan.waves, wave))
    return replace(state, plan=plan, wave=3, changes=state.changes.insert(second.key, second))


def goes_back_too_early() -> model.Rollout:
    """Both changes of c are touched, and the earlier one is undone first."""
    state = with_second_change_of(reverting(), "c")
    key = model.ChangeKey(3, model.NodeId("c"), model.ComponentName("web"))
    later = replace(state.changes[key], is_reverting=False, state=State.PERMANENT, is_proven=True)
    return replace(state, changes=state.changes.insert(key, later))


BROKEN: dict[str, Callable[[], model.Rollout]] = {
    "every change is planned": lambda: replace(
        running(), changes=running().changes.remove(next(key for key in running().changes if key.node_id == "c"))
    ),
    "no change but the planned one": lambda: altered(
        running(), "b", change=replace(next(iter(running().changes.values())).change, to_version="6.6.6")
    ),
    "a change is of the kind that was asked for": lambda: replace(
        running(), request=replace(running().request, kind=model.ChangeKind.STOP)
    ),
    "only what is removed leads to nothing": lambda: replanned(running(), to_digest=model.Digest("")),
    "start, stop and restart keep the version, and nothing else does": lambda: replanned(
        running(), to_digest=scenario.digest("web 1.0.0")
    ),
    "a restart leaves nothing to take back": lambda: altered(
        replanned(running(), kind=model.ChangeKind.RESTART), "c", is_touched=True
    ),
    "what has no way back is not taken back": lambda: replanned(reverting(), no_way_back="nothing leads back"),
    "one operation holds a node": lambda: with_second_change_of(running(), "c"),
    "hops begin in order": lambda: with_second_change_of(running(), "c"),
    "hops go back in reverse": goes_back_too_early,
    "no wave begins before its turn": lambda: altered(running(), "a", state=State.RUNNING, attempt=1),
    "no wave is skipped": lambda: replace(created(), state=R.RUNNING, wave=2),
    "no wave is passed without success": lambda: replace(running(), wave=2, reached=2),
    "attempts are bounded": lambda: altered(running(), "c", attempt=4),
    "what has begun has an operation": lambda: altered(running(), "c", operation_id=None),
    "nothing is undone but in a revert": lambda: altered(running(), "c", is_reverting=True, is_touched=True),
    "only touched nodes are taken back": lambda: altered(reverting(), "c", is_touched=False),
    "a pending rollout has asked nothing of a node": lambda: replace(running(), state=R.PENDING),
    "nothing begins before it is approved": lambda: replace(running(), approval=asked()),
    "what is decided was so at some instant": lambda: replace(
        created(), approval=replace(asked(), state=model.ApprovalState.APPROVED)
    ),
    "an approval is for one plan": lambda: replace(created(), approval=replace(asked(), fingerprint="other")),
    "what has ended has an end": lambda: replace(done(), ended_at=None),
    "what has ended has nothing out": lambda: altered(done(), "c", state=State.RUNNING),
    "everything is explained": lambda: replace(done(), state=R.FAILED),
    "everything is explained: paused": lambda: replace(paused(), paused_because=""),
    "everything is explained: c was dropped": lambda: altered(running(), "c", is_skipped=True),
    "a pause stops the clocks, and nothing else does": lambda: replace(paused(), paused_at=None),
    "only what runs can have nothing to do": lambda: replace(paused(), idle_since=scenario.START),
    "success is the last wave's": lambda: replace(done(), wave=1),
    "success keeps the budget": lambda: altered(done(), "c", is_proven=False),
    "reverted means that every touched node is back": lambda: replace(reverting(), state=R.REVERTED),
    "every touched node is taken back": lambda: replace(done(), state=R.STUCK),
    "the tally agrees with the changes": lambda: replace(done(), tally=model.Tally(done=2)),
    "the tally agrees with the wave": lambda: replace(running(), tally=replace(running().tally, wave_done=1)),
    "who is unavailable is known: 1 are": lambda: replace(running(), tally=replace(running().tally, unavailable=2)),
    "who is unavailable is known: {'south': 1} by domain": lambda: zoned(replace(running(), domains={"south": 2})),
    "no deadline is missed": lambda: replace(running(), due_at=None),
    "whatever goes on has an end": lambda: replace(running(), progress_by=None),
}


@pytest.mark.parametrize("make", [created, running, paused, done, reverting])
def test_a_sound_rollout_breaks_no_rule(make: object) -> None:
    assert callable(make)
    assert invariants.violations(make()) == ()


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named(rule: str) -> None:
    sentences = invariants.violations(BROKEN[rule]())
    assert any(sentence.startswith(rule) for sentence in sentences), sentences


# Steps.


def zoned(state: model.Rollout) -> model.Rollout:
    """Let the policy count failure domains."""
    return limited(state, domain_label="zone")


def begun(state: model.Rollout, *node_ids: str) -> rollout.Decision:
    """A step that begins the changes of some nodes, whatever speaks against it."""
    found = [each for each in rollout.outstanding(state) if isinstance(each, effects.Assign)]
    one, state = found[0], replace(state, reached=2)
    for node_id in node_ids:
        state = altered(state, node_id, state=State.ASSIGNED, attempt=1)
    changes = [each.change for each in state.changes.values() if each.change.node_id in node_ids]
    return rollout.Decision(state, tuple(replace(one, change=each) for each in changes))


def limited(state: model.Rollout, **policy: object) -> model.Rollout:
    return replace(state, request=replace(state.request, policy=model.Policy(**policy)))  # type: ignore[arg-type] # fields of it


MISSTEPS: dict[str, Callable[[], rollout.Decision]] = {
    "what is paused starts nothing": lambda: begun(paused(), "c"),
    "nothing starts on a node that something stands against": lambda: begun(
        replace(running(), standings=HashTrieMap({model.NodeId("a"): DOWN})), "a"
    ),
    "a rule that holds it is heeded": lambda: begun(replace(running(), rule_holds=(HOLD,)), "a"),
    "parallelism is kept": lambda: begun(limited(running(), max_parallel=1), "a"),
    "the floor is kept": lambda: begun(limited(running(), floor_percent=50), "a"),
    "failure domains are kept": lambda: begun(zoned(running()), "a", "b"),
}


@pytest.mark.parametrize("rule", MISSTEPS)
def test_a_misstep_is_named(rule: str) -> None:
    sentences = invariants.missteps(running(), MISSTEPS[rule]())
    assert any(sentence.startswith(f"{rule}:") for sentence in sentences), sentences


def cancelled() -> model.Rollout:
    return rollout.step(running(), events.CancelRequested(scenario.START, "ann", "order")).rollout


def test_what_starts_after_a_cancel_is_named() -> None:
    decision = begun(running(), "a")
    ending = replace(decision, rollout=replace(decision.rollout, reason="cancel_requested"))
    [sentence] = invariants.missteps(cancelled(), ending)
    assert sentence.startswith("what was cancelled or failed starts nothing more: ")


@pytest.mark.parametrize("clock", ["bake_until", "deadline_at", "verify_until"])
def test_a_clock_that_moves_in_a_pause_is_named(clock: str) -> None:
    after = replace(paused(), **{clock: scenario.START})  # type: ignore[arg-type] # each of them is an instant
    sentences = invariants.missteps(paused(), rollout.Decision(after, (), ()))
    assert sentences == (f"while it is paused every clock stands: {clock} has moved",)


def test_a_sound_step_is_no_misstep() -> None:
    for event in (events.Began(scenario.START), events.CancelRequested(scenario.START, "ann", "order")):
        assert invariants.missteps(created(), rollout.step(created(), event)) == ()


def test_an_emergency_keeps_to_no_limit() -> None:
    decision = begun(limited(running(), max_parallel=1, floor_percent=50), "a")
    urgent = replace(decision, rollout=replace(decision.rollout, is_emergency=True))
    assert invariants.missteps(running(), urgent) == ()
