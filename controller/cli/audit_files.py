"""An export of the audit log: JSON lines, each with all that its hash is over, so that anybody can verify it.

Rules kept here: the first line says what the records hang on, the last one up to where the log went; what cannot be
read is an error of usage that names the line. Left out: whether it is whole (`controller.core.audit.checking`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from controller.cli import failures
from controller.core import errors
from controller.core.audit import chain

FORM = "instar-audit-1"
RULE = "an export of the audit log"
_BEGIN, _EPOCH, _ROW, _HEAD = "begin", "epoch", "row", "head"
_Line: TypeAlias = Mapping[str, Any]


def begin_line(begin: chain.Head) -> str:
    """The first line.

    Args:
        begin: What the first record hangs on.
    """
    return _line({"record": _BEGIN, "form": FORM, "head": str(begin)})


def record_line(record: chain.Record) -> str:
    """The line of a row, or of the beginning of an epoch."""
    if isinstance(record, chain.Epoch):
        before = record.previous
        return _line(
            {
                "record": _EPOCH,
                "number": record.number,
                "started_at": chain.instant(record.started_at),
                "previous_epoch": before.epoch,
                "previous_position": before.position,
                "previous_hash": before.hash,
                "hash": record.hash,
            }
        )
    entry = record.entry
    return _line(
        {
            "record": _ROW,
            "epoch": record.epoch,
            "position": record.position,
            "at": chain.instant(entry.at),
            "actor": entry.actor,
            "action": entry.action,
            "subject": entry.subject,
            "reason": entry.reason,
            "result": entry.result,
            "previous_hash": record.previous_hash,
            "hash": record.hash,
        }
    )


def head_line(head: chain.Head) -> str:
    """The last line.

    Args:
        head: Up to where the log went.
    """
    return _line({"record": _HEAD, "head": str(head)})


class Export:
    """An export in a file, read once from its beginning to its end.

    ``begin`` is what the first record hangs on; ``head`` up to where the log went, known once all records are read, and
    None where the file ends without it.

    Args:
        file: Where it lies.

    Raises:
        CommandError: It is no export.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines = self._read()
        first = next(self._lines, None)
        if first is None or (first[1].get("record"), first[1].get("form")) != (_BEGIN, FORM):
            raise failures.usage("FILE", str(file), f"{RULE} of the form {FORM}")
        self.begin = self._parsed(first[0], _head, first[1])
        self.head: chain.Head | None = None

    def records(self) -> Iterator[chain.Record]:
        """Read the records in order.

        Raises:
            CommandError: A line is none, or one stands behind the head.
        """
        for number, line in self._lines:
            if self.head is not None:
                raise self._wrong(number, "something stands behind the head")
            if line.get("record") == _HEAD:
                self.head = self._parsed(number, _head, line)
            else:
                yield self._parsed(number, _record, line)

    def _read(self) -> Iterator[tuple[int, _Line]]:
        try:
            with self._file.open(encoding="utf-8") as lines:
                for number, text in enumerate(lines, 1):
                    yield number, self._parsed(number, _object, text)
        except OSError as fault:
            raise failures.usage("FILE", str(self._file), f"a file that can be read ({fault.strerror})") from fault
        except UnicodeDecodeError as fault:
            raise failures.usage("FILE", str(self._file), f"{RULE}, in UTF-8") from fault

    def _parsed(self, number: int, parse: Callable[[Any], Any], told: object) -> Any:  # noqa: ANN401  # what parse gives
        try:
            return parse(told)
        except (errors.InvalidRequestError, KeyError, TypeError, ValueError, RecursionError) as fault:
            raise self._wrong(number, f"it is no record: {type(fault).__name__} {fault}") from fault

    def _wrong(self, number: int, why: str) -> failures.CommandError:
        return failures.usage("FILE", str(self._file), f"{RULE}; line {number}: {why}")


def _line(told: Mapping[str, object]) -> str:
    return json.dumps(told, ensure_ascii=False) + "\n"


def _object(text: str) -> _Line:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("it is no object")
    return found


def _head(line: _Line) -> chain.Head:
    return chain.parse_head(_text(line, "head"), "head")


def _record(line: _Line) -> chain.Record:
    kinds: Mapping[object, Callable[[_Line], chain.Record]] = {_EPOCH: _epoch, _ROW: _row}
    return kinds[line["record"]](line)


def _epoch(line: _Line) -> chain.Epoch:
    _know(line, ("record", "number", "started_at", "previous_epoch", "previous_position", "previous_hash", "hash"))
    before = chain.Head(
        _number(line, "previous_epoch"), _number(line, "previous_position"), _text(line, "previous_hash")
    )
    return chain.Epoch(_number(line, "number"), _instant(line, "started_at"), before, _text(line, "hash"))


def _row(line: _Line) -> chain.Row:
    told = ("actor", "action", "subject", "reason", "result")
    _know(line, ("record", "epoch", "position", "at", *told, "previous_hash", "hash"))
    entry = chain.Entry(_instant(line, "at"), *(_text(line, name) for name in told))
    place = (_number(line, "epoch"), _number(line, "position"))
    return chain.Row(*place, entry, _text(line, "previous_hash"), _text(line, "hash"))


def _know(line: _Line, names: Iterable[str]) -> None:
    """Refuse what no hash is over: nobody could tell whether it was changed."""
    unknown = sorted(set(line) - set(names))
    if unknown:
        raise ValueError(f"{unknown[0]} is unknown")


def _text(line: _Line, name: str) -> str:
    if not isinstance(line[name], str):
        raise TypeError(f"{name} is no text")
    return str(line[name])


def _number(line: _Line, name: str) -> int:
    found = line[name]
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise TypeError(f"{name} is no whole number from 0 on")
    return found


def _instant(line: _Line, name: str) -> datetime:
    """An instant, written in the one way in which it is hashed."""
    text = _text(line, name)
    found = datetime.fromisoformat(text)
    if found.tzinfo is None or chain.instant(found) != text:
        raise ValueError(f"{name} is not written as 2026-01-31T12:30:00.000000+00:00")
    return found
