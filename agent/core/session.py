"""One session with the controller, without the wire: what to say next, and what its answers mean.

Rules kept: each message is one more than the message before; a delta tells what changed against what was last told;
operations and steps are told in every message until an acknowledgement covers one that carried them; what the
controller did not get it gets in full when it asks; an illegal message raises and changes nothing. Time is an argument.
Left out: bytes and streams (`agent.link`), when to reconnect (`backoff`), and what a command does (`operation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import assert_never

from agent.core import model, told

PROTOCOL_VERSIONS = (1,)  # what this agent speaks, lowest first
HEARTBEAT_PERIOD_DEFAULT = timedelta(seconds=10)  # until a controller has said another
HEARTBEAT_PERIOD_MAX = timedelta(hours=1)  # above it a node that lives could not be told from a dead one
CARRIED_MAX = 64  # messages remembered until acknowledged; each carries all that an older one did


@unique
class State(Enum):
    """Where a session stands."""

    CLOSED = "CLOSED"
    GREETING = "GREETING"
    OPEN = "OPEN"
    LEAVING = "LEAVING"


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream to the controller is there."""

    at: datetime
    facts: model.HelloFacts
    report: model.Report


@dataclass(frozen=True, slots=True)
class Beat:
    """It is time to say what changed; ``report`` is everything that the node knows."""

    at: datetime
    report: model.Report


@dataclass(frozen=True, slots=True)
class Read:
    """The end of a log that the controller wanted is there, or why there is none."""

    text: model.LogText


@dataclass(frozen=True, slots=True)
class Lost:
    """The stream is gone, whoever ended it."""


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The controller accepted the session.

    Args:
        at: When it came, on the agent's clock.
        generation: Number of this session among those of the node.
        server_time: The controller's clock when it was sent.
    """

    at: datetime
    session_id: str
    generation: int
    protocol_version: int
    heartbeat_period: timedelta
    server_time: datetime


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Everything up to a sequence is durable at the controller.

    Args:
        at: When it came, on the agent's clock.
        echo_sent_at: Send time of the latest heartbeat that the controller got; None before the first.
        server_time: The controller's clock when it was sent.
    """

    at: datetime
    sequence: int
    echo_sent_at: datetime | None
    server_time: datetime
    heartbeat_period: timedelta


@dataclass(frozen=True, slots=True)
class FullReportRequested:
    """The controller missed a message and wants everything."""

    expected_sequence: int


@dataclass(frozen=True, slots=True)
class Commanded:
    """The controller wants something done; at least once."""

    command: model.Command


@dataclass(frozen=True, slots=True)
class WentAway:
    """The controller closes its streams; agents come back spread over ``window``."""

    window: timedelta


Own = Opened | Beat | Read | Lost
Message = Welcomed | Acknowledged | FullReportRequested | Commanded | WentAway
Event = Own | Message

# What may happen where, and where it leads; what is not here is illegal.
TRANSITIONS: Mapping[tuple[State, type[Event]], State] = {
    (State.CLOSED, Opened): State.GREETING,
    (State.GREETING, Welcomed): State.OPEN,
    (State.GREETING, WentAway): State.LEAVING,
    (State.GREETING, Lost): State.CLOSED,
    (State.OPEN, Beat): State.OPEN,
    (State.OPEN, Read): State.OPEN,
    (State.OPEN, Acknowledged): State.OPEN,
    (State.OPEN, FullReportRequested): State.OPEN,
    (State.OPEN, Commanded): State.OPEN,
    (State.OPEN, WentAway): State.LEAVING,
    (State.OPEN, Lost): State.CLOSED,
    (State.LEAVING, Acknowledged): State.LEAVING,
    (State.LEAVING, Commanded): State.LEAVING,
    (State.LEAVING, Lost): State.CLOSED,
}


