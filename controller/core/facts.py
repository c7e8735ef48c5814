"""What happens to a rollout by nobody's order: words of nodes, time, an absence, nodes that come, go or stand still.

Rules kept: facts are taken in every state; a step looks at the node that spoke: only due deadlines and an absence look
at every change; a node that is down before its change began is waited for, left out, or given up after a time, as the
policy says, and being left out is no failure. Left out: what the rollout makes of it (`deciding`).
"""

from __future__ import annotations

from datetime import datetime

from controller.core import copying, dispatch, effects, events, hearing, judging, model, progress, together, turning
from controller.core import draft as drafts

S = model.RolloutState
_LIVE = frozenset({S.RUNNING, S.PAUSED, S.REVERTING})
_ON_THE_WAY = frozenset({S.RUNNING, S.PAUSED})
_OUT = frozenset({progress.Place.HOLDING, progress.Place.SETTLING})
_RETRYING = progress.Place.RETRYING
NODE_REMOVED = "node_removed"


# A node's word.


def hear(draft: drafts.Draft, report: events.NodeReported) -> None:
    """Take a node's word on each of its changes that has begun, the latest first; in a revert those that end first."""
    numbers = draft.numbers_of(report.node_id)
    for number in numbers if draft.is_going_back else reversed(numbers):
        key = draft.key(number)
        before = draft.changes[key]
        if not before.attempt or (draft.is_going_back and _is_overtaken(draft, number, before)):
            continue
        after = hearing.hear(before, report, _rules(draft, before, report.at))
        if after is not before:
            draft.exchange(key, before, after, report.at)
            _follow(draft, number, before, after, report.at)


def _is_overtaken(draft: drafts.Draft, number: int, later: model.Progress) -> bool:
    """Tell whether what a node shows of an ended change comes too late: an earlier one of the node is going back.

    A node may run what it said it had refused. Its earlier change goes back all the same, and first: one operation
    holds a node (G4). Of the same component nothing of the later one is left once that is done; another component's is
    heard then.
    """
    if later.is_reverting:
        return False
    earlier = (draft.of(other) for other in draft.numbers_of(later.change.node_id) if other < number)
    going_back = (each for each in earlier if each.is_reverting and each.state not in progress.ENDS)
    name = later.change.component
    return any(not progress.is_done(each) or each.change.component == name for each in going_back)


def _rules(draft: drafts.Draft, before: model.Progress, at: datetime) -> hearing.Rules:
    rollout = draft.rollout
    is_over = rollout.state.is_terminal
    may_try_again = before.is_reverting is draft.is_going_back and not (is_over or draft.is_giving_up)
    is_paused, clock = rollout.state is S.PAUSED, rollout.paused_at or at
    return hearing.Rules(rollout.request.policy, clock, may_try_again, is_over, is_paused, rollout.judge_from)


def _follow(draft: drafts.Draft, number: int, before: model.Progress, after: model.Progress, at: datetime) -> None:
    """Do what follows from a node's word for its change alone."""
    state = draft.rollout.state
    is_at_fault = after.fault is model.Fault.VERSION and before.fault is not model.Fault.VERSION and not before.is_bad
    if is_at_fault and not after.is_reverting and after.change.kind in progress.VERSIONED:
        draft.effects.append(effects.RememberBad(after.change.node_id, after.change.to_digest, after.reason))
    if after.committed_at is not None and before.committed_at is None and state in _ON_THE_WAY:
        _begin_judging(draft, after, at)
    if state is S.REVERTING and after.is_touched and not after.is_reverting:
        turning.prepare_return(draft, after, at)
        dispatch.make_ready(draft, number)
        return
    if after.state is model.OperationState.HELD and state is S.RUNNING and not draft.is_giving_up:
        draft.effects.extend(together.owed(iter([after]), draft.rollout.proceeded))
    due_at = progress.due_at(after, draft.rollout.judge_from)
    if due_at is not None and due_at <= at and state in (S.RUNNING, S.REVERTING):
        _fall_due(draft, after, at)


def _begin_judging(draft: drafts.Draft, after: model.Progress, at: datetime) -> None:
    """Let evidence count once the first node of a canary wave has changed."""
    is_own = after.change.component == draft.rollout.request.component
    if after.wave == draft.rollout.wave and is_own and not draft.is_giving_up:
        judging.begin(draft, at)


# Time.


def sweep(draft: drafts.Draft, at: datetime) -> None:
    """Look at every change, once one of them may be due."""
    if draft.rollout.state not in (S.RUNNING, S.REVERTING):
        return
    _turn(draft, at)
    known = draft.rollout.due_at
    if known is None or at < known:
        return
    draft.set(due_at=None)
    for each in draft.begun():
        due_at = progress.due_at(each, draft.rollout.judge_from)
        if due_at is not None and due_at <= at:
            _fall_due(draft, each, at)
        else:
            draft.advance_due(due_at)


def _turn(draft: drafts.Draft, at: datetime) -> None:
    """Do what is due for the rollout itself: a window opens, nodes that are down are given up."""
    rollout = draft.rollout
    if rollout.opens_at is not None and rollout.opens_at <= at:
        draft.set(opens_at=None)
        draft.has_moved = True
        if draft.tally.retrying:
            draft.advance_due(at)
    if rollout.offline_until is not None and rollout.offline_until <= at:
        draft.set(offline_until=None)
        give_down_up(draft, at)


def _fall_due(draft: drafts.Draft, due: model.Progress, at: datetime) -> None:
    if progress.place(due, is_going_back=draft.is_going_back) is not _RETRYING:
        draft.put(progress.overdue(due, draft.policy), at)
    elif dispatch.may_try_again(draft, due, at):
        draft.begin(due, at)
    elif not (draft.stands_against(due.change.node_id) or draft.is_held_by_rules or draft.rollout.opens_at is not None):
        draft.advance_due(progress.next_attempt_at(at))


