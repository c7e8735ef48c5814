"""What somebody orders of a rollout, where the table has a row for it.

Rules kept: an order that could do nothing is refused, and then nothing has changed; whoever gave it and why is kept; a
version is not offered again where it was left for cause (G9). Left out: in which states an order is taken
(`transitions`).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from rpds import HashTrieMap

from controller.core import (
    approving,
    copying,
    dispatch,
    errors,
    events,
    facts,
    judging,
    model,
    pausing,
    progress,
    together,
    turning,
)
from controller.core import draft as drafts
from controller.core.transitions import TRANSITIONS, Cause, Why

S = model.RolloutState
_P = progress.Place
_UNFINISHED = frozenset({_P.WAITING, _P.SETTLING})


def begin(draft: drafts.Draft, event: events.Began) -> None:
    """Begin; a plan that was made anew takes the place of the one that waited."""
    approving.check_begin(draft.rollout, event)
    if event.plan is not None:
        draft.set(plan=event.plan)
        draft.order = event.plan.order
        draft.changes = changes_of(event.plan)
        draft.changed = list(draft.order.keys)
        _recount_domains(draft)
    _start_clocks(draft, event.at)
    draft.set(state=TRANSITIONS[S.PENDING][Cause.BEGAN])
    if draft.policy.offline is model.OfflinePolicy.SKIP:
        facts.give_down_up(draft, event.at)


def changes_of(plan: model.Plan) -> HashTrieMap[model.ChangeKey, model.Progress]:
    """Give the changes of a plan, none of them begun."""
    order = plan.order
    begun = (model.Progress(change, key.wave) for key, change in zip(order.keys, order.changes, strict=True))
    return HashTrieMap({each.key: each for each in begun})


def _recount_domains(draft: drafts.Draft) -> None:
    standings = draft.standings
    draft.standings, draft.domains, draft.known_tally = HashTrieMap(), {}, model.Tally()
    for node_id in sorted(standings):
        draft.set_standing(node_id, standings[node_id])


def _start_clocks(draft: drafts.Draft, at: datetime) -> None:
    policy = draft.policy
    is_expiring = policy.offline is model.OfflinePolicy.EXPIRE
    draft.set(
        progress_by=at + policy.progress_deadline,
        deadline_at=None if policy.deadline is None else at + policy.deadline,
        offline_until=at + policy.offline_deadline if is_expiring else None,
    )


def approve(draft: drafts.Draft, event: events.Approved) -> None:
    """Let it begin, as soon as its nodes are free."""
    known = approving.check(draft.rollout, event)
    approving.check_plan(draft.rollout, event.fingerprint, "approve")
    draft.set(approval=approving.decided(known, event))


def deny(draft: drafts.Draft, event: events.Denied) -> None:
    """End it before it has begun."""
    draft.set(approval=approving.decided(approving.check(draft.rollout, event), event))
    because = f": {event.reason}" if event.reason else ""
    turning.enter(draft, Why(Cause.DENIED, "approval_denied", f"{event.actor} denied it{because}"), event.at)


def pause(draft: drafts.Draft, event: events.Paused) -> None:
    """Stop every clock; nothing more starts."""
    pausing.pause(draft, f"{event.actor} paused it: {event.reason}", event.at)


def resume(draft: drafts.Draft, event: events.Resumed) -> None:
    """Go on where it was paused; nodes that are held meanwhile are let go on."""
    pausing.resume(draft, S.RUNNING, event.at)
    if not draft.is_giving_up:
        draft.effects.extend(together.owed(draft.begun(), draft.rollout.proceeded))
    draft.has_moved = True


def promote(draft: drafts.Draft, event: events.Promoted) -> None:
    """End what the wave waits for: its bake, its verification, the judge, or the word of somebody."""
    rollout, at = draft.rollout, event.at
    is_passed = draft.verdict().gate is model.Gate.PROMOTE and not draft.is_giving_up
    is_baking = is_passed and rollout.bake_until is not None and at < rollout.bake_until
    is_by_hand = draft.policy.is_promoted_by_hand and not rollout.is_promoted
    is_asked = is_by_hand and is_passed and rollout.wave == 1 and rollout.wave < draft.last_wave
    is_verifying = rollout.verify_until is not None and (is_by_hand or at < rollout.verify_until)
    is_judging = is_passed and judging.is_awaited(rollout)
    if not (is_baking or is_judging or is_verifying or (is_asked and not draft.is_together)):
        raise _refused(draft, "promote", "nothing waits for it", "nothing_to_promote", "what waits can be promoted")
    draft.set(
        is_promoted=True,
        bake_until=at if is_baking else rollout.bake_until,
        verify_until=at if is_verifying else rollout.verify_until,
    )
    if is_judging:
        judging.close(draft, at, event.actor)


def cancel(draft: drafts.Draft, event: events.CancelRequested) -> None:
    """Begin nothing more, give up what is out, and end where it then is."""
    why = Why(Cause.CANCEL_REQUESTED, "cancel_requested", f"{event.actor} cancelled it: {event.reason}")
    if draft.is_giving_up:
        raise _refused(draft, "cancel", f"it ends already: {draft.rollout.message}", "cancel_too_late", "it ends once")
    if draft.rollout.state is S.PAUSED:
        pausing.resume(draft, S.RUNNING, event.at)
    draft.set(is_cancelled=True)
    if draft.rollout.state is S.PENDING:
        turning.enter(draft, why, event.at)
    else:
        pausing.wake(draft, event.at)
        turning.give_up(draft, why, event.at)


def revert(draft: drafts.Draft, event: events.RevertRequested) -> None:
    """Take every touched node back; where some can go back, these do and the others stay."""
    touched = [each for each in draft.begun() if each.is_touched and not each.is_skipped]
    if touched and not any(map(progress.can_go_back, touched)):
        why = touched[0].change.no_way_back
        rule = "a node goes back where the version before can use the state again"
        raise _refused(draft, "revert", why, "no_way_back", rule)
    if draft.rollout.state is S.REVERTING and draft.rollout.is_emergency:
        rule = "an emergency is never put off"
        raise _refused(draft, "revert", "it goes back as an emergency already", "emergency_already", rule)
    message = f"{event.actor} wants it back: {event.reason}"
    pausing.wake(draft, event.at)
    if event.is_emergency:
        why_emergency = Why(Cause.EMERGENCY_REQUESTED, "emergency_requested", message)
        turning.go_back(draft, why_emergency, event.at, time_limit=event.time_limit)
    else:
        turning.go_back(draft, Why(Cause.REVERT_REQUESTED, "revert_requested", message), event.at)


def retry(draft: drafts.Draft, event: events.RetryRequested) -> None:
    """Try again what failed or never began; of a revert what could not go back; of what is back everything."""
    approving.check_retry(draft.rollout)
    if draft.rollout.state is S.STUCK:
        _retry_back(draft, event)
    else:
        _retry_forward(draft, event.at)


def _retry_forward(draft: drafts.Draft, at: datetime) -> None:
    is_back = draft.rollout.state is S.REVERTED
    chosen = [each for each in draft.all() if (is_back or _came_to_nothing(each)) and not _is_gone(each)]
    fresh = {each.key: each for each in chosen if not each.is_bad}
    if draft.rollout.is_version_at_fault or (chosen and not fresh) or (fresh and _has_barren_wave(draft, fresh)):
        rule = "a version is not offered again to a node that left it for cause"
        raise _refused(draft, "retry", "the version was at fault", "left_for_cause", rule)
    unjudged = _unjudged(draft)
    if not (fresh or unjudged):
        raise _refused(draft, "retry", "nothing of it failed", "nothing_to_retry", "what failed is tried again")
    _go_on(draft, S.RUNNING, "", "")
    for each in draft.all():
        if each.key in fresh and (each.attempt or each.attempts_other or each.is_skipped):
            draft.put(progress.again(each, is_reverting=False), at)
        elif is_back and each.is_bad:
            dispatch.drop(draft, each, "left_for_cause", "the node left this version for cause", at)
        else:
            _wait_for_again(draft, each, at)
    draft.recount()
    _start_clocks(draft, at)
    unfinished = (each.wave for each in draft.all() if progress.place(each, is_going_back=False) in _UNFINISHED)
    turning.enter_wave(draft, min([*unfinished, *unjudged]), at)
    if draft.policy.offline is model.OfflinePolicy.SKIP:
        facts.give_down_up(draft, at)


def _unjudged(draft: drafts.Draft) -> tuple[int, ...]:
    """Name the canary wave that the rollout ended behind without a judgement for it, if it did: none is passed so."""
    record = judging.current(draft.rollout)
    return () if record is None or judging.is_passed(record) else (record.wave,)


def _has_barren_wave(draft: drafts.Draft, fresh: Collection[model.ChangeKey]) -> bool:
    """Tell whether all of a wave before the first that is tried again has failed for good: none is passed so."""
    first = min(key.wave for key in fresh)
    before: dict[int, list[model.Progress]] = {}
    for each in draft.all():
        if each.wave < first:
            before.setdefault(each.wave, []).append(each)
    return any(
        not any(map(progress.is_done, wave)) and not all(each.is_skipped for each in wave) for wave in before.values()
    )


def _is_gone(each: model.Progress) -> bool:
    return each.reason == facts.NODE_REMOVED


def _came_to_nothing(each: model.Progress) -> bool:
    where = progress.place(each, is_going_back=False)
    return where not in (_P.DONE, _P.SETTLING)


def _go_on(draft: drafts.Draft, state: model.RolloutState, reason: str, message: str) -> None:
    draft.set(state=state, reason=reason, message=message, ended_at=None, is_cancelled=False, is_emergency=False)


def _wait_for_again(draft: drafts.Draft, each: model.Progress, at: datetime) -> None:
    """Judge the silence of a node again whose operation was still going on when the rollout ended."""
    if progress.place(each, is_going_back=draft.is_going_back) is _P.SETTLING:
        draft.put(copying.replace(each, deadline_at=at + draft.policy.unknown_deadline), at)


def _retry_back(draft: drafts.Draft, event: events.RetryRequested) -> None:
    chosen = {each.key for each in draft.begun() if _failed_to_go_back(each)}
    tally = draft.tally
    if not (chosen or tally.waiting or tally.settling or tally.holding or tally.retrying):
        rule = "a node goes back where the version before can use the state again"
        raise _refused(draft, "retry", "what did not go back cannot", "no_way_back", rule)
    message = f"{event.actor} wants it back all the same: {event.reason}"
    _go_on(draft, S.REVERTING, "retry_requested", message)
    draft.set(progress_by=event.at + draft.policy.progress_deadline)
    for each in draft.begun():
        if each.key in chosen:
            draft.put(_going_back_again(each), event.at)
        else:
            _wait_for_again(draft, each, event.at)
            draft.advance_due(progress.due_at(each, draft.rollout.judge_from))
    turning.queue_back(draft)


def _failed_to_go_back(each: model.Progress) -> bool:
    """Tell whether a change could be tried again: not one that has no way back itself."""
    if each.is_skipped or not progress.can_go_back(each):
        return False
    is_silent = each.is_reverting and each.state is model.OperationState.UNKNOWN
    return is_silent or progress.place(each, is_going_back=True) is _P.INFRASTRUCTURE_FAILED


def _going_back_again(each: model.Progress) -> model.Progress:
    return progress.again(each, is_reverting=True) if each.is_reverting else progress.unleft(each)


def _refused(draft: drafts.Draft, verb: str, why: str, code: str, rule: str) -> errors.RefusedError:
    known_as = draft.rollout.id
    message = f"cannot {verb} rollout {known_as}: {why}"
    return errors.RefusedError(message, code=code, field="rollout", value=known_as, rule=rule)