@dataclass(frozen=True, slots=True)
class SendHello:
    """Open the session with everything that the node knows."""

    sequence: int
    facts: model.HelloFacts
    report: model.Report


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    """Tell what changed, or everything when ``is_full``."""

    sequence: int
    sent_at: datetime
    report: model.Report
    is_full: bool


@dataclass(frozen=True, slots=True)
class SendLogText:
    """Answer a question for a log."""

    sequence: int
    text: model.LogText


@dataclass(frozen=True, slots=True)
class TakeCommand:
    """Hand a command to the node."""

    command: model.Command


@dataclass(frozen=True, slots=True)
class Settle:
    """These are durable at the controller, exactly as they stand here: the node may forget them."""

    operations: tuple[model.OperationStatus, ...]
    steps: tuple[model.StepRecord, ...]


@dataclass(frozen=True, slots=True)
class BeatSoon:
    """Do not wait for the heartbeat period."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Close the stream and come back at a random instant of ``window``."""

    window: timedelta


Effect = SendHello | SendHeartbeat | SendLogText | TakeCommand | Settle | BeatSoon | Leave


class IllegalMessageError(Exception):
    """The controller said what it may not say here; nothing changed, and the session is of no more use."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What the last exchange told of the two clocks.

    Args:
        offset: What to add to the agent's clock to get the controller's.
        round_trip: How long the exchange took; half of it bounds the error of ``offset``.
    """

    offset: timedelta
    round_trip: timedelta


@dataclass(frozen=True, slots=True)
class Carried:
    """The results that one message carried."""

    sequence: int
    operations: tuple[model.OperationStatus, ...]
    steps: tuple[model.StepRecord, ...]


@dataclass(frozen=True, slots=True)
class Session:
    """The state of one session.

    Args:
        sequence: Number of the last message; 0 before the first.
        acknowledged_sequence: Highest sequence that the controller has acknowledged.
        carried: Results told and not acknowledged, by message, oldest first.
        is_full_wanted: True from the controller's request until the next heartbeat.
        greeted_at: When the hello was sent, on the agent's clock; None before.
        clock: None until a controller has answered once; outlives the session.
    """

    state: State = State.CLOSED
    session_id: str = ""
    generation: int = 0
    sequence: int = 0
    acknowledged_sequence: int = 0
    heartbeat_period: timedelta = HEARTBEAT_PERIOD_DEFAULT
    told: told.Told = field(default_factory=told.Told)
    carried: tuple[Carried, ...] = ()
    is_full_wanted: bool = False
    greeted_at: datetime | None = None
    clock: ClockReading | None = None

    @property
    def is_proven(self) -> bool:
        """True once a heartbeat was acknowledged: the exchange was useful."""
        return self.acknowledged_sequence > 1


@dataclass(frozen=True, slots=True)
class Decision:
    """The session afterwards, and what is to be done now, in order."""

    session: Session
    effects: tuple[Effect, ...] = ()


def step(session: Session, event: Event) -> Decision:
    """What an event makes of a session.

    Raises:
        IllegalMessageError: The event is not allowed here; the session is as it was.
    """
    state = TRANSITIONS.get((session.state, type(event)))
    if state is None:
        raise IllegalMessageError(f"cannot take {type(event).__name__} while the session is {session.state.value}")
    moved = replace(session, state=state)
    return _act(moved, event) if isinstance(event, Own) else _hear(moved, event)


def _act(session: Session, event: Own) -> Decision:
    match event:
        case Opened(at, facts, report):
            return _greet(replace(session, greeted_at=at), facts, report)
        case Beat(at, report):
            return _beat(session, at, report)
        case Read(text):
            after = replace(session, sequence=session.sequence + 1)
            return Decision(after, (SendLogText(after.sequence, text),))
        case Lost():
            return Decision(Session(heartbeat_period=session.heartbeat_period, clock=session.clock))
        case _:
            assert_never(event)


