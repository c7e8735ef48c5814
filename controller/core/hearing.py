"""What a node's word does to a change.

Rules kept: pure; a word about an operation that is not the latest one changes nothing, nor does one that ``FOLLOWS``
does not allow, for agents repeat themselves; a fault that is not the version's own is never taken for one (G8); proven
is what a fresh report shows (G7): the node runs what was wanted, healthy for long enough, or shows that it was removed
or stopped; while the rollout is paused no deadline is judged, and those that are set count from where its clocks
stand. Left out: what the rollout makes of it.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, cast

from controller.core import copying, events, model, progress

S = model.OperationState
K = model.ChangeKind

# What a word changes, each at once.
_saying = copying.replacing(model.Progress, "state", "step", "fault", "reason", "message", "deadline_at", "is_bad")
_committing = copying.replacing(model.Progress, "committed_at", "healthy_by", "is_touched")
_showing = copying.replacing(model.Progress, "is_proven", "is_touched")
_ending = copying.replacing(model.Progress, "ended_at", "deadline_at")
_waiting = copying.replacing(model.Progress, "deadline_at")

_ENDING = frozenset({K.REMOVE, K.STOP})  # leave nothing that runs: there is no health to wait for, or to blame


class Rules(NamedTuple):
    """What a node's word is taken by; a tuple, for each word needs one, and of values tuples are made soonest.

    Args:
        clock: Instant from which deadlines count; it stands still while the rollout is paused.
        may_try_again: False where an ended operation is not followed by another attempt.
        is_over: True once the rollout has ended: its outcomes are still recorded, nothing is judged.
        is_paused: True where no deadline is judged for now.
        judge_from: Instant before which a node that was not heard of in full since an absence is not judged.
    """

    policy: model.Policy
    clock: datetime
    may_try_again: bool
    is_over: bool
    is_paused: bool
    judge_from: datetime | None


def hear(before: model.Progress, report: events.NodeReported, rules: Rules) -> model.Progress:
    """Take a node's word on one change; gives the same object back where it says nothing new."""
    if progress.is_done(before) or before.is_skipped:
        return before
    if before.state is None:
        return before if rules.is_over else _evident(before, report)
    told = copying.replace(before, is_judgeable=True) if report.is_full and not before.is_judgeable else before
    is_named = False
    for status in report.operations:
        if status.operation_id == before.operation_id:
            is_named = True
            told = _told(told, status, report.at, rules)
    if rules.is_over:
        return told  # what the node runs by now may be the work of a later rollout
    component = _component(report, before.change.component)
    told = _seen(told, component, report, rules)
    if told.state is S.ASSIGNED:
        told = _hindered(told, report.conditions)
    if report.is_full and not is_named and _is_given_up(told, rules.clock):
        told = _forgotten(told, component, report.at, rules)
    return _dated(told, component, report.at, rules)


def _component(report: events.NodeReported, name: model.ComponentName) -> model.InstalledComponent | None:
    for each in report.components:
        if each.name == name:
            return each
    return None


def _evident(before: model.Progress, report: events.NodeReported) -> model.Progress:
    """Take what the node shows of an earlier operation while the change waits for the next one."""
    is_committed = any(
        each.operation_id == before.operation_id and each.state in progress.COMMITS for each in report.operations
    )
    component = _component(report, before.change.component)
    is_told = component is not None or report.is_full
    is_evident = is_committed or (is_told and _is_shown(before.change, component))
    if before.is_reverting or before.is_touched or not is_evident or before.change.kind is K.RESTART:
        return before
    return copying.replace(before, is_touched=True)


def _told(told: model.Progress, status: model.OperationStatus, at: datetime, rules: Rules) -> model.Progress:
    state = status.state
    is_final = told.state is S.COMMITTED and told.fault is model.Fault.VERSION
    follows = progress.FOLLOWS[cast("model.OperationState", told.state)]
    if is_final or state not in follows or (rules.is_over and state in progress.HOLDS):
        return told
    known = (told.state, told.step, told.fault, told.reason, told.message)
    if known == (state, status.step, status.fault, status.reason, status.message):
        return told
    deadline_at = None if rules.is_over else rules.clock + rules.policy.unknown_deadline
    is_bad = told.is_bad or (status.fault is model.Fault.VERSION and not told.is_reverting)
    told = _saying(told, state, status.step, status.fault, status.reason, status.message, deadline_at, is_bad)
    if state in progress.ENDS:
        return _ended(told, at, rules)
    return _committed(told, at, rules) if state in progress.COMMITS else told


def _committed(told: model.Progress, at: datetime, rules: Rules) -> model.Progress:
    healthy_by = told.healthy_by or rules.clock + rules.policy.healthy_deadline
    is_touched = told.is_touched or (not told.is_reverting and told.change.kind is not K.RESTART)
    return _committing(told, told.committed_at or at, healthy_by, is_touched)


