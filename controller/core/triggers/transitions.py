"""The table of a firing: what may become of it, and by what."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, unique

from controller.core import errors, model

F = model.FiringState


@unique
class Sign(Enum):
    """What is found out about a firing."""

    WAITS = "a guard is shut"
    ASKS = "somebody has to approve it"
    APPROVED = "somebody has approved it"
    ACTS = "what it does is begun"
    BEGINS = "a rollout has come of it"
    ENDS_WELL = "what it does is done"
    ENDS_BADLY = "what it does has failed for good"
    GIVES_UP = "nothing is to be done any more"


TRANSITIONS: Mapping[model.FiringState, Mapping[Sign, model.FiringState]] = {
    F.HELD: {
        Sign.WAITS: F.HELD,
        Sign.ASKS: F.APPROVAL_AWAITED,
        Sign.ACTS: F.ACTING,
        Sign.ENDS_WELL: F.SUCCEEDED,
        Sign.GIVES_UP: F.DROPPED,
    },
    F.APPROVAL_AWAITED: {
        Sign.APPROVED: F.HELD,
        Sign.GIVES_UP: F.DROPPED,
    },
    F.ACTING: {
        Sign.WAITS: F.HELD,
        Sign.ASKS: F.APPROVAL_AWAITED,
        Sign.ACTS: F.ACTING,
        Sign.BEGINS: F.RUNNING,
        Sign.ENDS_WELL: F.SUCCEEDED,
        Sign.ENDS_BADLY: F.FAILED,
        Sign.GIVES_UP: F.DROPPED,
    },
    F.RUNNING: {
        Sign.ENDS_WELL: F.SUCCEEDED,
        Sign.ENDS_BADLY: F.FAILED,
    },
    F.SUCCEEDED: {},
    F.FAILED: {},
    F.DROPPED: {},
}


def follow(firing: model.Firing, sign: Sign) -> model.FiringState:
    """Give the state that follows.

    Raises:
        IllegalEventError: That cannot be in the state that the firing is in.
    """
    state = TRANSITIONS[firing.state].get(sign)
    if state is None:
        possible = ", ".join(each.name for each in TRANSITIONS[firing.state]) or "nothing"
        raise errors.IllegalEventError(
            f"cannot take it that {sign.value}: firing {firing.id} is {firing.state.value}",
            code="illegal_event",
            field="firing",
            value=firing.id,
            rule=f"in {firing.state.value} only {possible}",
        )
    return state
