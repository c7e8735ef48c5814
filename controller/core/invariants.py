"""What must hold of every state of a rollout, whoever asks: the engine's tests, the simulator, a doctor.

Each rule is a sentence that names what is broken; a sound rollout has none. Everything is counted anew here, and
nothing is taken from the tally: it is one of the things that are checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from controller.core import model, progress

S = model.RolloutState
_BACK = frozenset({S.REVERTING, S.REVERTED, S.STUCK})
_KEEPING = frozenset({model.ChangeKind.START, model.ChangeKind.STOP, model.ChangeKind.RESTART})


def violations(rollout: model.Rollout) -> tuple[str, ...]:
    """Name every rule that the rollout breaks; looks at every change."""
    rules = (
        _planned,
        _kinds,
        _one_operation_per_node,
        _parallelism,
        _waves_in_order,
        _attempts,
        _directions,
        _beginnings,
        _ends,
        _successes,
        _reversions,
        _tally,
        _deadlines,
    )
    return tuple(sentence for rule in rules for sentence in rule(rollout))


def _changes(rollout: model.Rollout) -> list[model.Progress]:
    planned = (
        model.ChangeKey(wave.index, change.node_id, change.component)
        for wave in rollout.plan.waves
        for change in wave.changes
    )
    return [rollout.changes[key] for key in planned if key in rollout.changes]


def _places(rollout: model.Rollout) -> Iterator[tuple[model.Progress, progress.Place]]:
    is_going_back = rollout.state in _BACK
    for each in _changes(rollout):
        if each.attempt:
            yield each, progress.place(each, is_going_back=is_going_back)


def _planned(rollout: model.Rollout) -> Iterator[str]:
    planned = [(wave.index, change) for wave in rollout.plan.waves for change in wave.changes]
    if len(rollout.changes) != len(planned):
        yield f"every change is planned: {len(planned)} are planned and {len(rollout.changes)} are there"
    for wave, change in planned:
        at = rollout.changes.get(model.ChangeKey(wave, change.node_id, change.component))
        if at is None or at.change != change:
            yield f"no change but the planned one: {change.node_id} in wave {wave} differs from the plan"


def _kinds(rollout: model.Rollout) -> Iterator[str]:
    asked = rollout.request.kind
    for each in _changes(rollout):
        change = each.change
        if change.kind not in (progress.VERSIONED if asked is None else {asked}):
            yield f"a change is of the kind that was asked for: {change.node_id} has {change.kind.value}"
        is_emptied = bool(change.from_digest) and not change.to_digest
        if is_emptied is not (change.kind is model.ChangeKind.REMOVE):
            yield f"only what is removed leads to nothing: {change.node_id} does not fit"
        is_kept = change.from_digest == change.to_digest
        if is_kept is not (change.kind in _KEEPING):
            yield f"start, stop and restart keep the version, and nothing else does: {change.node_id} does not fit"
        if each.is_touched and change.kind is model.ChangeKind.RESTART:
            yield f"a restart leaves nothing to take back: {change.node_id} counts as touched"


def _one_operation_per_node(rollout: model.Rollout) -> Iterator[str]:
    held = Counter(each.change.node_id for each in _changes(rollout) if each.state in progress.HOLDS)
    for node_id, count in held.items():
        if count > 1:
            yield f"one operation holds a node: {node_id} is held by {count}"


def _parallelism(rollout: model.Rollout) -> Iterator[str]:
    """Nodes that were silent and came back may exceed the bound, by as many as may fail."""
    policy = rollout.request.policy
    out = sum(where in (progress.Place.HOLDING, progress.Place.SETTLING) for _, where in _places(rollout))
    if rollout.state is S.RUNNING and policy.max_parallel and out > policy.max_parallel + policy.max_failures:
        yield f"parallelism is kept: {out} operations are out where {policy.max_parallel} may be"


def _waves_in_order(rollout: model.Rollout) -> Iterator[str]:
    for wave in rollout.plan.waves:
        seen = [each for each in _changes(rollout) if each.wave == wave.index]
        if wave.index > rollout.wave and any(each.attempt for each in seen):
            yield f"no wave begins before its turn: wave {wave.index} has begun while {rollout.wave} is out"
        if wave.index < rollout.wave and not all(each.attempt for each in seen):
            yield f"no wave is skipped: a change of wave {wave.index} never began while {rollout.wave} is out"
        is_passed = wave.index < rollout.wave and rollout.state not in _BACK
        if is_passed and not any(progress.is_done(each) for each in seen):
            yield f"no wave is passed without success: none of wave {wave.index} is done"


def _attempts(rollout: model.Rollout) -> Iterator[str]:
    for each in _changes(rollout):
        if each.attempt > progress.ATTEMPTS_MAX:
            yield f"attempts are bounded: {each.change.node_id} is at attempt {each.attempt}"
        if bool(each.attempt) is not (each.state is not None and each.operation_id is not None):
            yield f"what has begun has an operation: {each.change.node_id} does not fit"


def _directions(rollout: model.Rollout) -> Iterator[str]:
    for each in _changes(rollout):
        if each.is_reverting and rollout.state not in _BACK:
            yield f"nothing is undone but in a revert: {each.change.node_id} goes back"
        if each.is_reverting and not each.is_touched:
            yield f"only touched nodes are taken back: {each.change.node_id} was not touched"
        if each.is_reverting and each.change.no_way_back:
            yield f"what has no way back is not taken back: {each.change.node_id} goes back"


def _beginnings(rollout: model.Rollout) -> Iterator[str]:
    if rollout.state is S.PENDING and (rollout.wave or any(each.attempt for each in _changes(rollout))):
        yield "a pending rollout has asked nothing of a node: something has begun"


def _ends(rollout: model.Rollout) -> Iterator[str]:
    if rollout.state.is_terminal is not (rollout.ended_at is not None):
        yield f"what has ended has an end: {rollout.state.value} with end {rollout.ended_at}"
    for each in _changes(rollout):
        if rollout.state.is_terminal and each.state in progress.HOLDS:
            yield f"what has ended has nothing out: {each.change.node_id} is held"
    if rollout.state.is_terminal and rollout.state is not S.SUCCEEDED and not rollout.reason:
        yield f"everything is explained: {rollout.state.value} without a reason"


def _successes(rollout: model.Rollout) -> Iterator[str]:
    if rollout.state is not S.SUCCEEDED:
        return
    if rollout.wave != len(rollout.plan.waves):
        yield f"success is the last wave's: it came in wave {rollout.wave}"
    failed = sum(not progress.is_done(each) for each in _changes(rollout))
    # Each of the two budgets may be used up.
    if failed > 2 * rollout.request.policy.max_failures:
        yield f"success keeps the budget: {failed} changes are not done"


def _reversions(rollout: model.Rollout) -> Iterator[str]:
    for each, where in _places(rollout):
        if rollout.state is S.REVERTED and where is not progress.Place.DONE:
            yield f"reverted means that every touched node is back: {each.change.node_id} is not"
        is_left = each.is_touched and not each.is_reverting and progress.can_go_back(each)
        if rollout.state in (S.REVERTING, S.REVERTED) and is_left:
            yield f"every touched node is taken back: {each.change.node_id} was left"


def _tally(rollout: model.Rollout) -> Iterator[str]:
    counted = Counter(where.value for _, where in _places(rollout))
    for name in ("holding", "settling", "retrying", "done", "version_failed", "infrastructure_failed"):
        if counted[name] != getattr(rollout.tally, name):
            yield f"the tally agrees with the changes: {counted[name]} are {name}, {getattr(rollout.tally, name)} noted"


def _deadlines(rollout: model.Rollout) -> Iterator[str]:
    is_live = rollout.state in (S.RUNNING, S.REVERTING)
    for each, where in _places(rollout):
        due_at = progress.due_at(each, rollout.judge_from)
        # What waits for its next attempt may have to wait for a free slot as well.
        if not is_live or due_at is None or where is progress.Place.RETRYING:
            continue
        if rollout.due_at is None or rollout.due_at > due_at:
            yield f"no deadline is missed: {each.change.node_id} is due at {due_at}, the sweep at {rollout.due_at}"
    if is_live and rollout.progress_by is None:
        yield "whatever goes on has an end: nothing bounds its lack of progress"
