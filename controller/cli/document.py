"""A message as the JSON document that `-o json` prints.

Rules kept here: names in snake_case; every field is there, with null for what is not set; enums without their prefix;
durations and times as proto JSON writes them; whole numbers as numbers. Left out: tables for people (`tables`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor, duration_pb2, message, timestamp_pb2

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
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_value(one, field) for one in value]
    if field.has_presence and not told.HasField(field.name):
        return None
    return _value(value, field)


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
    prefix = kind.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return kind.values_by_number[value].name.removeprefix(prefix) if value else None
