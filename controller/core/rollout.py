"""The rollout: from the first wave of a plan to its end, or back.

Theory of operation. A rollout takes facts (a node's word, time, an absence of the controller) in every state and orders
(begin, revert) only where `TRANSITIONS` has a row for them. What it takes moves single changes (`progress`) and with
them the tally; then decisions follow from the tally until none is left, each of them again a row of the table; then
free slots are filled. The waves go out in order, each behind the `gate` of the one before. A rollout that can no
longer succeed by no fault of the version stays RUNNING with a reason, starts nothing, cancels what is out, and is
FAILED once no node is held; one whose version is at fault is REVERTING: it waits for the outcome of what is out and
takes every touched node back at once. What ends is recorded for ever, also behind the end of the rollout, so that a
later revert knows every node that was touched.

Rules kept: pure; time comes with the event; every deadline is a stored instant; an event without a row raises and
changes nothing; a step looks at the node that spoke and at the tally, never at every change: only due deadlines, a
change of direction and an absence do that. Left out: one component twice on one node (hops), pause and cancel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, unique
from typing import assert_never

from rpds import HashTrieMap

from controller.core import draft as drafts
from controller.core import effects, errors, events, model, progress


@unique
class Cause(Enum):
    """What moves a rollout: what happens to it, then what it decides."""

    BEGAN = "a controller begins it"
    NODE_REPORTED = "a node reports"
    TICKED = "time goes on"
    CONTROLLER_ABSENT = "the controller was away"
    REVERT_REQUESTED = "a revert is ordered"
    WAVE_PROMOTED = "the gate promotes the wave"
    LAST_WAVE_PROMOTED = "the gate promotes the last wave"
    VERSION_FAILED = "more nodes than may fail did so by the version's fault"
    INFRASTRUCTURE_FAILED = "more nodes than may fail did so otherwise"
    PROGRESS_LATE = "no node became healthy in time"
    RELEASED = "nothing holds a node any more"
    ALL_BACK = "every touched node is back"
    CANNOT_GO_BACK = "a touched node cannot go back"


S = model.RolloutState  # the table below is read by column
_FACTS = (Cause.NODE_REPORTED, Cause.TICKED, Cause.CONTROLLER_ABSENT)

TRANSITIONS: Mapping[model.RolloutState, Mapping[Cause, model.RolloutState]] = {
    S.PENDING: {
        **dict.fromkeys(_FACTS, S.PENDING),
        Cause.BEGAN: S.RUNNING,
    },
    S.RUNNING: {
        **dict.fromkeys(_FACTS, S.RUNNING),
        Cause.WAVE_PROMOTED: S.RUNNING,
        Cause.LAST_WAVE_PROMOTED: S.SUCCEEDED,
        Cause.INFRASTRUCTURE_FAILED: S.RUNNING,
        Cause.PROGRESS_LATE: S.RUNNING,
        Cause.RELEASED: S.FAILED,
        Cause.VERSION_FAILED: S.REVERTING,
        Cause.REVERT_REQUESTED: S.REVERTING,
    },
    S.REVERTING: {
        **dict.fromkeys(_FACTS, S.REVERTING),
        Cause.ALL_BACK: S.REVERTED,
        Cause.CANNOT_GO_BACK: S.STUCK,
    },
    S.SUCCEEDED: {
        **dict.fromkeys(_FACTS, S.SUCCEEDED),
        Cause.REVERT_REQUESTED: S.REVERTING,
    },
    S.FAILED: {
        **dict.fromkeys(_FACTS, S.FAILED),
        Cause.REVERT_REQUESTED: S.REVERTING,
    },
    S.REVERTED: dict.fromkeys(_FACTS, S.REVERTED),
    S.STUCK: dict.fromkeys(_FACTS, S.STUCK),
}

_OUT = frozenset({progress.Place.HOLDING, progress.Place.SETTLING})

_CAUSE_OF: Mapping[type[events.Event], Cause] = {
    events.Began: Cause.BEGAN,
    events.NodeReported: Cause.NODE_REPORTED,
    events.Ticked: Cause.TICKED,
    events.ControllerAbsent: Cause.CONTROLLER_ABSENT,
    events.RevertRequested: Cause.REVERT_REQUESTED,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a step decided.

    Args:
        rollout: The next state; the very object that went in where nothing changed, and then nothing is to be stored.
        effects: What is owed to the world, once the state is stored.
        changed: The changes that differ from the state before; all others are as they were.
    """

    rollout: model.Rollout
    effects: tuple[effects.Effect, ...] = ()
    changed: tuple[model.ChangeKey, ...] = ()


