"""The law of the operation machine: its phases, and for each one the events that it allows and where they lead.

Rules kept here: up to COMMIT every way out leads through ABORTING, past COMMIT none does; what ended takes only words
that came too late. `operation` obeys this table and adds nothing to it; the diagram in the documents is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, unique

from agent.core import events, model


@unique
class Phase(Enum):
    """Where an operation stands."""

    ACCEPTED = "ACCEPTED"
    FETCH = "FETCH"
    VERIFY = "VERIFY"
    STAGE = "STAGE"
    PREFLIGHT = "PREFLIGHT"
    ROLLBACK_POINT = "ROLLBACK_POINT"
    PREPARE = "PREPARE"
    HELD_BEFORE_SWITCH = "HELD_BEFORE_SWITCH"
    SWITCH = "SWITCH"
    SOAK = "SOAK"
    HELD_BEFORE_COMMIT = "HELD_BEFORE_COMMIT"
    COMMIT = "COMMIT"
    SETTLING = "SETTLING"
    ABORTING = "ABORTING"
    PERMANENT = "PERMANENT"
    UNWELL = "UNWELL"
    SUPERSEDED = "SUPERSEDED"
    ABORTED = "ABORTED"
    REFUSED = "REFUSED"


@unique
class Bake(Enum):
    """How far the bake is; PASSING from the decision until ``permanent`` has moved."""

    NOT_NEEDED = "NOT_NEEDED"
    PENDING = "PENDING"
    PASSING = "PASSING"
    PASSED = "PASSED"
    FAILED = "FAILED"


P = Phase  # the table below is read by column
_LEAVE = {events.Cancelled: (P.ABORTING,), events.Recovered: (P.ABORTING, P.COMMIT)}
_OPEN = {events.Proceeded: (), **_LEAVE}  # a Proceed that comes early is remembered
_WORK = {events.Failed: (P.ABORTING,), **_OPEN}
_NEW = {events.InstanceLost: (P.ABORTING,), events.RolledBack: (P.ABORTING,)}
_LATE = {events.Cancelled: (), events.Proceeded: ()}

TRANSITIONS: Mapping[Phase, Mapping[type[events.Event], tuple[Phase, ...]]] = {
    # Each phase: which events it allows, and the phases that they may lead to beside staying.
    P.ACCEPTED: {events.Began: (P.FETCH, P.PREFLIGHT), **_OPEN},
    P.FETCH: {events.Succeeded: (P.VERIFY,), events.Ticked: (P.ABORTING,), **_WORK},
    P.VERIFY: {events.Succeeded: (P.STAGE,), events.Ticked: (P.ABORTING,), **_WORK},
    P.STAGE: {events.Succeeded: (P.PREFLIGHT,), events.Ticked: (P.ABORTING,), **_WORK},
    P.PREFLIGHT: {
        events.Succeeded: (P.ROLLBACK_POINT, P.HELD_BEFORE_SWITCH, P.SWITCH, P.HELD_BEFORE_COMMIT, P.COMMIT),
        events.Ticked: (P.ABORTING,),
        **_WORK,
    },
    P.ROLLBACK_POINT: {events.Succeeded: (P.PREPARE,), events.Ticked: (P.ABORTING,), **_WORK},
    P.PREPARE: {
        events.Succeeded: (P.HELD_BEFORE_SWITCH, P.SWITCH),
        events.Ticked: (P.ABORTING,),
        **_WORK,
        **_NEW,
    },
    P.HELD_BEFORE_SWITCH: {
        events.Proceeded: (P.SWITCH, P.HELD_BEFORE_COMMIT, P.COMMIT),
        events.Ticked: (P.ABORTING,),
        **_LEAVE,
        **_NEW,
    },
    P.SWITCH: {
        events.Succeeded: (P.SOAK, P.HELD_BEFORE_COMMIT, P.COMMIT),
        events.Ticked: (P.ABORTING,),
        **_WORK,
        **_NEW,
        events.Recovered: (P.SOAK, P.ABORTING, P.COMMIT),
    },
    P.SOAK: {
        events.Observed: (P.HELD_BEFORE_COMMIT, P.COMMIT, P.ABORTING),
        events.Ticked: (P.ABORTING,),
        **_OPEN,
        **_NEW,
    },
    P.HELD_BEFORE_COMMIT: {
        events.Proceeded: (P.COMMIT,),
        events.Observed: (P.ABORTING,),
        events.Ticked: (P.ABORTING,),
        **_LEAVE,
        **_NEW,
    },
    P.COMMIT: {
        events.Succeeded: (P.SETTLING,),
        events.Failed: (),
        events.RolledBack: (P.ABORTING,),
        events.Recovered: (),
        events.InstanceLost: (),
        events.Ticked: (),
        **_LATE,
    },
    P.SETTLING: {
        events.Succeeded: (P.PERMANENT, P.UNWELL),
        events.Failed: (),
        events.Observed: (P.UNWELL,),
        events.InstanceLost: (P.UNWELL,),
        events.Ticked: (P.UNWELL,),
        events.Superseded: (P.SUPERSEDED,),
        events.Recovered: (),
        **_LATE,
    },
    P.ABORTING: {
        events.Succeeded: (P.ABORTED,),
        events.Failed: (),
        events.Recovered: (),
        events.InstanceLost: (),
        events.RolledBack: (),
        events.Ticked: (),
        **_LATE,
    },
    P.PERMANENT: _LATE,
    P.UNWELL: _LATE,
    P.SUPERSEDED: _LATE,
    P.ABORTED: _LATE,
    P.REFUSED: _LATE,
}

STEP_OF: Mapping[Phase, model.Step] = {
    P.FETCH: model.Step.FETCH,
    P.VERIFY: model.Step.VERIFY,
    P.STAGE: model.Step.STAGE,
    P.PREFLIGHT: model.Step.PREFLIGHT,
    P.ROLLBACK_POINT: model.Step.ROLLBACK_POINT,
    P.PREPARE: model.Step.PREPARE,
    P.SWITCH: model.Step.SWITCH,
    P.SOAK: model.Step.SOAK,
    P.COMMIT: model.Step.COMMIT,
    P.ABORTING: model.Step.ABORT,
}
STATE_OF: Mapping[Phase, model.OperationState] = {
    **dict.fromkeys(STEP_OF, model.OperationState.RUNNING),
    P.ACCEPTED: model.OperationState.ACCEPTED,
    P.HELD_BEFORE_SWITCH: model.OperationState.HELD,
    P.HELD_BEFORE_COMMIT: model.OperationState.HELD,
    P.SETTLING: model.OperationState.COMMITTED,
    P.UNWELL: model.OperationState.COMMITTED,
    P.SUPERSEDED: model.OperationState.COMMITTED,
    P.PERMANENT: model.OperationState.PERMANENT,
    P.ABORTED: model.OperationState.ABORTED,
    P.REFUSED: model.OperationState.REFUSED,
}
NEXT: Mapping[Phase, Phase] = {
    P.FETCH: P.VERIFY,
    P.VERIFY: P.STAGE,
    P.STAGE: P.PREFLIGHT,
    P.PREFLIGHT: P.ROLLBACK_POINT,
    P.ROLLBACK_POINT: P.PREPARE,
    P.PREPARE: P.SWITCH,
    P.SWITCH: P.SOAK,
}
FIRST: Mapping[model.ChangeKind, Phase] = {
    # What is on the node already needs neither fetch nor stage.
    **dict.fromkeys(model.ChangeKind, P.PREFLIGHT),
    model.ChangeKind.INSTALL: P.FETCH,
    model.ChangeKind.UPGRADE: P.FETCH,
}
SHORT_CUTS: Mapping[model.ChangeKind, Mapping[Phase, Phase]] = {
    # Where a kind of change does not go by NEXT: what ends needs no switch, what begins has nothing to soak beside.
    model.ChangeKind.REMOVE: {P.PREFLIGHT: P.COMMIT},
    model.ChangeKind.STOP: {P.PREFLIGHT: P.COMMIT},
    model.ChangeKind.START: {P.PREFLIGHT: P.SWITCH, P.SWITCH: P.COMMIT},
}
ENDING = frozenset({model.ChangeKind.REMOVE, model.ChangeKind.STOP})
TERMINAL = frozenset({P.PERMANENT, P.UNWELL, P.SUPERSEDED, P.ABORTED, P.REFUSED})
HELD = frozenset({P.HELD_BEFORE_SWITCH, P.HELD_BEFORE_COMMIT})
DECIDED = frozenset({P.COMMIT, P.SETTLING, P.ABORTING, *TERMINAL})  # no word of the controller changes their course
