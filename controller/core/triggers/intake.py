"""What an event from outside has to be, whichever way it comes.

Rules kept: an event is small and plain before anything looks into it; what is wrong is named by its field. Left out:
whether it is too old or known already, and which triggers it concerns.
"""

from __future__ import annotations

import json

from controller.core import errors, model

SPEC_VERSION = "1.0"  # of CloudEvents
EVENTS_MAX = 1000  # in one request: some 40 ms of work
CHARS_MAX = 1024  # of source, id, type and subject each; real ones have some tens
DATA_CHARS_MAX = 65_536  # what intermediaries of CloudEvents have to forward
DEPTH_MAX = 32  # of what is nested in the data; real ones have a handful


def check(event: model.ReceivedEvent, place: str = "event") -> None:
    """Refuse what is no event.

    Args:
        event: The event.
        place: Where it stands in the request, for example ``events[3]``.

    Raises:
        InvalidRequestError: It lacks source, id or type, something is too long, or its data is no JSON object.
    """
    for name, value in (("source", event.source), ("id", event.id), ("type", event.type)):
        _refuse_unless(bool(value), f"{place}.{name}", value, "given")
    for name, value in (("source", event.source), ("id", event.id), ("type", event.type), ("subject", event.subject)):
        is_plain = len(value) <= CHARS_MAX and value.isprintable()
        _refuse_unless(is_plain, f"{place}.{name}", value, f"printable and at most {CHARS_MAX} characters long")
    rule = f"JSON text of an object, at most {DATA_CHARS_MAX} characters long and {DEPTH_MAX} levels deep"
    _refuse_unless(_is_object(event.data), f"{place}.data", event.data, rule)


def check_count(count: int, field: str = "events") -> None:
    """Refuse a request with no event, or with too many.

    Raises:
        InvalidRequestError: It has.
    """
    _refuse_unless(0 < count <= EVENTS_MAX, field, str(count), f"1 to {EVENTS_MAX} events")


def _is_object(text: str) -> bool:
    if len(text) > DATA_CHARS_MAX:
        return False
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):  # the latter for what is nested more deeply than the parser can follow
        return False
    return isinstance(found, dict) and _depth(found) <= DEPTH_MAX


def _no_number(text: str) -> float:
    raise ValueError(f"cannot read {text}: JSON has no such number")


def _depth(found: object) -> int:
    """How deeply it is nested; in levels, for what is nested deeply would exhaust the stack."""
    depth, level = 0, [found]
    while level := [part for one in level for part in _parts(one)]:
        depth += 1
    return depth


def _parts(found: object) -> list[object]:
    if isinstance(found, dict):
        return list(found.values())
    return found if isinstance(found, list) else []


def _refuse_unless(holds: bool, field: str, value: str, rule: str) -> None:  # noqa: FBT001  # reads as a sentence
    if not holds:
        raise errors.InvalidRequestError(
            f"cannot take the event: {field} {value[:CHARS_MAX]!r} must be {rule}",
            code="invalid_event",
            field=field,
            value=value[:CHARS_MAX],
            rule=rule,
        )
