"""What moves a rollout, and where to: the one table of its states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique

from controller.core import events, model


@unique
class Cause(Enum):
    """What moves a rollout: what happens to it, what is ordered, and what it then decides."""

    __hash__ = object.__hash__  # as good for members, which exist once; a step looks many of them up

    NODE_REPORTED = "a node reports"
    TICKED = "time goes on"
    CONTROLLER_ABSENT = "the controller was away"
    STANDING_CHANGED = "the standing of a node changes"
    NODE_REMOVED = "a node is removed"
    JUDGED = "the canary is judged"
    RULES_CHANGED = "a rule fires or clears"
    NODE_JOINED = "a node joins"
    BEGAN = "a controller begins it"
    APPROVED = "an approval is given"
    DENIED = "an approval is denied"
    PAUSED = "a pause is ordered"
    RESUMED = "going on is ordered"
    PROMOTED = "a promotion is ordered"
    CANCEL_REQUESTED = "a cancel is ordered"
    RETRY_REQUESTED = "a retry is ordered"
    REVERT_REQUESTED = "a revert is ordered"
    EMERGENCY_REQUESTED = "an emergency revert is ordered"
    APPROVAL_EXPIRED = "nobody approved it in time"
    WAVE_PROMOTED = "the gate promotes the wave"
    LAST_WAVE_PROMOTED = "the gate promotes the last wave"
    BAKE_BEGAN = "the wave has to bake"
    ALL_PREPARED = "every node of the wave is held before SWITCH"
    ALL_SWITCHED = "every node of the wave is held before COMMIT"
    ALL_VERIFIED = "every new version has served for long enough"
    VERSION_FAILED = "more nodes than may fail did so by the version's fault"
    VERSION_STOPPED = "the same, and nothing shall or can go back"
    JUDGE_AWAITED = "nothing but the judge keeps the next wave back"
    SHOWN_NO_WORSE = "the canary is shown to be no worse"
    SHOWN_WORSE = "the canary is shown to be worse"
    DOUBT_HOLDS = "the evidence does not suffice in time, and somebody has to decide"
    DOUBT_STOPS = "the evidence does not suffice in time, and that stops it"
    DOUBT_REVERTS = "the evidence does not suffice in time, and that takes it back"
    INFRASTRUCTURE_FAILED = "more nodes than may fail did so otherwise"
    PROGRESS_LATE = "no node became healthy in time"
    DEADLINE_PASSED = "its time is over"
    RELEASED = "nothing holds a node any more"
    LET_GO = "nothing holds a node any more, after a cancel"
    ALL_BACK = "every touched node is back"
    CANNOT_GO_BACK = "a touched node cannot go back"


S = model.RolloutState  # the table below is read by column
FACTS = (
    Cause.NODE_REPORTED,
    Cause.TICKED,
    Cause.CONTROLLER_ABSENT,
    Cause.STANDING_CHANGED,
    Cause.NODE_REMOVED,
    Cause.JUDGED,
    Cause.RULES_CHANGED,
)

TRANSITIONS: Mapping[model.RolloutState, Mapping[Cause, model.RolloutState]] = {
    S.PENDING: {
        **dict.fromkeys(FACTS, S.PENDING),
        Cause.BEGAN: S.RUNNING,
        Cause.APPROVED: S.PENDING,
        Cause.DENIED: S.CANCELLED,
        Cause.CANCEL_REQUESTED: S.CANCELLED,
        Cause.APPROVAL_EXPIRED: S.CANCELLED,
    },
    S.RUNNING: {
        **dict.fromkeys(FACTS, S.RUNNING),
        Cause.NODE_JOINED: S.RUNNING,
        Cause.PAUSED: S.PAUSED,
        Cause.PROMOTED: S.RUNNING,
        Cause.CANCEL_REQUESTED: S.RUNNING,
        Cause.WAVE_PROMOTED: S.RUNNING,
        Cause.LAST_WAVE_PROMOTED: S.SUCCEEDED,
        Cause.BAKE_BEGAN: S.RUNNING,
        Cause.ALL_PREPARED: S.RUNNING,
        Cause.ALL_SWITCHED: S.RUNNING,
        Cause.ALL_VERIFIED: S.RUNNING,
        Cause.JUDGE_AWAITED: S.RUNNING,
        Cause.SHOWN_NO_WORSE: S.RUNNING,
        Cause.DOUBT_HOLDS: S.RUNNING,
        Cause.DOUBT_STOPS: S.RUNNING,
        Cause.INFRASTRUCTURE_FAILED: S.RUNNING,
        Cause.PROGRESS_LATE: S.RUNNING,
        Cause.DEADLINE_PASSED: S.RUNNING,
        Cause.VERSION_STOPPED: S.RUNNING,
        Cause.RELEASED: S.FAILED,
        Cause.LET_GO: S.CANCELLED,
        Cause.VERSION_FAILED: S.REVERTING,
        Cause.SHOWN_WORSE: S.REVERTING,
        Cause.DOUBT_REVERTS: S.REVERTING,
        Cause.REVERT_REQUESTED: S.REVERTING,
        Cause.EMERGENCY_REQUESTED: S.REVERTING,
    },
    S.PAUSED: {
        **dict.fromkeys(FACTS, S.PAUSED),
        Cause.NODE_JOINED: S.PAUSED,
        Cause.RESUMED: S.RUNNING,
        Cause.CANCEL_REQUESTED: S.RUNNING,
        Cause.VERSION_FAILED: S.REVERTING,
        Cause.SHOWN_WORSE: S.REVERTING,
        Cause.REVERT_REQUESTED: S.REVERTING,
        Cause.EMERGENCY_REQUESTED: S.REVERTING,
    },
    S.REVERTING: {
        **dict.fromkeys(FACTS, S.REVERTING),
        Cause.EMERGENCY_REQUESTED: S.REVERTING,
        Cause.ALL_BACK: S.REVERTED,
        Cause.CANNOT_GO_BACK: S.STUCK,
    },
    S.SUCCEEDED: {
        **dict.fromkeys(FACTS, S.SUCCEEDED),
        Cause.RETRY_REQUESTED: S.RUNNING,
        Cause.REVERT_REQUESTED: S.REVERTING,
        Cause.EMERGENCY_REQUESTED: S.REVERTING,
    },
    S.FAILED: {
        **dict.fromkeys(FACTS, S.FAILED),
        Cause.RETRY_REQUESTED: S.RUNNING,
        Cause.REVERT_REQUESTED: S.REVERTING,
        Cause.EMERGENCY_REQUESTED: S.REVERTING,
    },
    S.CANCELLED: {
        **dict.fromkeys(FACTS, S.CANCELLED),
        Cause.RETRY_REQUESTED: S.RUNNING,
        Cause.REVERT_REQUESTED: S.REVERTING,
        Cause.EMERGENCY_REQUESTED: S.REVERTING,
    },
    S.REVERTED: {
        **dict.fromkeys(FACTS, S.REVERTED),
        Cause.RETRY_REQUESTED: S.RUNNING,
    },
    S.STUCK: {
        **dict.fromkeys(FACTS, S.STUCK),
        Cause.RETRY_REQUESTED: S.REVERTING,
    },
}

_CAUSE_OF: Mapping[type[events.Event], Cause] = {
    events.NodeReported: Cause.NODE_REPORTED,
    events.Ticked: Cause.TICKED,
    events.ControllerAbsent: Cause.CONTROLLER_ABSENT,
    events.StandingChanged: Cause.STANDING_CHANGED,
    events.NodeRemoved: Cause.NODE_REMOVED,
    events.Judged: Cause.JUDGED,
    events.RulesChanged: Cause.RULES_CHANGED,
    events.NodeJoined: Cause.NODE_JOINED,
    events.Began: Cause.BEGAN,
    events.Approved: Cause.APPROVED,
    events.Denied: Cause.DENIED,
    events.Paused: Cause.PAUSED,
    events.Resumed: Cause.RESUMED,
    events.Promoted: Cause.PROMOTED,
    events.CancelRequested: Cause.CANCEL_REQUESTED,
    events.RetryRequested: Cause.RETRY_REQUESTED,
    events.RevertRequested: Cause.REVERT_REQUESTED,
}


def cause_of(event: events.Event) -> Cause:
    """Name what an event is in the table."""
    if isinstance(event, events.RevertRequested) and event.is_emergency:
        return Cause.EMERGENCY_REQUESTED
    return _CAUSE_OF[type(event)]


@dataclass(frozen=True, slots=True)
class Why:
    """A decision on the whole rollout, with its reason."""

    cause: Cause
    reason: str = ""
    message: str = ""
