"""Each rule is broken once on purpose, so that a rule that can no longer speak is noticed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from controller.core import events, invariants, model, planner, rollout
from tests.controller.core import scenario

pytestmark = pytest.mark.core

State = model.OperationState
R = model.RolloutState


def created(policy: model.Policy | None = None) -> model.Rollout:
    """A canary of one node before two others; the shuffle puts c first."""
    request = model.UpgradeRequest(
        component=model.ComponentName("web"),
        target_version="1.1.0",
        strategy=model.Strategy.CANARY,
        policy=policy or model.Policy(),
        name="spring",
    )
    nodes = [scenario.node(name) for name in ("a", "b", "c")]
    plan = planner.plan(request, nodes, [scenario.release("1.1.0")])
    return rollout.create(model.RolloutId("r1"), request, plan, actor="ann", at=scenario.START)


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


BROKEN = {
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
    "parallelism is kept": lambda: replace(
        altered(altered(running(), "a", state=State.RUNNING, attempt=1), "b", state=State.RUNNING, attempt=1),
        request=replace(running().request, policy=model.Policy(max_parallel=1)),
        wave=2,
    ),
    "no wave begins before its turn": lambda: altered(running(), "a", state=State.RUNNING, attempt=1),
    "no wave is skipped": lambda: replace(created(), state=R.RUNNING, wave=2),
    "no wave is passed without success": lambda: replace(running(), wave=2),
    "attempts are bounded": lambda: altered(running(), "c", attempt=4),
    "what has begun has an operation": lambda: altered(running(), "c", operation_id=None),
    "nothing is undone but in a revert": lambda: altered(running(), "c", is_reverting=True, is_touched=True),
    "only touched nodes are taken back": lambda: altered(reverting(), "c", is_touched=False),
    "a pending rollout has asked nothing of a node": lambda: replace(running(), state=R.PENDING),
    "what has ended has an end": lambda: replace(done(), ended_at=None),
    "what has ended has nothing out": lambda: altered(done(), "c", state=State.RUNNING),
    "everything is explained": lambda: replace(done(), state=R.FAILED),
    "success is the last wave's": lambda: replace(done(), wave=1),
    "success keeps the budget": lambda: altered(done(), "c", is_proven=False),
    "reverted means that every touched node is back": lambda: replace(reverting(), state=R.REVERTED),
    "every touched node is taken back": lambda: replace(done(), state=R.REVERTING),
    "the tally agrees with the changes": lambda: replace(done(), tally=model.Tally(done=2)),
    "no deadline is missed": lambda: replace(running(), due_at=None),
    "whatever goes on has an end": lambda: replace(running(), progress_by=None),
}


@pytest.mark.parametrize("make", [created, running, done, reverting])
def test_a_sound_rollout_breaks_no_rule(make: object) -> None:
    assert callable(make)
    assert invariants.violations(make()) == ()


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named(rule: str) -> None:
    sentences = invariants.violations(BROKEN[rule]())
    assert any(sentence.startswith(f"{rule}:") for sentence in sentences), sentences