def _hear(session: Session, message: Message) -> Decision:
    match message:
        case Welcomed():
            return _welcome(session, message)
        case Acknowledged():
            return _acknowledge(session, message)
        case FullReportRequested(expected_sequence):
            _check_sequence(session, expected_sequence)
            return Decision(replace(session, is_full_wanted=True), (BeatSoon(),))
        case Commanded(command):
            return Decision(session, (TakeCommand(command),))
        case WentAway(window):
            return Decision(session, (Leave(window),))
        case _:
            assert_never(message)


def _greet(session: Session, facts: model.HelloFacts, report: model.Report) -> Decision:
    said = told.everything(report)
    return Decision(_tell(session, report, said), (SendHello(session.sequence + 1, facts, said),))


def _welcome(session: Session, welcome: Welcomed) -> Decision:
    if welcome.protocol_version not in PROTOCOL_VERSIONS:
        raise IllegalMessageError(
            f"cannot speak protocol_version {welcome.protocol_version}: this agent speaks {list(PROTOCOL_VERSIONS)}"
        )
    _check_period(welcome.heartbeat_period)
    opened = replace(
        session,
        session_id=welcome.session_id,
        generation=welcome.generation,
        heartbeat_period=welcome.heartbeat_period,
        clock=_reading(session.greeted_at, welcome.server_time, welcome.at) or session.clock,
    )
    return Decision(opened, (BeatSoon(),))


def _beat(session: Session, at: datetime, report: model.Report) -> Decision:
    said = told.everything(report) if session.is_full_wanted else session.told.delta(report)
    beat = SendHeartbeat(session.sequence + 1, at, said, session.is_full_wanted)
    return Decision(_tell(session, report, said), (beat,))


def _acknowledge(session: Session, ack: Acknowledged) -> Decision:
    _check_sequence(session, ack.sequence)
    _check_period(ack.heartbeat_period)
    session = replace(session, heartbeat_period=ack.heartbeat_period)
    if ack.sequence <= session.acknowledged_sequence:
        return Decision(session)
    covered = tuple(carried for carried in session.carried if carried.sequence <= ack.sequence)
    # The latest message carried all that the earlier ones did, in its latest form.
    settled = covered[-1] if covered else Carried(ack.sequence, (), ())
    session = replace(
        session,
        acknowledged_sequence=ack.sequence,
        told=session.told.settled(settled.operations, settled.steps),
        carried=session.carried[len(covered) :],
        clock=_reading(ack.echo_sent_at, ack.server_time, ack.at) or session.clock,
    )
    is_worth_saying = settled.operations or settled.steps
    return Decision(session, (Settle(settled.operations, settled.steps),) if is_worth_saying else ())


def _reading(sent_at: datetime | None, server_time: datetime, at: datetime) -> ClockReading | None:
    if sent_at is None or sent_at > at:  # the agent's own clock was set back meanwhile
        return None
    round_trip = at - sent_at
    return ClockReading(server_time + round_trip / 2 - at, round_trip)


def _tell(session: Session, report: model.Report, said: model.Report) -> Session:
    """Count one message that says ``said`` of all that is in ``report``."""
    sequence = session.sequence + 1
    carried = session.carried
    if said.operations or said.steps:
        carried = (*carried, Carried(sequence, said.operations, said.steps))[-CARRIED_MAX:]
    after = session.told.after(report)
    return replace(session, sequence=sequence, told=after, carried=carried, is_full_wanted=False)


def _check_sequence(session: Session, sequence: int) -> None:
    if not 1 <= sequence <= session.sequence:
        raise IllegalMessageError(f"cannot take sequence {sequence}: messages 1 to {session.sequence} were sent")


def _check_period(period: timedelta) -> None:
    if not timedelta() < period <= HEARTBEAT_PERIOD_MAX:
        rule = f"longer than nothing, and at most {HEARTBEAT_PERIOD_MAX}"
        raise IllegalMessageError(f"cannot take heartbeat_period {period}: it must be {rule}")
