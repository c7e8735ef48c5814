"""Files of triggers: read as a whole, and whatever is wrong in them told at once, each with its line.

Rules kept here: a file says a trigger in the form in which `-o json` shows it, with when and action as tables of one
key; it may hold several, below ``triggers``. Left out: what a trigger may be, which the controller decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import duration_pb2, message, timestamp_pb2

from controller.cli import document, failures, files, places
from controller.core import errors
from instar.v1 import trigger_pb2

LISTED = "triggers"
STATUS = "status"  # what `-o json` shows beside a definition, and nobody can say
CHOICES = ("when", "action")  # oneofs: in the file, tables with one key
_NUMBERED = re.compile(r"(.+)\[(\d+)\]")
_Problem = tuple[places.Path, errors.InstarError]


@dataclass(frozen=True, slots=True)
class Found:
    """One trigger of a file.

    Args:
        file: The file.
        lines: Where its keys stand.
        place: Where in it the trigger is.
        trigger: The trigger.
    """

    file: Path
    lines: dict[places.Path, int]
    place: places.Path
    trigger: trigger_pb2.Trigger

    def sentences(self, problems: Iterable[errors.InstarError]) -> Iterator[str]:
        """What is wrong with it, each with its line and its field."""
        for one in problems:
            path = (*self.place, *_path(one.field))
            yield _sentence(self.file, places.nearest(self.lines, path), one)


def read(file: Path) -> tuple[Found, ...]:
    """The triggers of a file.

    Raises:
        CommandError: The file cannot be read, or triggers in it cannot; each of its lines says what and where.
    """
    said = files.read(file)
    lines = _lines(file)
    found, problems = [], list[_Problem]()
    for place, one in _each(said):
        trigger = trigger_pb2.Trigger()
        problems += [((*place, *path), error) for path, error in _fill(one, trigger)]
        found.append(Found(file, lines, place, trigger))
    if problems:
        placed = sorted(
            (places.nearest(lines, path), _sentence(file, places.nearest(lines, path), error))
            for path, error in problems
        )
        raise refusal(file, [sentence for _, sentence in placed], failures.Exit.USAGE)
    return tuple(found)


def refusal(file: Path, sentences: Iterable[str], code: failures.Exit) -> failures.CommandError:
    """The error of a file of which all of this is wrong."""
    return failures.CommandError("\n".join([f"cannot use {file}:", *sentences]), code)


def shown(told: trigger_pb2.Trigger) -> dict[str, Any]:
    """A trigger in the form in which files say it."""
    found = document.of(told)
    for choice in CHOICES:
        names = _names(choice)
        chosen = {name: found[name] for name in names if found[name] is not None}
        found = {name: value for name, value in found.items() if name not in names} | {choice: chosen}
    return found


def _lines(file: Path) -> dict[places.Path, int]:
    text = file.read_text("utf-8")
    return places.of_toml(text) if file.suffix == ".toml" else places.of_json(text)


def _sentence(file: Path, line: int, error: errors.InstarError) -> str:
    """One problem; what is said before the field, and the field, are not said twice."""
    _, found, rest = str(error).partition(f"{error.field} ")
    text = rest if error.field and found else str(error)
    text = f"{error.value!r} must be {error.rule}" if error.rule else text
    return f"{file}:{line}: {error.field}: {text}"


def _path(field: str) -> Iterator[str | int]:
    """The keys of a dotted field, such as ``guards.windows[1].opens``."""
    for part in field.split("."):
        numbered = _NUMBERED.fullmatch(part)
        yield from (numbered[1], int(numbered[2])) if numbered else (part,)


def _each(said: object) -> Iterator[tuple[places.Path, object]]:
    if isinstance(said, Mapping) and set(said) == {LISTED} and isinstance(said[LISTED], list):
        yield from (((LISTED, number), one) for number, one in enumerate(said[LISTED]))
    else:
        yield (), said


def _fill(said: object, into: trigger_pb2.Trigger) -> Iterator[_Problem]:
    """Fill a trigger; say what cannot be."""
    if not isinstance(said, Mapping):
        yield (), _wrong("trigger", said, "a table")
        return
    for name, value in said.items():
        if name == STATUS:
            continue
        if name in CHOICES:
            yield from _fill_choice(name, value, into)
        elif name in (*_names("when"), *_names("action")):
            yield (name,), _wrong(name, value, f"in the table {_choice_of(name)}")
        else:
            yield from _fill_field(name, value, into, (name,))


def _fill_choice(choice: str, value: object, into: trigger_pb2.Trigger) -> Iterator[_Problem]:
    names = _names(choice)
    if not isinstance(value, Mapping) or len(value) != 1 or not set(value) <= set(names):
        yield (choice,), _wrong(choice, _brief(value), f"a table with one of {', '.join(names)}")
        return
    for name, part in value.items():
        yield from _fill_field(name, part, into, (choice, name))


def _fill_field(name: str, value: object, into: message.Message, path: places.Path) -> Iterator[_Problem]:
    """Fill one field, and what is in it; each part by itself, so that all that is wrong is found."""
    field: Any = into.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        yield path, _wrong(_dotted(path), value, f"absent: here are {', '.join(_known(into))}")
    elif _is_table(field) and not field.is_repeated and isinstance(value, Mapping):
        part = getattr(into, name)
        part.SetInParent()
        for key, one in value.items():
            yield from _fill_field(str(key), one, part, (*path, str(key)))
    elif _is_table(field) and field.is_repeated and isinstance(value, list):
        for number, one in enumerate(value):
            yield from _fill_item(one, getattr(into, name), (*path, number))
    else:
        yield from _fill_plain(name, value, into, path)


def _is_table(field: Any) -> bool:  # noqa: ANN401  # the stubs know two classes of the same name that share no base
    kinds = (duration_pb2.Duration.DESCRIPTOR, timestamp_pb2.Timestamp.DESCRIPTOR)
    kind = field.message_type
    return kind is not None and kind not in kinds and not kind.GetOptions().map_entry


def _fill_item(value: object, into: Any, path: places.Path) -> Iterator[_Problem]:  # noqa: ANN401  # any container
    part = into.add()
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _fill_field(str(key), one, part, (*path, str(key)))
        return
    try:
        document.read_message(value, part, _dotted(path))
    except failures.CommandError as error:
        yield path, _error(path, error)


def _fill_plain(name: str, value: object, into: message.Message, path: places.Path) -> Iterator[_Problem]:
    try:
        document.read({name: value}, into, _dotted(path[:-1]))
    except failures.CommandError as error:
        yield path, _error(path, error)


def _error(path: places.Path, error: failures.CommandError) -> errors.InstarError:
    """The same, by the field as the file has it."""
    rule = "" if error.error is None else error.error.rule
    value = "" if error.error is None else error.error.value
    return errors.InvalidRequestError(str(error), code="argument_invalid", field=_dotted(path), value=value, rule=rule)


def _dotted(path: places.Path) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "trigger"


def _names(choice: str) -> list[str]:
    return [field.name for field in trigger_pb2.Trigger.DESCRIPTOR.oneofs_by_name[choice].fields]


def _known(told: message.Message) -> list[str]:
    """The keys of a table."""
    names = [field.name for field in told.DESCRIPTOR.fields]
    if not isinstance(told, trigger_pb2.Trigger):
        return names
    chosen = [name for choice in CHOICES for name in _names(choice)]
    return [*(name for name in names if name not in chosen), *CHOICES]


def _choice_of(name: str) -> str:
    return next(choice for choice in CHOICES if name in _names(choice))


def _brief(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Mapping) else str(value)


def _wrong(field: str, value: object, rule: str) -> errors.InvalidRequestError:
    text = f"cannot use {field} {value!r}: it must be {rule}"
    return errors.InvalidRequestError(text, code="argument_invalid", field=field, value=str(value), rule=rule)
