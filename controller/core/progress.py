"""How far one change is: what a node's word does to it, and where it then stands.

Rules kept: pure; a word about an operation that is not the latest one changes nothing, nor does one that ``FOLLOWS``
does not allow, for agents repeat themselves; a fault that is not the version's own is never taken for one (G8); done
means PERMANENT and proven by a fresh report (G7): the node runs what was wanted, healthy for long enough, or shows that
it was removed or stopped. Left out: what the rollout makes of it (`rollout`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, unique
from typing import cast

from controller.core import events, model

ATTEMPTS_MAX = 3  # operations for one change in one direction; enough to tell a passing fault from a lasting one
RETRY_PAUSE = timedelta(seconds=5)  # before the next attempt; a host that is short of something needs time, not haste

_BEAT_START = datetime(1970, 1, 1, tzinfo=UTC)  # attempts share a beat, so that one sweep tries many of them
S = model.OperationState  # the tables below are read by column
K = model.ChangeKind

# Lead to a version that may be at fault, and be remembered for it.
VERSIONED = frozenset({K.INSTALL, K.UPGRADE})
_ENDING = frozenset({K.REMOVE, K.STOP})  # leave nothing that runs: there is no health to wait for, or to blame

_ENDS = frozenset({S.REFUSED, S.ABORTED, S.EXPIRED})
_COMMITS = frozenset({S.COMMITTED, S.PERMANENT})
HOLDS = frozenset({S.ASSIGNED, S.ACCEPTED, S.RUNNING, S.HELD})

UNDOES: Mapping[model.ChangeKind, model.ChangeKind] = {
    K.INSTALL: K.REMOVE,
    K.UPGRADE: K.UPGRADE,
    K.REMOVE: K.INSTALL,
    K.START: K.STOP,
    K.STOP: K.START,
    K.RESTART: K.RESTART,  # never asked for: a restart leaves nothing to take back
}

FOLLOWS: Mapping[model.OperationState, frozenset[model.OperationState]] = {
    # What an agent may say next of an operation that stands so here.
    S.ASSIGNED: frozenset({S.ACCEPTED, S.RUNNING, S.HELD}) | _COMMITS | _ENDS,
    S.ACCEPTED: frozenset({S.RUNNING, S.HELD}) | _COMMITS | _ENDS,
    S.RUNNING: frozenset({S.RUNNING, S.HELD}) | _COMMITS | _ENDS,
    S.HELD: frozenset({S.RUNNING, S.HELD}) | _COMMITS | _ENDS,
    S.COMMITTED: frozenset({S.COMMITTED, S.PERMANENT}),
    S.PERMANENT: frozenset(),
    S.REFUSED: frozenset(),
    S.ABORTED: frozenset(),
    S.EXPIRED: frozenset(),
    # Nobody knew, so whatever the node says is news.
    S.UNKNOWN: frozenset({S.ACCEPTED, S.RUNNING, S.HELD}) | _COMMITS | _ENDS,
}


@unique
class Place(Enum):
    """Where a change stands; all but the first are counted by the field of the tally that has the same name."""

    WAITING = "waiting"
    HOLDING = "holding"
    SETTLING = "settling"
    RETRYING = "retrying"
    DONE = "done"
    VERSION_FAILED = "version_failed"
    INFRASTRUCTURE_FAILED = "infrastructure_failed"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the rollout lets a node's word do.

    Args:
        may_try_again: False where an ended operation is not followed by another attempt.
        is_over: True once the rollout has ended: its outcomes are still recorded, nothing is judged.
        judge_from: Instant before which a node that was not heard of in full since an absence is not judged.
    """

    policy: model.Policy
    may_try_again: bool
    is_over: bool
    judge_from: datetime | None


def place(progress: model.Progress, *, is_going_back: bool) -> Place:
    """Say where a change stands, in a rollout that goes forward or back."""
    state = progress.state
    if is_going_back and not progress.is_reverting:
        return _place_of_left(progress)
    if state is None:
        return Place.WAITING
    if state in HOLDS or (state is S.UNKNOWN and is_going_back):
        return Place.HOLDING
    if is_done(progress):
        return Place.DONE
    if progress.fault is not model.Fault.VERSION and state in _COMMITS:
        return Place.SETTLING
    if state in _ENDS and progress.deadline_at is not None:
        return Place.RETRYING
    if progress.fault is model.Fault.VERSION and not is_going_back:
        return Place.VERSION_FAILED
    return Place.INFRASTRUCTURE_FAILED


def _place_of_left(progress: model.Progress) -> Place:
    """Say where a change stands that a revert has not begun to undo, or never will."""
    if progress.state in HOLDS:
        return Place.HOLDING
    if not can_go_back(progress):
        return Place.INFRASTRUCTURE_FAILED
    return Place.HOLDING if progress.state is S.UNKNOWN else Place.DONE


def can_go_back(progress: model.Progress) -> bool:
    """Tell whether a change can be undone; one that was never committed has nothing to undo."""
    return not (progress.is_touched and progress.change.no_way_back)


