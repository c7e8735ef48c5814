"""How the hand-over protocol is said: one JSON object per SEQPACKET datagram.

Rules kept here: a datagram is at most 16 KiB; what cannot be understood raises `WireError` and is answered, never
guessed; unknown keys are ignored, so that a newer keeper can talk to an older component. Left out: sockets.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from instar_handover import machine

MESSAGE_MAX_BYTES = 16 * 1024  # of the protocol; an answer is about 170 bytes
PROTOCOL = 1  # raised when a word changes its meaning

# Words that move the machine; "hello", "status" and "listeners" only ask.
EVENTS: Mapping[str, machine.Event] = {
    "activate": machine.Event.ACTIVATE,
    "pause": machine.Event.PAUSE,
    "resume": machine.Event.RESUME,
    "drain": machine.Event.DRAIN,
}
QUESTIONS = frozenset({"hello", "status", "listeners"})


class WireError(Exception):
    """The datagram is not a message of this protocol."""


@dataclass(frozen=True, slots=True)
class Request:
    """A word, answered under the same id.

    Args:
        body: What goes with the word; empty for most.
    """

    word: str
    id: int
    body: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """What an instance tells of itself with every message.

    Args:
        served: Requests answered since the process began.
        in_flight: Requests begun and not yet answered.
        accepted: Connections accepted and not yet closed, those included that have sent nothing so far.
        worker_deaths: Workers of the instance that ended by themselves and were replaced.
    """

    state: machine.State
    served: int
    in_flight: int
    accepted: int
    worker_deaths: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """What an instance says: the answer to a word, or a notice.

    Args:
        id: Of the request that it answers; None for a notice.
        word: Of the notice, "prepared" or "drained"; empty for an answer.
        error: Why the word was not obeyed; empty where it was.
    """

    status: Status
    id: int | None
    word: str
    error: str


def encode_request(request: Request) -> bytes:
    """Say a word."""
    body = {"body": dict(request.body)} if request.body else {}
    return json.dumps({"word": request.word, "id": request.id, **body}).encode()


def decode_request(datagram: bytes) -> Request:
    """Read a request.

    Raises:
        WireError: It is not JSON, not an object, or `word`, `id` or `body` is missing or of the wrong type.
    """
    said = _object(datagram)
    word, request_id, body = said.get("word"), said.get("id"), said.get("body", {})
    if not isinstance(word, str) or not isinstance(request_id, int):
        raise WireError("cannot read the message: word must be text and id a whole number")
    if not isinstance(body, dict):
        raise WireError("cannot read the message: body must be an object")
    return Request(word, request_id, body)


def encode_answer(
    request_id: int,
    status: Status,
    *,
    error: str = "",
    names: tuple[str, ...] | None = None,
    body: Mapping[str, object] | None = None,
) -> bytes:
    """Answer a request.

    Args:
        request_id: Of the request.
        status: Where the instance stands now.
        error: Why the word was not obeyed.
        names: Go with the descriptors of "listeners", in the same order.
        body: What the word asked for, if it asked for anything.
    """
    said: dict[str, object] = {"id": request_id, "ok": not error, "error": error, **_status(status)}
    if names is not None:
        said["names"] = list(names)
    if body is not None:
        said["body"] = dict(body)
    return json.dumps(said).encode()


def encode_notice(word: str, status: Status) -> bytes:
    """Say a word unasked: "prepared" or "drained"."""
    return json.dumps({"word": word, **_status(status)}).encode()


def decode_message(datagram: bytes) -> Message:
    """Read what an instance says.

    Raises:
        WireError: It is no answer and no notice.
    """
    said = _object(datagram)
    counts = {name: _count(said, name) for name in ("served", "in_flight", "accepted", "worker_deaths")}
    message_id, word, error = said.get("id"), said.get("word", ""), said.get("error", "")
    if not isinstance(message_id, int | None) or not isinstance(word, str) or not isinstance(error, str):
        raise WireError("cannot read the message: id must be a whole number, word and error text")
    try:
        state = machine.State(said.get("state"))
    except ValueError as error_of_state:
        raise WireError(f"cannot read the message: {error_of_state}") from error_of_state
    return Message(Status(state, **counts), message_id, word, error)


def _object(datagram: bytes) -> dict[str, object]:
    try:
        said = json.loads(datagram)
    except ValueError as error:
        raise WireError(f"cannot read the message: {error}") from error
    if not isinstance(said, dict):
        raise WireError("cannot read the message: it is not an object")
    return said


def _count(said: Mapping[str, object], name: str) -> int:
    count = said.get(name, 0)
    if not isinstance(count, int):
        raise WireError(f"cannot read the message: {name} must be a whole number")
    return count


def _status(status: Status) -> dict[str, object]:
    return {
        "protocol": PROTOCOL,
        "state": status.state.value,
        "served": status.served,
        "in_flight": status.in_flight,
        "accepted": status.accepted,
        "worker_deaths": status.worker_deaths,
    }
