"""Clocks that stand still: of a rollout that is paused all, and the lack of progress while nothing can be done.

Rules kept: a pause stops every clock at its instant, and going on moves every stored deadline by the length of the
pause, so that each has as much time left as it had. While nothing is out and only a window, a promotion by hand, a rule
of the monitor or the standing of nodes is waited for, no progress is expected: that clock alone stands. Both are
counted in ``stopped_for``. Left out: windows, which are times on the wall and stand still for nobody.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from controller.core import copying, dispatch, judging, model, progress
from controller.core import draft as drafts

_MOVED = ("progress_by", "due_at", "judge_from", "bake_until", "verify_until", "deadline_at", "offline_until")


def pause(draft: drafts.Draft, why: str, at: datetime) -> None:
    """Stop every clock."""
    wake(draft, at)
    draft.set(state=model.RolloutState.PAUSED, paused_at=at, paused_because=why)


def resume(draft: drafts.Draft, state: model.RolloutState, at: datetime) -> None:
    """Let every clock of a paused rollout go on."""
    length = at - (draft.rollout.paused_at or at)
    moved = {name: _later(getattr(draft.rollout, name), length) for name in _MOVED}
    stopped_for = draft.rollout.stopped_for + length
    draft.set(state=state, paused_at=None, paused_because="", stopped_for=stopped_for, **moved)
    judging.put_off(draft, length, at)
    for each in draft.begun():
        if each.deadline_at is not None:
            deadline_at, healthy_by = _later(each.deadline_at, length), _later(each.healthy_by, length)
            draft.put(copying.replace(each, deadline_at=deadline_at, healthy_by=healthy_by), at)


def _later(instant: datetime | None, length: timedelta) -> datetime | None:
    return None if instant is None else instant + length


def doze(draft: drafts.Draft, at: datetime) -> None:
    """Let the lack of progress be judged from now on, or no longer, as the rollout stands at the end of a step."""
    if not _is_idle(draft, at):
        wake(draft, at)
    elif draft.rollout.idle_since is None:
        draft.set(idle_since=at)


def wake(draft: drafts.Draft, at: datetime) -> None:
    """Judge the lack of progress again, less the time in which none was expected."""
    since = draft.rollout.idle_since
    if since is None:
        return
    length, rollout = at - since, draft.rollout
    progress_by = _later(rollout.progress_by, length)
    draft.set(idle_since=None, progress_by=progress_by, stopped_for=rollout.stopped_for + length)


def _is_idle(draft: drafts.Draft, at: datetime) -> bool:
    """Tell whether nothing is out, and time alone, somebody or the standing of nodes is waited for."""
    rollout, tally = draft.rollout, draft.tally
    if rollout.state is not model.RolloutState.RUNNING or draft.is_giving_up or tally.settling:
        return False
    if tally.holding:
        return draft.is_held_by_rules and draft.is_together and _held(tally) == tally.holding
    if rollout.opens_at is not None or draft.is_held_by_rules:
        return True
    if tally.retrying:
        return tally.retrying == _blocked(draft)
    if draft.unassigned:
        return dispatch.is_kept_from_outside(draft)
    return rollout.bake_until is None or rollout.bake_until <= at  # a bake is time well spent


def _held(tally: model.Tally) -> int:
    return tally.held_at_switch + tally.held_at_commit


def _blocked(draft: drafts.Draft) -> int:
    """Count the changes that wait for their next attempt and whose node keeps them from it."""
    return sum(
        progress.place(draft.of(number), is_going_back=False) is progress.Place.RETRYING
        for node_id in draft.standings
        for number in draft.numbers_of(node_id)
    )
