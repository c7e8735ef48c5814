"""Where an instance stands in the hand-over, and which event may move it: one literal table.

Rules kept here: an illegal event raises and changes nothing; repeating a word that has been obeyed is success; a paused
or draining instance can still be resumed, a drained one cannot. Pure: no sockets, no clock.
"""

from collections.abc import Mapping
from enum import Enum, unique
from types import MappingProxyType


@unique
class State(Enum):
    """Where an instance stands; only ACTIVE accepts connections."""

    STARTING = "starting"
    PREPARED = "prepared"
    ACTIVE = "active"
    PAUSED = "paused"
    DRAINING = "draining"
    DRAINED = "drained"


@unique
class Event(Enum):
    """What moves it: a word of the keeper, or one of its own two observations, READY and EMPTIED."""

    READY = "ready"
    ACTIVATE = "activate"
    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    EMPTIED = "emptied"


class IllegalEventError(Exception):
    """The event is not allowed in this state."""


# ACTIVATE after PAUSE is refused: a late repetition of it must not undo the pause; RESUME is the word for that.
TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.STARTING, Event.READY): State.PREPARED,
        (State.STARTING, Event.DRAIN): State.DRAINING,
        (State.PREPARED, Event.ACTIVATE): State.ACTIVE,
        (State.PREPARED, Event.DRAIN): State.DRAINING,
        (State.ACTIVE, Event.ACTIVATE): State.ACTIVE,
        (State.ACTIVE, Event.RESUME): State.ACTIVE,
        (State.ACTIVE, Event.PAUSE): State.PAUSED,
        (State.ACTIVE, Event.DRAIN): State.DRAINING,
        (State.PAUSED, Event.PAUSE): State.PAUSED,
        (State.PAUSED, Event.RESUME): State.ACTIVE,
        (State.PAUSED, Event.DRAIN): State.DRAINING,
        (State.DRAINING, Event.DRAIN): State.DRAINING,
        (State.DRAINING, Event.RESUME): State.ACTIVE,
        (State.DRAINING, Event.EMPTIED): State.DRAINED,
        (State.DRAINED, Event.DRAIN): State.DRAINED,
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
