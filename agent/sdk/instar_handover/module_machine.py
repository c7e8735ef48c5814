"""Where a cell stands while its module is changed, and which event may move it: one literal table.

Rules kept here: an illegal event raises and changes nothing; calls wait in SWAPPING and REVERTING only, and each of the
two is left by going through with it or by giving up; there are never more than two generations, so nothing is staged
while an old one is still kept. Pure: no threads, no clock.
"""

from collections.abc import Mapping
from enum import Enum, unique
from types import MappingProxyType


@unique
class State(Enum):
    """Where a cell stands.

    SERVING has one generation; STAGED has a new one beside it; SWITCHED serves the new one and keeps the old.
    """

    SERVING = "serving"
    STAGED = "staged"
    SWAPPING = "swapping"
    SWITCHED = "switched"
    REVERTING = "reverting"


@unique
class Event(Enum):
    """What moves it."""

    STAGE = "stage"
    SUSPEND = "suspend"
    FLIP = "flip"
    GIVE_UP = "give up"
    DROP = "drop"


class IllegalEventError(Exception):
    """The event is not allowed in this state."""


TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.SERVING, Event.STAGE): State.STAGED,
        (State.SERVING, Event.DROP): State.SERVING,
        (State.STAGED, Event.STAGE): State.STAGED,
        (State.STAGED, Event.DROP): State.SERVING,
        (State.STAGED, Event.SUSPEND): State.SWAPPING,
        (State.SWAPPING, Event.FLIP): State.SWITCHED,
        (State.SWAPPING, Event.GIVE_UP): State.STAGED,
        (State.SWITCHED, Event.DROP): State.SERVING,
        (State.SWITCHED, Event.SUSPEND): State.REVERTING,
        (State.REVERTING, Event.FLIP): State.STAGED,
        (State.REVERTING, Event.GIVE_UP): State.SWITCHED,
    }
)


def step(state: State, event: Event) -> State:
    """Return the state after the event.

    Raises:
        IllegalEventError: The table has no row for it.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalEventError(f"cannot {event.value} while {state.value}") from None
