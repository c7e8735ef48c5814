"""How a decision on the whole rollout is carried out: the next wave, the end, or the way back.

Rules kept: every state comes from the table; what is to be undone waits for its turn, the latest first; what is out is
cancelled and its outcome waited for; what ends leaves no clock behind. Left out: what begins next (`dispatch`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from controller.core import approving, asking, copying, dispatch, effects, judging, model, pausing, progress, together
from controller.core import draft as drafts
from controller.core.transitions import TRANSITIONS, Cause, Why

S = model.RolloutState
_TOGETHER = frozenset({Cause.ALL_PREPARED, Cause.ALL_SWITCHED, Cause.ALL_VERIFIED})
_JUDGED = frozenset({Cause.JUDGE_AWAITED, Cause.SHOWN_NO_WORSE, Cause.DOUBT_HOLDS})
_AT_FAULT = frozenset({Cause.VERSION_FAILED, Cause.SHOWN_WORSE})


def enter(draft: drafts.Draft, why: Why, at: datetime) -> None:
    """Carry a decision out: a row of the table, and what goes with it."""
    state = TRANSITIONS[draft.rollout.state][why.cause]
    pausing.wake(draft, at)
    if state.is_terminal:
        _end(draft, state, why, at)
    elif state is S.REVERTING:
        go_back(draft, why, at)
    elif why.cause is Cause.WAVE_PROMOTED:
        enter_wave(draft, draft.rollout.wave + 1, at)
    elif why.cause is Cause.BAKE_BEGAN:
        bake_until = at + draft.rollout.plan.waves[draft.rollout.wave - 1].bake_duration
        draft.set(bake_until=bake_until, progress_by=bake_until + draft.policy.progress_deadline)
    elif why.cause in _TOGETHER:
        together.carry_out(draft, why.cause, at)
    elif why.cause in _JUDGED:
        judging.carry_out(draft, why.cause, at)
    else:
        give_up(draft, why, at)


def enter_wave(draft: drafts.Draft, wave: int, at: datetime) -> None:
    """Let a wave go out; it may have been out before."""
    draft.set(
        wave=wave,
        wave_started_at=at,
        reached=max(wave, draft.rollout.reached),
        progress_by=at + draft.policy.progress_deadline,
        bake_until=None,
        verify_until=None,
        proceeded=None,
        is_promoted=draft.rollout.is_promoted and not draft.is_together,
    )
    judging.begin_anew(draft, at)
    draft.cursors, draft.ready, draft.unwell = {}, {}, ()
    draft.recount_wave()
    for node_id in sorted(draft.standings):
        if draft.standing(node_id).unwell:
            dispatch.release(draft, node_id)
    if wave == draft.last_wave:
        planned = len(draft.order.keys)
        for number in range(planned, planned + len(draft.rollout.joined)):
            dispatch.make_ready(draft, number)
    draft.has_moved = True


def give_up(draft: drafts.Draft, why: Why, at: datetime) -> None:
    """Begin nothing more, and wait for as long as a node may be silent for what holds nodes."""
    is_stopped = why.cause is Cause.VERSION_STOPPED
    judging.close(draft, at)
    draft.set(
        reason=why.reason,
        message=why.message,
        progress_by=at + draft.policy.unknown_deadline,
        is_version_at_fault=draft.rollout.is_version_at_fault or is_stopped,
        **_NO_CLOCKS,
    )
    for each in draft.begun():
        _cancel(draft, each, at)
    if is_stopped:
        draft.effects.extend(_blocks(draft, why.message))


def _blocks(draft: drafts.Draft, why: str) -> Iterator[effects.BlockEdge]:
    """Name each version that failed, and from which no way leads back, once."""
    stays = (each.change for each in draft.begun() if not progress.can_go_back(each))
    for component, version in dict.fromkeys((change.component, change.to_version) for change in stays):
        yield effects.BlockEdge(component, version, why)


def go_back(draft: drafts.Draft, why: Why, at: datetime, *, time_limit: timedelta | None = None) -> None:
    """Take every touched node back, the latest first; what is out is cancelled, and its outcome waited for."""
    if draft.rollout.state is S.PAUSED:
        pausing.resume(draft, S.RUNNING, at)
    is_at_fault = draft.rollout.is_version_at_fault or why.cause in _AT_FAULT
    judging.close(draft, at)
    draft.set(
        state=S.REVERTING,
        reason=why.reason,
        message=why.message,
        progress_by=at + (time_limit or draft.policy.progress_deadline),
        ended_at=None,
        is_emergency=why.cause is Cause.EMERGENCY_REQUESTED,
        is_version_at_fault=is_at_fault,
        **_NO_CLOCKS,
    )
    draft.recount()
    for each in draft.begun():
        if not each.is_touched:
            _cancel(draft, each, at)
            draft.advance_due(progress.due_at(each, draft.rollout.judge_from))
        else:
            prepare_return(draft, each, at)
    queue_back(draft)


def prepare_return(draft: drafts.Draft, each: model.Progress, at: datetime) -> None:
    """Let a touched change wait for its turn to go back, or leave it where nothing leads back."""
    if not progress.can_go_back(each):
        if not each.is_left:
            draft.put(progress.left(each), at)
    elif not each.is_reverting and each.deadline_at is not None:
        draft.put(copying.replace(each, deadline_at=None), at)  # what it was doing is judged no longer


def queue_back(draft: drafts.Draft) -> None:
    """Put all changes into the lanes that lead back; nodes that are unavailable already go first."""
    draft.cursors, draft.ready, draft.unwell = {}, {}, ()
    draft.recount()
    planned = len(draft.order.keys)
    for number in range(planned + len(draft.rollout.joined)):
        if number >= planned or draft.is_unavailable(draft.key(number).node_id):
            dispatch.make_ready(draft, number)
    draft.has_moved = True


_NO_CLOCKS: dict[str, object] = {
    "bake_until": None,
    "verify_until": None,
    "opens_at": None,
    "window_until": None,
    "deadline_at": None,
    "offline_until": None,
}


def _cancel(draft: drafts.Draft, each: model.Progress, at: datetime) -> None:
    """Cancel what is out, and forget that what has ended was to be tried again."""
    if asking.is_cancellable(each):
        draft.effects.append(asking.cancel(each, draft.rollout.reason))
    elif each.ended_at is not None and each.deadline_at is not None:
        draft.put(copying.replace(each, deadline_at=None), at)


def _end(draft: drafts.Draft, state: model.RolloutState, why: Why, at: datetime) -> None:
    if draft.tally.holding or draft.tally.waiting:
        for each in draft.begun():
            if each.state in progress.HOLDS and not each.is_skipped:
                draft.put(progress.silenced(each, "rollout_ended", "the rollout did not wait for it any longer"), at)
    approval = draft.rollout.approval
    draft.set(
        state=state,
        reason=why.reason,
        message=why.message,
        approval=None if approval is None else approving.ended(approval, why, at),
        ended_at=at,
        progress_by=None,
        due_at=None,
        paused_at=None,
        paused_because="",
        **_NO_CLOCKS,
    )