@dataclass(frozen=True, slots=True)
class _Why:
    """A decision on the whole rollout, with its reason."""

    cause: Cause
    reason: str = ""
    message: str = ""


def create(
    rollout_id: model.RolloutId, request: model.UpgradeRequest, plan: model.Plan, *, actor: str, at: datetime
) -> model.Rollout:
    """Accept a plan; nothing is asked of a node before ``Began``."""
    changes = (model.Progress(change=change, wave=wave.index) for wave in plan.waves for change in wave.changes)
    return model.Rollout(
        id=rollout_id,
        request=request,
        plan=plan,
        state=S.PENDING,
        actor=actor,
        created_at=at,
        changes=HashTrieMap({each.key: each for each in changes}),
    )


def step(rollout: model.Rollout, event: events.Event) -> Decision:
    """Take one event, and decide all that follows from it at this instant.

    Raises:
        IllegalEventError: `TRANSITIONS` has no row for the event in this state; nothing changed.
        RefusedError: A revert is ordered and no touched node has a way back; nothing changed.
    """
    cause = _CAUSE_OF[type(event)]
    if cause not in TRANSITIONS[rollout.state]:
        raise errors.IllegalEventError(
            f"cannot take the event '{cause.value}': rollout {rollout.id} is {rollout.state.value}",
            code="illegal_event",
            field="state",
            value=rollout.state.value,
            rule=f"allowed in {', '.join(state.value for state, row in TRANSITIONS.items() if cause in row)}",
        )
    draft = drafts.open_on(rollout)
    _take(draft, event, cause)
    while (why := _decide(draft, event.at)) is not None:
        _enter(draft, why, event.at)
    _fill(draft, event.at)
    return Decision(draft.finish(), tuple(draft.effects), tuple(draft.changed))


def next_deadline(rollout: model.Rollout) -> datetime | None:
    """Tell when a ``Ticked`` is due; it may find nothing to do, but none is missed."""
    if rollout.state not in (S.RUNNING, S.REVERTING):
        return None
    return min((each for each in (rollout.due_at, _progress_by(rollout)) if each is not None), default=None)


def outstanding(rollout: model.Rollout) -> tuple[effects.Effect, ...]:
    """Give the effects that may have to be performed again after a restart; looks at every change."""
    if rollout.state not in (S.RUNNING, S.REVERTING):
        return ()
    draft = drafts.open_on(rollout)
    is_cancelling = draft.is_going_back or draft.is_giving_up
    owed: list[effects.Effect] = []
    for each in draft.begun():
        if is_cancelling and drafts.is_cancellable(each):
            owed.append(drafts.cancel(each, rollout.reason))
        elif each.state is model.OperationState.ASSIGNED:
            owed.append(drafts.assign(each, rollout.request.policy))
    return tuple(owed)


def _progress_by(rollout: model.Rollout) -> datetime | None:
    if rollout.progress_by is None or rollout.judge_from is None:
        return rollout.progress_by
    return max(rollout.progress_by, rollout.judge_from)


# What happens.


def _take(draft: drafts.Draft, event: events.Event, cause: Cause) -> None:
    match event:
        case events.Began():
            draft.set(state=TRANSITIONS[S.PENDING][cause], progress_by=event.at + draft.policy.progress_deadline)
        case events.NodeReported():
            _hear(draft, event)
        case events.Ticked():
            _sweep(draft, event.at)
        case events.ControllerAbsent():
            _excuse(draft, event)
        case events.RevertRequested():
            _check_way_back(draft)
            _enter(draft, _Why(cause, "revert_requested", f"{event.actor} wants it back: {event.reason}"), event.at)
        case _:
            assert_never(event)


