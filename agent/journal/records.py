"""What the journal remembers of one operation, and how it is written as JSON.

Rules kept here: a state record is whole in itself (operation and assignment), so that the newest alone is enough
to go on; text that somebody else wrote is cut until the record fits its slot, everything else is kept to the letter.
Left out: where the bytes lie (`agent.journal.slots`), and what an operation may do next (`agent.core.operation`).
"""

from __future__ import annotations

import functools
import json
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeVar, cast

from agent.core import model, operation, transitions

TEXT_CHARS_STEPS = (512, 128, 32, 0)  # how far foreign text is cut, in turn, until the record fits its slot

Fact = str | int | float | bool | None
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StateRecord:
    """Where an operation stands, written before the effect that the state announces.

    Args:
        driver: Name of the driver that carries the operation out; empty until the manifest is known.
        boot_id: Run of the kernel that the monotonic seconds of the operation belong to.
        facts: What the runner and its driver need to go on, for example instance ids.
    """

    operation: operation.Operation
    driver: str
    boot_id: str
    facts: Mapping[str, Fact]


Record = StateRecord | model.StepRecord


@dataclass(frozen=True, slots=True)
class History:
    """All that the journal holds of one operation, oldest first; ``states`` is never empty."""

    states: tuple[StateRecord, ...]
    steps: tuple[model.StepRecord, ...]

    @property
    def latest(self) -> StateRecord:
        """The newest state record."""
        return self.states[-1]

    @property
    def is_terminal(self) -> bool:
        """True where the operation has no obligation left on this node."""
        return self.latest.operation.phase in transitions.TERMINAL


def operation_id_of(record: Record) -> str:
    """Identity of the operation that a record belongs to."""
    return record.operation.assignment.operation_id if isinstance(record, StateRecord) else record.operation_id


def encode(record: Record, *, bytes_max: int) -> bytes | None:
    """Write a record as JSON within a size, cutting messages and evidence where it must; None where it cannot fit."""
    for chars_max in TEXT_CHARS_STEPS:
        document = {_word_of(record): to_plain(_cut(record, chars_max))}
        payload = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        if len(payload) <= bytes_max:
            return payload
    return None


def decode(payload: bytes) -> Record:
    """Read what `encode` wrote.

    Raises:
        ValueError: The JSON is not a record of this version of the journal.
    """
    try:
        [(word, plain)] = json.loads(payload).items()
        if word == "state":
            return from_plain(StateRecord, plain)
        return from_plain({"step": model.StepRecord}[word], plain)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"cannot read a journal record: {error!r}") from error


def _word_of(record: Record) -> str:
    return "state" if isinstance(record, StateRecord) else "step"


def _cut(record: Record, chars_max: int) -> Record:
    if isinstance(record, StateRecord):
        return replace(record, operation=replace(record.operation, message=record.operation.message[:chars_max]))
    return replace(record, evidence={key: value[:chars_max] for key, value in record.evidence.items()})


def to_plain(value: object) -> object:
    """Turn a value of the model into what JSON can say; times as ISO 8601, spans as whole microseconds."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    return value


def from_plain(kind: type[T], plain: object) -> T:
    """Turn what `to_plain` made back into a dataclass of the model; what is younger than the record has its default.

    Raises:
        KeyError, TypeError, ValueError: It was not made from this class.
    """
    table = cast("Mapping[str, object]", plain)
    hints = _hints(cast("Hashable", kind))
    return kind(**{name: _value(hint, table[name]) for name, hint in hints.items() if name in table})


@functools.cache
def _hints(kind: Hashable) -> Mapping[str, object]:
    return typing.get_type_hints(kind)  # compiles each annotation anew; a journal holds hundreds of records


def _value(hint: object, plain: object) -> object:
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        return _optional(typing.get_args(hint), plain)
    if origin is not None:
        return plain  # a mapping of plain values
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(plain)
    if hint is datetime:
        return datetime.fromisoformat(cast("str", plain))
    if hint is timedelta:
        return timedelta(microseconds=cast("int", plain))
    if is_dataclass(hint):
        return from_plain(cast("type[object]", hint), plain)
    return plain


def _optional(choices: tuple[object, ...], plain: object) -> object:
    if plain is None:
        return None
    [choice] = [choice for choice in choices if choice is not type(None)]
    return _value(choice, plain)
