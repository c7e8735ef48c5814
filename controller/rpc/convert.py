"""What all conversions between the messages of the API and the core's values need: times, words, and how to refuse.

Rules kept here: a message that means nothing here is refused with the dotted field that is wrong; unset on the wire is
None inside. Left out: the nouns, one module for each service (`request_convert`, `rollout_convert`, `fleet_convert`,
`release_convert`), and the messages of agents (`agent_convert`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TypeVar

from google.protobuf import duration_pb2, timestamp_pb2

from controller.core import errors

DURATION_SECONDS_MAX = 315_576_000_000  # ten thousand years, as google.protobuf.Duration says
REASON_CHARS_MAX = 1024  # more is no longer for people
_Number = TypeVar("_Number", bound=int)
_E = TypeVar("_E", bound=Enum)


def timestamp(instant: datetime | None) -> timestamp_pb2.Timestamp | None:
    """An instant, or nothing."""
    if instant is None:
        return None
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(instant.astimezone(UTC))
    return message


def duration(span: timedelta) -> duration_pb2.Duration:
    """A span of time."""
    message = duration_pb2.Duration()
    message.FromTimedelta(span)
    return message


def optional_duration(span: timedelta | None) -> duration_pb2.Duration | None:
    """A span of time, or nothing."""
    return None if span is None else duration(span)


def number(value_of: Callable[[str], _Number], prefix: str, value: Enum | None) -> _Number:
    """The number of a value on the wire; that of UNSPECIFIED for None."""
    return value_of(prefix + ("UNSPECIFIED" if value is None else value.value))


def instant(told: timestamp_pb2.Timestamp, field: str) -> datetime:
    """An instant from outside.

    Raises:
        InvalidRequestError: It lies outside of the years 1 to 9999.
    """
    try:
        return told.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise refusal(field, f"{told.seconds}s", "an instant of the years 1 to 9999") from error


def span(told: duration_pb2.Duration, field: str) -> timedelta:
    """A span of time from outside.

    Raises:
        InvalidRequestError: It is none that `google.protobuf.Duration` allows.
    """
    rule = f"a duration of at most {DURATION_SECONDS_MAX} s"
    refuse_unless(abs(told.seconds) <= DURATION_SECONDS_MAX, field, f"{told.seconds}s", rule)
    return told.ToTimedelta()


def member(kind: type[_E], value_of: Callable[[str], int], prefix: str, told: int, field: str) -> _E | None:
    """The value that a number on the wire stands for; None for that of UNSPECIFIED.

    Raises:
        InvalidRequestError: It stands for none.
    """
    if told == 0:
        return None
    known = {value_of(f"{prefix}{each.value}"): each for each in kind}
    refuse_unless(told in known, field, str(told), one_of(kind))
    return known[told]


def one_of(kind: type[Enum]) -> str:
    """The rule that a value is one of an enum."""
    return "one of " + ", ".join(each.value for each in kind)


def reason(told: str, what: str, field: str = "reason") -> str:
    """Why somebody does something, for the audit log.

    Args:
        told: What the caller gave.
        what: What the caller does, for the refusal, for example ``pause the rollout``.
        field: What the refusal calls it.

    Raises:
        InvalidRequestError: It is empty, or longer than REASON_CHARS_MAX.
    """
    if not 0 < len(told) <= REASON_CHARS_MAX:
        raise errors.InvalidRequestError(
            f"cannot {what}: {field} must be given, with at most {REASON_CHARS_MAX} characters",
            code="reason_invalid",
            field=field,
            value=told[:REASON_CHARS_MAX],
            rule=f"1 to {REASON_CHARS_MAX} characters",
        )
    return told


def remark(told: str, field: str = "reason") -> str:
    """Why somebody decides something, where nobody has to say it.

    Raises:
        InvalidRequestError: It is longer than REASON_CHARS_MAX.
    """
    refuse_unless(
        len(told) <= REASON_CHARS_MAX, field, told[:REASON_CHARS_MAX], f"at most {REASON_CHARS_MAX} characters"
    )
    return told


def refuse_unless(holds: bool, field: str, value: str, rule: str) -> None:  # noqa: FBT001  # reads as a sentence
    """Refuse a value that breaks its rule.

    Raises:
        InvalidRequestError: It does.
    """
    if not holds:
        raise refusal(field, value, rule)


def refusal(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    """The error for a value that breaks its rule."""
    return errors.InvalidRequestError(
        f"cannot accept the request: {field} {value!r} must be {rule}",
        code="request_invalid",
        field=field,
        value=value,
        rule=rule,
    )