def _ended(told: model.Progress, at: datetime, rules: Rules) -> model.Progress:
    is_lasting = told.is_bad and not told.is_reverting
    is_used_up = told.attempt - told.attempts_before >= progress.ATTEMPTS_MAX
    is_last = is_lasting or not rules.may_try_again or is_used_up
    deadline_at = None if is_last else progress.next_attempt_at(rules.clock)
    # What the node once said of the version stands, whatever it has forgotten since.
    fault = model.Fault.VERSION if is_lasting else told.fault
    return copying.replace(told, fault=fault, ended_at=at, deadline_at=deadline_at)


def _is_given_up(told: model.Progress, clock: datetime) -> bool:
    """Tell whether the node can no longer begin the operation, should it not hold it yet."""
    is_late = told.deadline_at is not None and told.deadline_at <= clock
    return told.state is S.UNKNOWN or (told.state is S.ASSIGNED and is_late)


def _forgotten(
    told: model.Progress, component: model.InstalledComponent | None, at: datetime, rules: Rules
) -> model.Progress:
    """Conclude from a full report that does not name an operation that had been given up."""
    if _is_shown(progress.wanted(told), component, is_permanent=True):
        due_at = rules.clock + rules.policy.unknown_deadline
        shown = copying.replace(told, state=S.PERMANENT, fault=None, reason="", message="", deadline_at=due_at)
        return _committed(shown, at, rules)
    lost = copying.replace(told, state=S.EXPIRED, reason="forgotten", message="the node does not hold it")
    ended = _ended(lost, at, rules)
    return ended if ended.deadline_at is None else copying.replace(ended, deadline_at=rules.clock)


def _seen(
    told: model.Progress, component: model.InstalledComponent | None, report: events.NodeReported, rules: Rules
) -> model.Progress:
    """Take what the node runs as evidence of the operation."""
    if component is None and progress.wanted(told).kind is not K.REMOVE:
        return told
    is_proven = _is_proven(told, component, rules.policy)
    is_told = component is not None or report.is_full
    is_evident = not told.is_reverting and is_told and _is_shown(told.change, component)
    is_touched = told.is_touched or is_evident
    if (is_proven, is_touched) == (told.is_proven, told.is_touched):
        return told
    return _showing(told, is_proven, is_touched)


def _is_proven(told: model.Progress, component: model.InstalledComponent | None, policy: model.Policy) -> bool:
    """Tell whether what the node runs is all that the operation was for (G7)."""
    change = progress.wanted(told)
    if component is None:
        return told.state is S.PERMANENT
    if change.kind in _ENDING:
        return _is_shown(change, component)
    # What a restart ends has the same digest, and may have been healthy for long: only what comes after COMMIT counts.
    if component.digest != change.to_digest or (change.kind is K.RESTART and told.state not in progress.COMMITS):
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


def _hindered(told: model.Progress, conditions: tuple[model.Condition, ...]) -> model.Progress:
    """Say for which reason a node was not given its operation yet; take it back once that is over."""
    found = model.hindrance(conditions)
    said = ("", "") if found is None else (found.code, f"the node is given no operation: {found.message}")
    if said == (told.reason, told.message):
        return told
    return copying.replace(told, reason=said[0], message=said[1])


def _dated(
    told: model.Progress, component: model.InstalledComponent | None, at: datetime, rules: Rules
) -> model.Progress:
    """Judge the node by its health, end what is done, and put the deadline of its silence off."""
    if progress.is_done(told):
        return _ending(told, at, None)
    judged = _judged(told, component, rules)
    state = judged.state
    if state in progress.COMMITS and judged.fault is model.Fault.VERSION:
        if judged.deadline_at is None:
            return judged
        is_bad = judged.is_bad or not judged.is_reverting
        return copying.replace(judged, ended_at=at, deadline_at=None, is_bad=is_bad)
    is_live = state in progress.COMMITS or (state in progress.HOLDS and state is not S.ASSIGNED)
    if not is_live or judged.deadline_at is None:
        return judged
    # Put off in halves: a heartbeat that changes nothing is then seldom worth a write.
    patience, left = rules.policy.unknown_deadline, judged.deadline_at - rules.clock
    if left + left > patience:
        return judged
    return _waiting(judged, rules.clock + patience)


def _judged(told: model.Progress, component: model.InstalledComponent | None, rules: Rules) -> model.Progress:
    if told.state is not S.COMMITTED or told.committed_at is None or told.fault is model.Fault.VERSION:
        return told
    if rules.is_paused or progress.wanted(told).kind in _ENDING:
        return told
    is_judgeable = told.is_judgeable or rules.judge_from is None or rules.clock >= rules.judge_from
    healthy_by = told.healthy_by or told.committed_at + rules.policy.healthy_deadline
    if not is_judgeable or rules.clock < healthy_by:
        return told
    if component is not None and component.digest != progress.wanted(told).to_digest:
        return told
    return copying.replace(
        told,
        fault=model.Fault.VERSION,
        reason="not_healthy_in_time",
        message=f"it was not healthy without a break within {rules.policy.healthy_deadline} after COMMIT",
    )
