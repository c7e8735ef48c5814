"""What must hold of every state of a rollout, and of every step: for tests, the simulator, a doctor.

Each rule is a sentence that names what is broken; a sound rollout has none. Everything is counted anew here, and
nothing is taken from the tally: it is one of the things that are checked. Left out: windows, for a state does not tell
the time.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

from controller.core import effects, judging, model, progress
from controller.core import rollout as rollouts

S = model.RolloutState
P = progress.Place
_BACK = frozenset({S.REVERTING, S.REVERTED, S.STUCK})
_LIVE = frozenset({S.RUNNING, S.REVERTING})
_KEEPING = frozenset({model.ChangeKind.START, model.ChangeKind.STOP, model.ChangeKind.RESTART})
_PLACES = tuple(where for where in P if where is not P.WAITING)
_OUT = frozenset({P.HOLDING, P.SETTLING})
# A node that becomes healthy all the same moves ``progress_by``, and an absence of the controller ``judge_from``.
_STANDING_CLOCKS = ("paused_at", "stopped_for", "bake_until", "verify_until", "deadline_at", "idle_since")


def violations(rollout: model.Rollout) -> tuple[str, ...]:
    """Name every rule that a state breaks; looks at every change."""
    rules = (
        _planned,
        _kinds,
        _one_operation_per_node,
        _hops_in_order,
        _waves_in_order,
        _attempts,
        _directions,
        _beginnings,
        _approvals,
        _ends,
        _explained,
        _clocks,
        _successes,
        _reversions,
        _tally,
        _wave_tally,
        _availability,
        _deadlines,
        _judged_waves,
        _judging,
    )
    return tuple(sentence for rule in rules for sentence in rule(rollout))


def missteps(before: model.Rollout, decision: rollouts.Decision) -> tuple[str, ...]:
    """Name every rule that a step breaks, by what it asks of nodes."""
    after = decision.rollout
    begun = [each for each in decision.effects if isinstance(each, effects.Assign)]
    sentences = [*_starts_while_paused(decision), *_starts_while_ending(before, decision)]
    sentences += [*_starts_in_order(after, begun), *_stands_still(before, after), *_goes_on(before, after, begun)]
    if begun and not after.is_emergency and after.request.strategy is not model.Strategy.BLUE_GREEN:
        sentences += [*_slots(after), *_floor(before, after, begun), *_domains(before, after, begun)]
    return tuple(sentences)


def _changes(rollout: model.Rollout) -> list[model.Progress]:
    keys = (key for key, _ in _planned_changes(rollout))
    return [rollout.changes[key] for key in keys if key in rollout.changes]


def _planned_changes(rollout: model.Rollout) -> Iterator[tuple[model.ChangeKey, model.Change]]:
    last = len(rollout.plan.waves)
    for wave in rollout.plan.waves:
        for change in wave.changes + (rollout.joined if wave.index == last else ()):
            yield model.ChangeKey(wave.index, change.node_id, change.component), change


def _places(rollout: model.Rollout) -> Iterator[tuple[model.Progress, P]]:
    for each in _changes(rollout):
        yield each, progress.place(each, is_going_back=rollout.state in _BACK)


def _by_node(rollout: model.Rollout) -> Iterable[list[model.Progress]]:
    of: dict[model.NodeId, list[model.Progress]] = {}
    for each in _changes(rollout):
        of.setdefault(each.change.node_id, []).append(each)
    return of.values()


# Of a state.


def _planned(rollout: model.Rollout) -> Iterator[str]:
    planned = list(_planned_changes(rollout))
    if len(rollout.changes) != len(planned):
        yield f"every change is planned: {len(planned)} are planned and {len(rollout.changes)} are there"
    for key, change in planned:
        at = rollout.changes.get(key)
        if at is None or at.change != change:
            yield f"no change but the planned one: {change.node_id} in wave {key.wave} differs from the plan"


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
    held = Counter(each.change.node_id for each in _changes(rollout) if _is_held(each))
    for node_id, count in held.items():
        if count > 1:
            yield f"one operation holds a node: {node_id} is held by {count}"


def _is_held(each: model.Progress) -> bool:
    return each.state in progress.HOLDS and not each.is_skipped


def _hops_in_order(rollout: model.Rollout) -> Iterator[str]:
    """What comes later on a node begins behind what comes before, and goes back before it."""
    if rollout.state in (S.REVERTED, S.STUCK):
        return
    for changes in _by_node(rollout):
        for earlier, later in itertools.pairwise(changes):
            is_begun = _is_held(later) and not later.is_reverting
            if is_begun and not progress.is_done(earlier) and rollout.state not in _BACK:
                yield f"hops begin in order: {later.change.node_id} has begun wave {later.wave} too early"
            is_out = _is_held(earlier) and earlier.is_reverting
            if is_out and not progress.place(later, is_going_back=True).is_final:
                yield f"hops go back in reverse: {earlier.change.node_id} undoes wave {earlier.wave} too early"


def _waves_in_order(rollout: model.Rollout) -> Iterator[str]:
    for wave in rollout.plan.waves:
        seen = [each for each in _changes(rollout) if each.wave == wave.index]
        if wave.index > max(rollout.wave, rollout.reached) and any(each.attempt for each in seen):
            yield f"no wave begins before its turn: wave {wave.index} has begun while {rollout.wave} is out"
        if wave.index >= rollout.wave or rollout.state in _BACK:
            continue
        if any(progress.is_waiting(each) for each in seen):
            yield f"no wave is skipped: a change of wave {wave.index} never began while {rollout.wave} is out"
        if not any(progress.is_done(each) for each in seen) and not all(each.is_skipped for each in seen):
            yield f"no wave is passed without success: none of wave {wave.index} is done"


def _attempts(rollout: model.Rollout) -> Iterator[str]:
    for each in _changes(rollout):
        if each.attempt - each.attempts_before > progress.ATTEMPTS_MAX:
            yield f"attempts are bounded: {each.change.node_id} is at attempt {each.attempt}"
        if each.state is not None and not (each.attempt and each.operation_id is not None):
            yield f"what has begun has an operation: {each.change.node_id} does not fit"


def _directions(rollout: model.Rollout) -> Iterator[str]:
    for each in _changes(rollout):
        if each.is_reverting and rollout.state not in _BACK and not each.is_skipped:
            yield f"nothing is undone but in a revert: {each.change.node_id} goes back"
        if each.is_reverting and not each.is_touched:
            yield f"only touched nodes are taken back: {each.change.node_id} was not touched"
        if each.is_reverting and each.change.no_way_back:
            yield f"what has no way back is not taken back: {each.change.node_id} goes back"


def _beginnings(rollout: model.Rollout) -> Iterator[str]:
    if rollout.state is S.PENDING and (rollout.wave or any(each.attempt for each in _changes(rollout))):
        yield "a pending rollout has asked nothing of a node: something has begun"


def _approvals(rollout: model.Rollout) -> Iterator[str]:
    approval = rollout.approval
    if approval is None:
        return
    is_begun = rollout.state not in (S.PENDING, S.CANCELLED) or bool(rollout.wave)
    # Of what was never begun nothing goes back, and that is allowed.
    is_moving = is_begun and not (rollout.state in _BACK and not any(each.attempt for each in _changes(rollout)))
    if is_moving and approval.state is not model.ApprovalState.APPROVED:
        yield f"nothing begins before it is approved: {rollout.state.value} while it is {approval.state.value}"
    if (approval.state is model.ApprovalState.WAITING) is not (approval.decided_at is None):
        yield f"what is decided was so at some instant: {approval.state.value} at {approval.decided_at}"
    if approval.fingerprint != rollout.plan.fingerprint:
        yield f"an approval is for one plan: {approval.fingerprint} is not {rollout.plan.fingerprint}"


def _ends(rollout: model.Rollout) -> Iterator[str]:
    if rollout.state.is_terminal is not (rollout.ended_at is not None):
        yield f"what has ended has an end: {rollout.state.value} with end {rollout.ended_at}"
    for each in _changes(rollout):
        if rollout.state.is_terminal and _is_held(each):
            yield f"what has ended has nothing out: {each.change.node_id} is held"


def _explained(rollout: model.Rollout) -> Iterator[str]:
    if rollout.state.is_terminal and rollout.state is not S.SUCCEEDED and not rollout.reason:
        yield f"everything is explained: {rollout.state.value} without a reason"
    if rollout.state is S.PAUSED and not rollout.paused_because:
        yield "everything is explained: paused without a reason"
    for each in _changes(rollout):
        if each.is_skipped and not (each.reason and each.message):
            yield f"everything is explained: {each.change.node_id} was dropped without a reason"


def _clocks(rollout: model.Rollout) -> Iterator[str]:
    if (rollout.state is S.PAUSED) is not (rollout.paused_at is not None):
        yield f"a pause stops the clocks, and nothing else does: {rollout.state.value} since {rollout.paused_at}"
    if rollout.state is not S.RUNNING and rollout.idle_since is not None:
        yield f"only what runs can have nothing to do: {rollout.state.value} since {rollout.idle_since}"


def _successes(rollout: model.Rollout) -> Iterator[str]:
    if rollout.state is not S.SUCCEEDED:
        return
    if rollout.wave != len(rollout.plan.waves):
        yield f"success is the last wave's: it came in wave {rollout.wave}"
    policy = rollout.request.policy
    failed = sum(not progress.is_done(each) and not each.is_skipped for each in _changes(rollout))
    # Each of the two budgets may be used up.
    if failed > policy.max_failures + policy.infrastructure_failures_max:
        yield f"success keeps the budget: {failed} changes are not done"


def _reversions(rollout: model.Rollout) -> Iterator[str]:
    for each, where in _places(rollout):
        if rollout.state is S.REVERTED and where not in (P.DONE, P.SKIPPED):
            yield f"reverted means that every touched node is back: {each.change.node_id} is not"
        if rollout.state is S.STUCK and where is P.WAITING and rollout.reason != "revert_late":
            yield f"every touched node is taken back: {each.change.node_id} was left"


def _tally(rollout: model.Rollout) -> Iterator[str]:
    is_back = rollout.state in _BACK
    counted = Counter(where.value for _, where in _places(rollout))
    names = [where.value for where in _PLACES] + (["waiting"] if is_back else [])
    is_together = rollout.request.strategy is model.Strategy.BLUE_GREEN
    held = [each for each in _changes(rollout) if is_together and each.state is model.OperationState.HELD]
    held = [each for each in held if not each.is_skipped]
    counted["held_at_commit"] = sum(each.step is model.Step.COMMIT for each in held)
    counted["held_at_switch"] = len(held) - counted["held_at_commit"]
    undoing = ((each, where) for each, where in _places(rollout) if each.is_reverting and not each.is_skipped)
    counted["undoing"] = sum(is_back and (_is_held(each) or where is P.SETTLING) for each, where in undoing)
    for name in (*names, "held_at_commit", "held_at_switch", "undoing"):
        if counted[name] != getattr(rollout.tally, name):
            yield f"the tally agrees with the changes: {counted[name]} are {name}, {getattr(rollout.tally, name)} noted"


def _wave_tally(rollout: model.Rollout) -> Iterator[str]:
    if rollout.state in _BACK or not rollout.wave:
        return
    places = [where for each, where in _places(rollout) if each.wave == rollout.wave]
    assigned = len(places) - places.count(P.WAITING)
    counted = (assigned, places.count(P.DONE), places.count(P.SKIPPED))
    noted = (rollout.tally.assigned, rollout.tally.wave_done, rollout.tally.wave_skipped)
    if counted != noted:
        yield f"the tally agrees with the wave: {counted} begun, done and dropped, {noted} noted"


def _availability(rollout: model.Rollout) -> Iterator[str]:
    counted = _unavailable(rollout)
    if len(counted) != rollout.tally.unavailable:
        yield f"who is unavailable is known: {len(counted)} are, {rollout.tally.unavailable} noted"
    by_domain = Counter(filter(None, counted.values()))
    noted = {domain: count for domain, count in rollout.domains.items() if count}
    if rollout.request.policy.domain_label and by_domain != noted:
        yield f"who is unavailable is known: {dict(by_domain)} by domain, {noted} noted"


def _unavailable(rollout: model.Rollout) -> dict[model.NodeId, str]:
    """Give the nodes that are down, unwell or out, with their failure domains."""
    domains = {each.change.node_id: each.change.domain for each in reversed(_changes(rollout))}
    out = [each.change.node_id for each in _changes(rollout) if progress.is_out(each)]
    return {node_id: domains.get(node_id, "") for node_id in (*out, *_ill(rollout))}


def _ill(rollout: model.Rollout) -> list[model.NodeId]:
    return [node_id for node_id in rollout.standings if rollout.standings[node_id].is_unavailable]


def _deadlines(rollout: model.Rollout) -> Iterator[str]:
    is_live = rollout.state in _LIVE
    for each, where in _places(rollout):
        due_at = progress.due_at(each, rollout.judge_from)
        # What waits for its next attempt may have to wait for a free slot as well.
        if not is_live or due_at is None or where is P.RETRYING:
            continue
        if rollout.due_at is None or rollout.due_at > due_at:
            yield f"no deadline is missed: {each.change.node_id} is due at {due_at}, the sweep at {rollout.due_at}"
    if is_live and rollout.progress_by is None:
        yield "whatever goes on has an end: nothing bounds its lack of progress"


def _judged_waves(rollout: model.Rollout) -> Iterator[str]:
    """What a canary wave has to be judged by is waited for before anything follows it."""
    is_on_the_way = rollout.state in (S.RUNNING, S.PAUSED)
    passed = rollout.wave - 1 if is_on_the_way else len(rollout.plan.waves) if rollout.state is S.SUCCEEDED else 0
    last = max((index for index in range(1, passed + 1) if judging.is_judged(rollout, index)), default=0)
    record = rollout.judging
    if last and (record is None or record.wave < last):
        yield f"no canary wave is passed unjudged: wave {last} was"
    elif last and record is not None and record.wave == last and not judging.is_passed(record):
        yield f"a canary wave is passed when it is no worse, or somebody says so: wave {last} was not"


def _judging(rollout: model.Rollout) -> Iterator[str]:
    record = judging.current(rollout)
    if record is None:
        return
    if not record.is_over and rollout.state not in (S.RUNNING, S.PAUSED):
        yield f"nothing is judged any more once it ends or goes back: wave {record.wave} is"
    found = record.latest.finding if record.latest is not None else model.Finding.UNKNOWN
    if (record.unknown_at is None) is (found is model.Finding.UNKNOWN) and not record.is_over:
        yield f"missing evidence has a deadline, and nothing else has it: {found.value} with {record.unknown_at}"
    decided = record.decided.finding if record.decided is not None else None
    if rollout.reason == judging.WORSE and decided is not model.Finding.WORSE:
        yield f"only what is shown to be worse is taken back as such: it was {decided and decided.value}"
    if rollout.reason == judging.UNKNOWN and rollout.state in _BACK:
        yield "missing evidence takes nothing back: it has"


# Of a step.


def _starts_while_paused(decision: rollouts.Decision) -> Iterator[str]:
    if decision.rollout.state is S.PAUSED:
        started = [each for each in decision.effects if isinstance(each, effects.Assign | effects.Proceed)]
        yield from (f"what is paused starts nothing: {each.operation_id} began" for each in started)


def _starts_while_ending(before: model.Rollout, decision: rollouts.Decision) -> Iterator[str]:
    if _is_ending(before) and _is_ending(decision.rollout):
        started = [each for each in decision.effects if isinstance(each, effects.Assign | effects.Proceed)]
        yield from (f"what was cancelled or failed starts nothing more: {each.operation_id} began" for each in started)


def _is_ending(rollout: model.Rollout) -> bool:
    return bool(rollout.reason) and rollout.state in (S.RUNNING, S.PAUSED)


def _stands_still(before: model.Rollout, after: model.Rollout) -> Iterator[str]:
    if before.state is S.PAUSED and after.state is S.PAUSED:
        moved = [name for name in _STANDING_CLOCKS if getattr(before, name) != getattr(after, name)]
        yield from (f"while it is paused every clock stands: {name} has moved" for name in moved)


def _starts_in_order(after: model.Rollout, begun: list[effects.Assign]) -> Iterator[str]:
    for each in begun:
        standing = after.standings.get(each.change.node_id, model.Standing())
        if standing.down or (standing.frozen and not each.is_reverting):
            yield f"nothing starts on a node that something stands against: {each.operation_id} began"


def _slots(after: model.Rollout) -> Iterator[str]:
    policy, is_back = after.request.policy, after.state in _BACK
    bound = policy.revert_max_parallel if is_back else policy.max_parallel
    out = sum(
        where in _OUT and (not is_back or (each.is_reverting and each.state is not model.OperationState.UNKNOWN))
        for each, where in _places(after)
    )
    if bound and out > bound:
        yield f"parallelism is kept: {out} operations are out where {bound} may be"


def _goes_on(before: model.Rollout, after: model.Rollout, begun: list[effects.Assign]) -> Iterator[str]:
    """What a rule of the monitor holds starts nothing forward and passes no wave."""
    if not after.rule_holds or after.state in _BACK:
        return
    is_passed = before.state is S.RUNNING and (after.wave > before.wave or after.state is S.SUCCEEDED)
    if is_passed or any(not each.is_reverting for each in begun):
        yield f"a rule that holds it is heeded: it went on from wave {before.wave} to {after.wave}"


def _fresh(before: model.Rollout, after: model.Rollout, begun: list[effects.Assign]) -> set[model.NodeId]:
    """Give the nodes that a step has made unavailable by what it asks of them: not those that are so by themselves."""
    return {each.change.node_id for each in begun} - _unavailable(before).keys() - {*_ill(after)}


def _floor(before: model.Rollout, after: model.Rollout, begun: list[effects.Assign]) -> Iterator[str]:
    total = after.plan.blast_radius.of_nodes + len({each.node_id for each in after.joined}) - after.tally.removed
    kept = -(-total * after.request.policy.floor_percent // 100)
    available = total - len(_unavailable(after))
    if kept and available < kept and _fresh(before, after, begun):
        yield f"the floor is kept: {available} of {total} nodes are available where {kept} must be"


def _domains(before: model.Rollout, after: model.Rollout, begun: list[effects.Assign]) -> Iterator[str]:
    policy, unavailable = after.request.policy, _unavailable(after)
    counted = Counter(unavailable.values())
    for domain in sorted({unavailable[node_id] for node_id in _fresh(before, after, begun)} - {""}):
        if policy.domain_label and counted[domain] > policy.domain_max_parallel:
            yield f"failure domains are kept: {counted[domain]} nodes of {domain} are unavailable"