def excuse(draft: drafts.Draft, absence: events.ControllerAbsent) -> None:
    """Give every node that is out the time to report before it is judged (G8), and learn how all of them stand."""
    if draft.rollout.state not in _LIVE:
        return
    judge_from = draft.clock(absence.at) + (absence.judge_from - absence.at)
    draft.set(judge_from=judge_from, due_at=None)
    for node_id, standing in absence.standings:
        change_standing(draft, events.StandingChanged(absence.at, node_id, standing))
    judging.excuse(draft, absence)
    for each in draft.begun():
        is_out = progress.place(each, is_going_back=draft.is_going_back) in _OUT
        if is_out and each.is_judgeable:
            draft.put(copying.replace(each, is_judgeable=False), absence.at)
        else:
            draft.advance_due(progress.due_at(each, judge_from))


# Nodes that stand still, come and go.


def change_standing(draft: drafts.Draft, event: events.StandingChanged) -> None:
    """Note what stands against a node; one that is free again may begin, one that is down may be given up."""
    node_id = event.node_id
    if draft.standing(node_id) == event.standing:
        return
    draft.set_standing(node_id, event.standing)
    if event.standing.down and draft.rollout.state in _ON_THE_WAY and _gives_up(draft):
        _give_node_up(draft, node_id, event.at)
    if not draft.stands_against(node_id):
        dispatch.release(draft, node_id)
        _try_again_soon(draft, node_id, event.at)


def _gives_up(draft: drafts.Draft) -> bool:
    """Tell whether a node that is down is not waited for."""
    policy = draft.policy.offline
    is_over = policy is model.OfflinePolicy.EXPIRE and draft.rollout.offline_until is None
    return policy is model.OfflinePolicy.SKIP or is_over


def _try_again_soon(draft: drafts.Draft, node_id: model.NodeId, at: datetime) -> None:
    numbers = draft.numbers_of(node_id)
    places = (progress.place(draft.of(number), is_going_back=draft.is_going_back) for number in numbers)
    if _RETRYING in places:
        draft.advance_due(draft.clock(at))


def give_down_up(draft: drafts.Draft, at: datetime) -> None:
    """Wait no longer for nodes that are down."""
    for node_id in sorted(draft.standings):
        if draft.standing(node_id).down:
            _give_node_up(draft, node_id, at)


def _give_node_up(draft: drafts.Draft, node_id: model.NodeId, at: datetime) -> None:
    """Drop what has not begun on a node that is down; what was to be tried again there has failed."""
    down = draft.standing(node_id).down
    for number in draft.numbers_of(node_id):
        each = draft.of(number)
        if progress.is_waiting(each):
            dispatch.drop(draft, each, "node_down", f"it was down before its change began: {down}", at)
        elif progress.place(each, is_going_back=False) is _RETRYING:
            message = f"it is down: {down}; before that: {each.message or each.reason}"
            draft.put(copying.replace(each, reason="node_down", message=message, deadline_at=None), at)


def join(draft: drafts.Draft, event: events.NodeJoined) -> None:
    """Let nodes that appeared follow the last wave, where the policy takes them in; those that are known do not."""
    rollout = draft.rollout
    if rollout.request.policy.join is not model.JoinPolicy.INCLUDE or draft.is_giving_up or not draft.last_wave:
        return
    for change in event.changes:
        key = model.ChangeKey(draft.last_wave, change.node_id, change.component)
        if change.node_id in draft.order.of_node or key in draft.changes:
            continue
        _add(draft, change, event.at)


def _add(draft: drafts.Draft, change: model.Change, at: datetime) -> None:
    added = model.Progress(change=change, wave=draft.last_wave)
    number = len(draft.order.keys) + len(draft.rollout.joined)
    standing = draft.standing(change.node_id)
    draft.set_standing(change.node_id, model.Standing())  # what it counted before, it counted in no failure domain
    draft.changes = draft.changes.insert(added.key, added)
    draft.changed.append(added.key)
    draft.set(joined=(*draft.rollout.joined, change))
    draft.set_standing(change.node_id, standing)
    draft.has_moved = True  # the floor is a share of one node more
    if draft.rollout.wave == draft.last_wave:
        dispatch.make_ready(draft, number)
    if draft.standing(change.node_id).down and _gives_up(draft):
        _give_node_up(draft, change.node_id, at)


def remove(draft: drafts.Draft, event: events.NodeRemoved) -> None:
    """Forget a node: its changes are dropped, whatever has become of them, and it counts for nothing any more."""
    plan = draft.rollout.plan
    changes = [draft.of(number) for number in draft.numbers_of(event.node_id)]
    others = (*plan.unchanged, *(each.node_id for each in plan.excluded))
    if any(each.reason == NODE_REMOVED for each in changes) or not (changes or event.node_id in others):
        return
    if draft.standing(event.node_id) != model.Standing():
        draft.set_standing(event.node_id, model.Standing())
    for each in changes:
        dispatch.drop(draft, each, NODE_REMOVED, "it is no longer part of the fleet", event.at)
    draft.move("removed", 1)
    draft.has_moved = True


# The monitor.


def heed_rules(draft: drafts.Draft, event: events.RulesChanged) -> None:
    """Note which rules keep the rollout where it is; once none does any more it goes on."""
    if event.holds == draft.rollout.rule_holds:
        return
    draft.set(rule_holds=event.holds)
    if not event.holds:
        draft.has_moved = True
        if draft.tally.retrying:
            draft.advance_due(draft.clock(event.at))
