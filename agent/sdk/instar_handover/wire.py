"""How the hand-over protocol is said: one JSON object per SEQPACKET datagram.

Rules kept here: a datagram is at most 16 KiB; what cannot be understood raises `WireError` and is answered, never
guessed; unknown keys are ignored, so that a newer keeper can talk to an older component. Left out: sockets.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from instar_handover import machine

MESSAGE_MAX_BYTES = 16 * 1024  # of the protocol; an answer is about 150 bytes
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
    """The datagram is not a request of this protocol."""


@dataclass(frozen=True, slots=True)
class Request:
    """A word of the keeper, answered under the same id."""

    word: str
    id: int


@dataclass(frozen=True, slots=True)
class Status:
    """What an instance tells of itself with every message.

    Args:
        served: Requests answered since the process began.
        in_flight: Requests begun and not yet answered.
        accepted: Connections accepted and not yet closed, those included that have sent nothing so far.
    """

    state: machine.State
    served: int
    in_flight: int
    accepted: int


def decode_request(datagram: bytes) -> Request:
    """Read a request.

    Raises:
        WireError: It is not JSON, not an object, or `word` or `id` is missing or of the wrong type.
    """
    try:
        body = json.loads(datagram)
    except ValueError as error:
        raise WireError(f"cannot read the message: {error}") from error
    if not isinstance(body, dict):
        raise WireError("cannot read the message: it is not an object")
    word, request_id = body.get("word"), body.get("id")
    if not isinstance(word, str) or not isinstance(request_id, int):
        raise WireError("cannot read the message: word must be text and id a whole number")
    return Request(word, request_id)


def encode_answer(request_id: int, status: Status, *, error: str = "", names: tuple[str, ...] | None = None) -> bytes:
    """Answer a request; `names` go with the descriptors of "listeners", in the same order."""
    body = {"id": request_id, "ok": not error, "error": error, "protocol": PROTOCOL, **_status(status)}
    if names is not None:
        body["names"] = list(names)
    return json.dumps(body).encode()


def encode_notice(word: str, status: Status) -> bytes:
    """Say a word unasked: "prepared" or "drained"."""
    return json.dumps({"word": word, "protocol": PROTOCOL, **_status(status)}).encode()


def _status(status: Status) -> dict[str, object]:
    return {
        "state": status.state.value,
        "served": status.served,
        "in_flight": status.in_flight,
        "accepted": status.accepted,
    }