def left(progress: model.Progress) -> model.Progress:
    """Leave a change that cannot be undone where it is, and say why."""
    return replace(progress, reason="no_way_back", message=progress.change.no_way_back, deadline_at=None)


def is_done(progress: model.Progress) -> bool:
    """Tell whether the latest operation has reached all that it was for."""
    return progress.state is S.PERMANENT and progress.is_proven


def wanted(progress: model.Progress) -> model.Change:
    """Give what the latest operation does: the planned change, or what undoes it."""
    return undo(progress.change) if progress.is_reverting else progress.change


def undo(change: model.Change) -> model.Change:
    """Derive what takes a change back."""
    return replace(
        change,
        kind=UNDOES[change.kind],
        from_version=change.to_version,
        from_digest=change.to_digest,
        to_version=change.from_version,
        to_digest=change.from_digest,
    )


def due_at(progress: model.Progress, judge_from: datetime | None) -> datetime | None:
    """Tell when time alone changes something; None for never."""
    if progress.deadline_at is None or progress.is_judgeable or judge_from is None:
        return progress.deadline_at
    return max(progress.deadline_at, judge_from)


def assigned(
    progress: model.Progress, rollout_id: model.RolloutId, policy: model.Policy, at: datetime, *, is_reverting: bool
) -> model.Progress:
    """Begin the next attempt, or the first one in another direction."""
    attempt = progress.attempt + 1 if progress.is_reverting is is_reverting else 1
    direction = "revert" if is_reverting else "forward"
    change = progress.change
    name = f"{rollout_id}/{progress.wave}/{change.node_id}/{change.component}/{direction}/{attempt}"
    return model.Progress(
        change=change,
        wave=progress.wave,
        attempt=attempt,
        is_reverting=is_reverting,
        operation_id=model.OperationId(name),
        state=S.ASSIGNED,
        assigned_at=at,
        deadline_at=at + policy.unknown_deadline,
        is_touched=progress.is_touched,
    )


def silenced(progress: model.Progress, reason: str, message: str) -> model.Progress:
    """Give up knowing the outcome: nobody knows it until the node speaks again."""
    return replace(
        progress, state=S.UNKNOWN, fault=model.Fault.INFRASTRUCTURE, reason=reason, message=message, deadline_at=None
    )


def overdue(progress: model.Progress, policy: model.Policy) -> model.Progress:
    """Give up waiting for a node that was silent for too long, or that could not be given its operation."""
    if progress.state is S.ASSIGNED and progress.reason:
        return silenced(progress, progress.reason, progress.message)
    return silenced(progress, "silent", f"the node said nothing for {policy.unknown_deadline}")


def hear(progress: model.Progress, report: events.NodeReported, rules: Rules) -> model.Progress:
    """Take a node's word on one change; gives the same object back where it says nothing new."""
    if is_done(progress):
        return progress
    told = replace(progress, is_judgeable=True) if report.is_full and not progress.is_judgeable else progress
    statuses = [each for each in report.operations if each.operation_id == progress.operation_id]
    for status in statuses:
        told = _told(told, status, report.at, rules)
    if rules.is_over:
        return told  # what the node runs by now may be the work of a later rollout
    component = _component(report, progress.change.component)
    told = _seen(told, component, report, rules.policy)
    told = _hindered(told, report.conditions)
    if report.is_full and not statuses and _is_given_up(told, report.at):
        told = _forgotten(told, component, report.at, rules)
    return _dated(told, component, report.at, rules)


def _component(report: events.NodeReported, name: model.ComponentName) -> model.InstalledComponent | None:
    return next((each for each in report.components if each.name == name), None)


def _told(progress: model.Progress, status: model.OperationStatus, at: datetime, rules: Rules) -> model.Progress:
    follows = FOLLOWS[cast("model.OperationState", progress.state)]
    is_final = progress.state is S.COMMITTED and progress.fault is model.Fault.VERSION
    if is_final or status.state not in follows or (rules.is_over and status.state in HOLDS):
        return progress
    told = replace(
        progress,
        state=status.state,
        step=status.step,
        fault=status.fault,
        reason=status.reason,
        message=status.message,
    )
    if told == progress:
        return progress
    if status.state in _ENDS:
        return _ended(told, at, rules)
    told = replace(told, deadline_at=None if rules.is_over else at + rules.policy.unknown_deadline)
    return _committed(told, at) if status.state in _COMMITS else told


def _committed(progress: model.Progress, at: datetime) -> model.Progress:
    return replace(
        progress,
        committed_at=progress.committed_at or at,
        is_touched=progress.is_touched or (not progress.is_reverting and progress.change.kind is not K.RESTART),
    )


def _ended(progress: model.Progress, at: datetime, rules: Rules) -> model.Progress:
    is_lasting = progress.fault is model.Fault.VERSION and not progress.is_reverting
    is_last = is_lasting or not rules.may_try_again or progress.attempt >= ATTEMPTS_MAX
    return replace(progress, ended_at=at, deadline_at=None if is_last else next_attempt_at(at))


def next_attempt_at(at: datetime) -> datetime:
    """Give the next beat at which ended operations are tried again."""
    earliest = at + RETRY_PAUSE
    return earliest + (_BEAT_START - earliest) % RETRY_PAUSE