def _check_way_back(draft: drafts.Draft) -> None:
    """Refuse an order that could take no node back; where some can go back, these do and the others stay."""
    touched = [each for each in draft.begun() if each.is_touched]
    if touched and not any(map(progress.can_go_back, touched)):
        raise errors.RefusedError(
            f"cannot revert rollout {draft.rollout.id}: {touched[0].change.no_way_back}",
            code="no_way_back",
            field="rollout",
            value=draft.rollout.id,
            rule="a node goes back where the version before can use the state again",
        )


def _hear(draft: drafts.Draft, report: events.NodeReported) -> None:
    rollout = draft.rollout
    for wave in range(rollout.wave, 0, -1):
        before = draft.changes.get(model.ChangeKey(wave, report.node_id, rollout.request.component))
        if before is None or not before.attempt:
            continue
        rules = progress.Rules(
            policy=draft.policy,
            may_try_again=before.is_reverting is draft.is_going_back and not draft.is_giving_up,
            is_over=rollout.state.is_terminal,
            judge_from=rollout.judge_from,
        )
        after = progress.hear(before, report, rules)
        if after is not before:
            draft.put(after, report.at)
            _follow(draft, before, after, report.at)


def _follow(draft: drafts.Draft, before: model.Progress, after: model.Progress, at: datetime) -> None:
    """Do what follows from a node's word for its change alone."""
    is_at_fault = after.fault is model.Fault.VERSION and before.fault is not model.Fault.VERSION
    if is_at_fault and not after.is_reverting and after.change.kind in progress.VERSIONED:
        draft.effects.append(effects.RememberBad(after.change.node_id, after.change.to_digest, after.reason))
    if draft.rollout.state is S.REVERTING and after.is_touched and not after.is_reverting:
        _take_back(draft, after, at)
        return
    due_at = progress.due_at(after, draft.rollout.judge_from)
    if due_at is not None and due_at <= at and not draft.rollout.state.is_terminal:
        _fall_due(draft, after, at)


def _sweep(draft: drafts.Draft, at: datetime) -> None:
    """Look at every change, once one of them may be due."""
    known = draft.rollout.due_at
    if known is None or at < known or draft.rollout.state.is_terminal:
        return
    draft.set(due_at=None)
    for each in draft.begun():
        due_at = progress.due_at(each, draft.rollout.judge_from)
        if due_at is not None and due_at <= at:
            _fall_due(draft, each, at)
        else:
            draft.advance_due(due_at)


def _fall_due(draft: drafts.Draft, due: model.Progress, at: datetime) -> None:
    if progress.place(due, is_going_back=draft.is_going_back) is not progress.Place.RETRYING:
        draft.put(progress.overdue(due, draft.policy), at)
    elif draft.is_going_back or draft.slots > 0:
        draft.begin(due, at)
    else:
        draft.advance_due(progress.next_attempt_at(at))


def _excuse(draft: drafts.Draft, absence: events.ControllerAbsent) -> None:
    """Give every node that is out the time to report before it is judged (G8)."""
    if draft.rollout.state not in (S.RUNNING, S.REVERTING):
        return
    draft.set(judge_from=absence.judge_from, due_at=None)
    for each in draft.begun():
        is_out = progress.place(each, is_going_back=draft.is_going_back) in _OUT
        if is_out and each.is_judgeable:
            draft.put(replace(each, is_judgeable=False), absence.at)
        else:
            draft.advance_due(progress.due_at(each, absence.judge_from))


# What is decided.


def _decide(draft: drafts.Draft, at: datetime) -> _Why | None:
    progress_by = _progress_by(draft.rollout)
    is_late = progress_by is not None and progress_by <= at
    if draft.rollout.state is S.RUNNING:
        return _decide_forward(draft, is_late=is_late)
    if draft.rollout.state is S.REVERTING:
        return _decide_back(draft, is_late=is_late)
    return None


def _decide_forward(draft: drafts.Draft, *, is_late: bool) -> _Why | None:
    rollout = draft.rollout
    verdict = draft.verdict()
    if verdict.gate is model.Gate.REVERT:
        return _Why(Cause.VERSION_FAILED, verdict.reason, verdict.message)
    if draft.is_giving_up:
        is_over = is_late or not draft.counts["holding"]
        return _Why(Cause.RELEASED, rollout.reason, rollout.message) if is_over else None
    if verdict.gate is model.Gate.FAIL:
        return _Why(Cause.INFRASTRUCTURE_FAILED, verdict.reason, verdict.message)
    if verdict.gate is model.Gate.PROMOTE:
        is_last = rollout.wave == len(rollout.plan.waves)
        return _Why(Cause.LAST_WAVE_PROMOTED if is_last else Cause.WAVE_PROMOTED)
    if is_late:
        message = f"no node became healthy within {draft.policy.progress_deadline}"
        return _Why(Cause.PROGRESS_LATE, "progress_late", message)
    return None


