"""How far one change is: where it stands, what begins it, and what undoes it.

Rules kept: pure; done means PERMANENT and proven by a fresh report (G7); attempts are numbered through all retries, so
that no operation has the identity of another. Left out: what a node's word does to it (`hearing`), and what the rollout
makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum, unique

from controller.core import copying, model

ATTEMPTS_MAX = 3  # operations for one change in one direction; enough to tell a passing fault from a lasting one
RETRY_PAUSE = timedelta(seconds=5)  # before the next attempt; a host that is short of something needs time, not haste

_BEAT_START = datetime(1970, 1, 1, tzinfo=UTC)  # attempts share a beat, so that one sweep tries many of them
S = model.OperationState  # the tables below are read by column
K = model.ChangeKind

# Lead to a version that may be at fault, and be remembered for it.
VERSIONED = frozenset({K.INSTALL, K.UPGRADE})

ENDS = frozenset({S.REFUSED, S.ABORTED, S.EXPIRED})
COMMITS = frozenset({S.COMMITTED, S.PERMANENT})
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
    S.ASSIGNED: frozenset({S.ACCEPTED, S.RUNNING, S.HELD}) | COMMITS | ENDS,
    S.ACCEPTED: frozenset({S.RUNNING, S.HELD}) | COMMITS | ENDS,
    S.RUNNING: frozenset({S.RUNNING, S.HELD}) | COMMITS | ENDS,
    S.HELD: frozenset({S.RUNNING, S.HELD}) | COMMITS | ENDS,
    S.COMMITTED: frozenset({S.COMMITTED, S.PERMANENT}),
    S.PERMANENT: frozenset(),
    S.REFUSED: frozenset(),
    S.ABORTED: frozenset(),
    S.EXPIRED: frozenset(),
    # Nobody knew, so whatever the node says is news.
    S.UNKNOWN: frozenset({S.ACCEPTED, S.RUNNING, S.HELD}) | COMMITS | ENDS,
}


@unique
class Place(Enum):
    """Where a change stands; all are counted by the field of the tally that has the same name.

    WAITING is counted in a revert only: forward, ``assigned`` counts those of the present wave that wait no more.
    """

    __hash__ = object.__hash__  # as good for members, which exist once; a step looks many of them up

    WAITING = "waiting"
    HOLDING = "holding"
    SETTLING = "settling"
    RETRYING = "retrying"
    DONE = "done"
    SKIPPED = "skipped"
    VERSION_FAILED = "version_failed"
    INFRASTRUCTURE_FAILED = "infrastructure_failed"

    @property
    def is_final(self) -> bool:
        """True where nothing more is to come of it by itself."""
        return self in _FINAL


_FINAL = frozenset({Place.DONE, Place.SKIPPED, Place.VERSION_FAILED, Place.INFRASTRUCTURE_FAILED})


def place(progress: model.Progress, *, is_going_back: bool) -> Place:
    """Say where a change stands, in a rollout that goes forward or back."""
    if progress.is_skipped and (is_going_back or not is_done(progress)):
        return Place.SKIPPED
    if is_going_back and not progress.is_reverting:
        return _place_before_return(progress)
    state = progress.state
    if state is None:
        return Place.WAITING
    if state in HOLDS or (state is S.UNKNOWN and is_going_back):
        return Place.HOLDING
    return Place.DONE if is_done(progress) else _place_of_committed_or_ended(progress, is_going_back=is_going_back)


def _place_of_committed_or_ended(progress: model.Progress, *, is_going_back: bool) -> Place:
    state = progress.state
    if progress.fault is not model.Fault.VERSION and state in COMMITS:
        return Place.SETTLING
    if state in ENDS and progress.deadline_at is not None:
        return Place.RETRYING
    if progress.fault is model.Fault.VERSION and not is_going_back:
        return Place.VERSION_FAILED
    return Place.INFRASTRUCTURE_FAILED


def _place_before_return(progress: model.Progress) -> Place:
    """Say where a change stands that a revert has not begun to undo, or never will."""
    is_held = progress.state in HOLDS
    if progress.is_left or not can_go_back(progress):
        return Place.HOLDING if is_held else Place.INFRASTRUCTURE_FAILED
    if progress.is_touched:
        return Place.WAITING
    return Place.HOLDING if is_held or progress.state is S.UNKNOWN else Place.DONE


def is_done(progress: model.Progress) -> bool:
    """Tell whether the latest operation has reached all that it was for."""
    return progress.is_proven and progress.state is S.PERMANENT


def is_out(progress: model.Progress) -> bool:
    """Tell whether the latest operation makes its node unavailable, or may: it changes, or nobody knows how it is."""
    state = progress.state
    if state is None or progress.is_skipped or state in ENDS:
        return False
    return not is_done(progress)


def is_waiting(progress: model.Progress) -> bool:
    """Tell whether a change waits for an operation that takes it forward."""
    return progress.state is None and not progress.is_skipped


def can_go_back(progress: model.Progress) -> bool:
    """Tell whether a change can be undone; one that was never committed has nothing to undo."""
    return not (progress.is_touched and progress.change.no_way_back)


def left(progress: model.Progress) -> model.Progress:
    """Leave a change that cannot be undone where it is, and say why."""
    why = progress.change.no_way_back
    reason = "no_way_back" if why else "later_stays"
    message = why or "what came after it on the node does not go back"
    return copying.replace(progress, reason=reason, message=message, deadline_at=None, is_left=True)


def unleft(progress: model.Progress) -> model.Progress:
    """Let a change that was left wait for its turn to go back."""
    return copying.replace(progress, reason="", message="", is_left=False)


def skipped(progress: model.Progress, reason: str, message: str, at: datetime) -> model.Progress:
    """Drop a change, which is no failure; of what is out nobody will know the outcome."""
    is_known = progress.state is None or not is_out(progress)
    return copying.replace(
        progress,
        state=progress.state if is_known else S.UNKNOWN,
        is_skipped=True,
        fault=None,
        reason=reason,
        message=message,
        ended_at=progress.ended_at or at,
        deadline_at=None,
    )


def wanted(progress: model.Progress) -> model.Change:
    """Give what the latest operation does: the planned change, or what undoes it."""
    return undo(progress.change) if progress.is_reverting else progress.change


def undo(change: model.Change) -> model.Change:
    """Derive what takes a change back."""
    return copying.replace(
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
    progress: model.Progress, rollout_id: model.RolloutId, *, at: datetime, start_by: datetime, deadline_at: datetime
) -> model.Progress:
    """Begin the next attempt in the direction of the change."""
    attempt = progress.attempt + 1
    direction = "revert" if progress.is_reverting else "forward"
    change = progress.change
    name = f"{rollout_id}/{progress.wave}/{change.node_id}/{change.component}/{direction}/{attempt}"
    return model.Progress(
        change=change,
        wave=progress.wave,
        attempt=attempt,
        is_reverting=progress.is_reverting,
        operation_id=model.OperationId(name),
        state=S.ASSIGNED,
        assigned_at=at,
        deadline_at=deadline_at,
        is_touched=progress.is_touched,
        start_by=start_by,
        attempts_before=progress.attempts_before,
        attempts_other=progress.attempts_other,
        is_bad=progress.is_bad,
    )


def again(progress: model.Progress, *, is_reverting: bool) -> model.Progress:
    """Let a change wait for attempts of a new count, in either direction; what is back is no longer touched."""
    is_turned = progress.is_reverting is not is_reverting
    attempt, other = progress.attempt, progress.attempts_other
    if is_turned:
        attempt, other = other, attempt
    return model.Progress(
        change=progress.change,
        wave=progress.wave,
        attempt=attempt,
        is_reverting=is_reverting,
        operation_id=None if is_turned else progress.operation_id,
        is_touched=progress.is_touched and (is_reverting or not is_turned),
        attempts_before=attempt,
        attempts_other=other,
        is_bad=progress.is_bad,
    )


def silenced(progress: model.Progress, reason: str, message: str) -> model.Progress:
    """Give up knowing the outcome: nobody knows it until the node speaks again."""
    return copying.replace(
        progress, state=S.UNKNOWN, fault=model.Fault.INFRASTRUCTURE, reason=reason, message=message, deadline_at=None
    )


def overdue(progress: model.Progress, policy: model.Policy) -> model.Progress:
    """Give up waiting for a node that was silent for too long, or that could not be given its operation."""
    if progress.state is S.ASSIGNED and progress.reason:
        return silenced(progress, progress.reason, progress.message)
    return silenced(progress, "silent", f"the node said nothing for {policy.unknown_deadline}")


def next_attempt_at(at: datetime) -> datetime:
    """Give the next beat at which ended operations are tried again."""
    earliest = at + RETRY_PAUSE
    return earliest + (_BEAT_START - earliest) % RETRY_PAUSE