def _is_given_up(progress: model.Progress, at: datetime) -> bool:
    """Tell whether the node can no longer begin the operation, should it not hold it yet."""
    is_late = progress.deadline_at is not None and progress.deadline_at <= at
    return progress.state is S.UNKNOWN or (progress.state is S.ASSIGNED and is_late)


def _forgotten(
    progress: model.Progress, component: model.InstalledComponent | None, at: datetime, rules: Rules
) -> model.Progress:
    """Conclude from a full report that does not name an operation that had been given up."""
    if _is_shown(wanted(progress), component, is_permanent=True):
        told = replace(progress, state=S.PERMANENT, fault=None, reason="", message="")
        return _committed(replace(told, deadline_at=at + rules.policy.unknown_deadline), at)
    told = _ended(
        replace(progress, state=S.EXPIRED, reason="forgotten", message="the node does not hold it"), at, rules
    )
    return told if told.deadline_at is None else replace(told, deadline_at=at)


def _seen(
    progress: model.Progress,
    component: model.InstalledComponent | None,
    report: events.NodeReported,
    policy: model.Policy,
) -> model.Progress:
    """Take what the node runs as evidence of the operation."""
    change = wanted(progress)
    if component is None and change.kind is not K.REMOVE:
        return progress
    is_proven = _is_proven(progress, component, policy)
    is_told = component is not None or report.is_full
    is_evident = not progress.is_reverting and is_told and _is_shown(progress.change, component)
    is_touched = progress.is_touched or is_evident
    if (is_proven, is_touched) == (progress.is_proven, progress.is_touched):
        return progress
    return replace(progress, is_proven=is_proven, is_touched=is_touched)


def _is_proven(progress: model.Progress, component: model.InstalledComponent | None, policy: model.Policy) -> bool:
    """Tell whether what the node runs is all that the operation was for (G7)."""
    change = wanted(progress)
    if component is None:
        return progress.state is S.PERMANENT
    if change.kind in _ENDING:
        return _is_shown(change, component)
    # What a restart ends has the same digest, and may have been healthy for long: only what comes after COMMIT counts.
    if component.digest != change.to_digest or (change.kind is K.RESTART and progress.state not in _COMMITS):
        return False
    is_well = component.health is not model.Health.UNHEALTHY and not component.is_stopped
    return is_well and component.healthy_for >= policy.min_healthy_duration


def _is_shown(change: model.Change, component: model.InstalledComponent | None, *, is_permanent: bool = False) -> bool:
    """Tell whether a node, by what it runs, has carried a change out; a restart leaves no such trace."""
    if change.kind is K.REMOVE or component is None:
        return change.kind is K.REMOVE and component is None
    digest = component.permanent_digest if is_permanent else component.digest
    if digest != change.to_digest or change.kind is K.RESTART:
        return False
    return change.kind not in (K.START, K.STOP) or component.is_stopped is (change.kind is K.STOP)


def _hindered(progress: model.Progress, conditions: tuple[model.Condition, ...]) -> model.Progress:
    """Say for which reason a node was not given its operation yet; take it back once that is over."""
    if progress.state is not S.ASSIGNED:
        return progress
    found = model.hindrance(conditions)
    told = ("", "") if found is None else (found.code, f"the node is given no operation: {found.message}")
    if told == (progress.reason, progress.message):
        return progress
    return replace(progress, reason=told[0], message=told[1])


def _dated(
    progress: model.Progress, component: model.InstalledComponent | None, at: datetime, rules: Rules
) -> model.Progress:
    """Judge the node by its health, end what is done, and put the deadline of its silence off."""
    if is_done(progress):
        return replace(progress, ended_at=at, deadline_at=None)
    judged = _judged(progress, component, at, rules)
    if judged.state in _COMMITS and judged.fault is model.Fault.VERSION:
        return replace(judged, ended_at=at, deadline_at=None) if judged.deadline_at is not None else judged
    is_live = judged.state in _COMMITS or (judged.state in HOLDS and judged.state is not S.ASSIGNED)
    patience = rules.policy.unknown_deadline
    # Put off in halves: a heartbeat that changes nothing is then seldom worth a write.
    if is_live and judged.deadline_at is not None and judged.deadline_at - at <= patience / 2:
        return replace(judged, deadline_at=at + patience)
    return judged


def _judged(
    progress: model.Progress, component: model.InstalledComponent | None, at: datetime, rules: Rules
) -> model.Progress:
    if progress.state is not S.COMMITTED or progress.committed_at is None or progress.fault is model.Fault.VERSION:
        return progress
    if wanted(progress).kind in _ENDING:
        return progress
    is_judgeable = progress.is_judgeable or rules.judge_from is None or at >= rules.judge_from
    if not is_judgeable or at < progress.committed_at + rules.policy.healthy_deadline:
        return progress
    if component is not None and component.digest != wanted(progress).to_digest:
        return progress
    return replace(
        progress,
        fault=model.Fault.VERSION,
        reason="not_healthy_in_time",
        message=f"it was not healthy without a break within {rules.policy.healthy_deadline} after COMMIT",
    )