def _decide_back(draft: drafts.Draft, *, is_late: bool) -> _Why | None:
    counts, why = draft.counts, draft.rollout.message
    if not (counts["holding"] or counts["settling"] or counts["retrying"]):
        if not counts["infrastructure_failed"]:
            return _Why(Cause.ALL_BACK, draft.rollout.reason, why)
        failed = f"{counts['infrastructure_failed']} of the touched nodes cannot go back"
        return _Why(Cause.CANNOT_GO_BACK, "revert_failed", f"{failed}; going back because: {why}")
    if is_late:
        late = f"no node came back within {draft.policy.progress_deadline}"
        return _Why(Cause.CANNOT_GO_BACK, "revert_late", f"{late}; going back because: {why}")
    return None


def _enter(draft: drafts.Draft, why: _Why, at: datetime) -> None:
    """Carry a decision out: a row of the table, and what goes with it."""
    state = TRANSITIONS[draft.rollout.state][why.cause]
    if state.is_terminal:
        _end(draft, state, why, at)
    elif state is S.REVERTING:
        _go_back(draft, why, at)
    elif why.cause is Cause.WAVE_PROMOTED:
        draft.counts |= {"assigned": 0, "wave_done": 0}
        draft.set(wave=draft.rollout.wave + 1, wave_started_at=at)
    else:
        _give_up(draft, why, at)


def _give_up(draft: drafts.Draft, why: _Why, at: datetime) -> None:
    """Begin nothing more, and wait for as long as a node may be silent for what holds nodes."""
    draft.set(reason=why.reason, message=why.message, progress_by=at + draft.policy.unknown_deadline)
    for each in draft.begun():
        _drop(draft, each, at)


def _go_back(draft: drafts.Draft, why: _Why, at: datetime) -> None:
    """Take every touched node back at once; what is out is cancelled, and its outcome waited for."""
    progress_by = at + draft.policy.progress_deadline
    draft.set(state=S.REVERTING, reason=why.reason, message=why.message, progress_by=progress_by, ended_at=None)
    draft.recount()
    for each in draft.begun():
        if each.is_touched:
            _take_back(draft, each, at)
        else:
            _drop(draft, each, at)


def _take_back(draft: drafts.Draft, each: model.Progress, at: datetime) -> None:
    """Begin to undo a change; one that has no way back stays where it is, and the rollout will be stuck."""
    if progress.can_go_back(each):
        draft.begin(each, at)
    else:
        draft.put(progress.left(each), at)


def _drop(draft: drafts.Draft, each: model.Progress, at: datetime) -> None:
    """Cancel what is out, and forget that what has ended was to be tried again."""
    if drafts.is_cancellable(each):
        draft.effects.append(drafts.cancel(each, draft.rollout.reason))
    elif each.ended_at is not None and each.deadline_at is not None:
        draft.put(replace(each, deadline_at=None), at)


def _end(draft: drafts.Draft, state: model.RolloutState, why: _Why, at: datetime) -> None:
    if draft.counts["holding"]:
        for each in draft.begun():
            if each.state in progress.HOLDS:
                draft.put(progress.silenced(each, "rollout_ended", "the rollout did not wait for it any longer"), at)
    draft.set(state=state, reason=why.reason, message=why.message, ended_at=at, progress_by=None, due_at=None)


def _fill(draft: drafts.Draft, at: datetime) -> None:
    """Give free slots to the changes of the wave, in plan order."""
    if draft.rollout.state is not S.RUNNING or draft.is_giving_up:
        return
    while draft.unassigned and draft.slots > 0:
        change = draft.wave_changes[draft.counts["assigned"]]
        draft.counts["assigned"] += 1
        draft.begin(draft.changes[model.ChangeKey(draft.rollout.wave, change.node_id, change.component)], at)
