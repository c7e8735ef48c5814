"""A message as the JSON document that `-o json` prints, and a document that somebody wrote as a message.

Rules kept here: names in snake_case; every field is there, with null for what is not set; enums without their prefix;
durations and times as proto JSON writes them; whole numbers as numbers. What is read may leave fields out, may say a
time or a window as the command line does, and a word in any case; anything unknown is refused with its dotted name.
Left out: tables for people (`tables`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor, duration_pb2, message, timestamp_pb2

from controller.cli import failures, spans, windows
from instar.v1 import rollout_pb2

_Json = dict[str, Any]
_FieldDescriptor = Any  # the stubs know two classes of the same name that share no base


def write(document: Mapping[str, object]) -> None:
    """Print a document on stdout."""
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def of(told: message.Message) -> _Json:
    """The document of a message."""
    return {field.name: _field(told, field) for field in told.DESCRIPTOR.fields}


def _field(told: message.Message, field: _FieldDescriptor) -> object:
    value = getattr(told, field.name)
    if _is_map(field):
        return dict(value)
    if field.is_repeated:
        return [_value(one, field) for one in value]
    if field.has_presence and not told.HasField(field.name):
        return None
    return _value(value, field)


def _is_map(field: _FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _value(value: Any, field: _FieldDescriptor) -> object:  # noqa: ANN401  # whatever a field may hold
    if field.enum_type is not None:
        return enum_name(value, field.enum_type)
    if isinstance(value, duration_pb2.Duration | timestamp_pb2.Timestamp):
        return value.ToJsonString()
    return of(value) if isinstance(value, message.Message) else value


def enum_name(value: int, kind: descriptor.EnumDescriptor) -> str | None:
    """The name of a value without the prefix of its enum; None for the unset one, digits for one from the future."""
    if value not in kind.values_by_number:
        return str(value)
    return kind.values_by_number[value].name.removeprefix(_prefix(kind)) if value else None


def _prefix(kind: descriptor.EnumDescriptor) -> str:
    return kind.values_by_number[0].name.removesuffix("UNSPECIFIED")


def read(document: object, into: message.Message, place: str) -> None:
    """Fill a message from a document.

    Args:
        document: What a file said.
        into: The message.
        place: What the refusal calls the document.

    Raises:
        CommandError: A field is unknown, or holds what it cannot.
    """
    if not isinstance(document, Mapping):
        raise failures.usage(place, str(document), f"a table with any of {', '.join(_names(into))}")
    for name, value in document.items():
        field = into.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            raise failures.usage(place, str(name), f"one of {', '.join(_names(into))}")
        if value is not None:
            _read_field(value, into, field, f"{place}.{name}")


def _names(told: message.Message) -> list[str]:
    return [field.name for field in told.DESCRIPTOR.fields]


def _read_field(value: object, into: message.Message, field: _FieldDescriptor, place: str) -> None:
    if _is_map(field):
        _assign(lambda: getattr(into, field.name).update(value), value, place)
    elif field.is_repeated:
        if not isinstance(value, list):
            raise failures.usage(place, str(value), "a list")
        for one in value:
            _read_item(one, getattr(into, field.name), field, place)
    elif field.message_type is not None:
        part = getattr(into, field.name)
        part.SetInParent()
        read_message(value, part, place)
    else:
        _assign(lambda: setattr(into, field.name, _scalar(value, field, place)), value, place)


def _read_item(value: object, into: Any, field: _FieldDescriptor, place: str) -> None:  # noqa: ANN401  # any container
    if field.message_type is not None:
        read_message(value, into.add(), place)
    else:
        _assign(lambda: into.append(_scalar(value, field, place)), value, place)


def read_message(value: object, into: message.Message, place: str) -> None:
    """Fill a message from what stands for it: a document, or the text of a time or a window.

    Raises:
        CommandError: It holds what it cannot; the message names the place.
    """
    if isinstance(into, duration_pb2.Duration):
        into.FromTimedelta(spans.parse(place, str(value)))
    elif isinstance(into, timestamp_pb2.Timestamp):
        into.FromDatetime(spans.instant(place, str(value)))
    elif isinstance(into, rollout_pb2.Window) and isinstance(value, str):
        into.CopyFrom(windows.parse(place, value))
    else:
        read(value, into, place)


def _scalar(value: object, field: _FieldDescriptor, place: str) -> object:
    if field.enum_type is None:
        return value
    word = str(value).upper().replace("-", "_")
    found = field.enum_type.values_by_name.get(f"{_prefix(field.enum_type)}{word}")
    if found is None or not found.number:
        known = [enum_name(number, field.enum_type) for number in field.enum_type.values_by_number if number]
        raise failures.usage(place, str(value), f"one of {', '.join(map(str, known))}")
    return found.number


def _assign(assign: Any, value: object, place: str) -> None:  # noqa: ANN401  # any call without arguments
    try:
        assign()
    except (TypeError, ValueError) as fault:
        raise failures.usage(place, str(value), f"of the type that it has ({fault})") from fault
