"""Keys of a table of the configuration file: each is read once, by its kind, and none is left over.

Rules kept: whatever breaks a rule is an `InvalidRequestError` that names the dotted key, the value and the rule. Left
out: which keys there are (`sources`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Never

from controller.core import errors

TEXT_CHARS_MAX = 4096  # of one value: a long query has some hundreds
_NAME = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?")
_NAME_RULE = "1 to 63 lower-case letters, digits, dots, dashes and underscores between letters or digits"
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def refuse(field: str, value: object, rule: str) -> Never:
    """Refuse a value of the configuration file.

    Raises:
        InvalidRequestError: Always.
    """
    raise errors.InvalidRequestError(
        f"cannot use {field} {str(value)!r}: it must be {rule}",
        code="setting_invalid",
        field=field,
        value=str(value),
        rule=rule,
    )


class Table:
    """One table of the file; what is not asked for by the end is unknown.

    Args:
        field: Where it stands, such as ``prometheus[0]``.
        found: What it holds.
    """

    def __init__(self, field: str, found: object) -> None:
        if not isinstance(found, dict):
            refuse(field, found, "a table")
        self.field = field
        self._found: dict[str, object] = dict(found)
        self._known: list[str] = []

    def key(self, name: str) -> str:
        """Give the dotted name of a key."""
        return f"{self.field}.{name}"

    def has(self, name: str) -> bool:
        """Tell whether a key is there and was not read yet."""
        return name in self._found

    def text(self, name: str, default: str | None = None) -> str:
        """Read a text; one without a default has to be there."""
        value = self._take(name, default)
        if not isinstance(value, str) or len(value) > TEXT_CHARS_MAX or not value.isprintable():
            refuse(self.key(name), value, f"text in quotes, printable and at most {TEXT_CHARS_MAX} characters long")
        return value

    def hidden(self, name: str) -> str:
        """Read a text that may hold a secret, so that no refusal repeats it; empty where there is none."""
        value = self._take(name, "")
        if not isinstance(value, str) or len(value) > TEXT_CHARS_MAX or not value.isprintable():
            refuse(self.key(name), "", f"text in quotes, printable and at most {TEXT_CHARS_MAX} characters long")
        return value

    def name(self, name: str) -> str:
        """Read a name."""
        value = self.text(name)
        if not _NAME.fullmatch(value):
            refuse(self.key(name), value, _NAME_RULE)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Read a finite number."""
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            refuse(self.key(name), value, "a finite number")
        return float(value)

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """Read a whole number within bounds."""
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            refuse(self.key(name), value, f"a whole number from {least} to {most}")
        return value

    def duration(self, name: str, default: timedelta, least: timedelta, most: timedelta) -> timedelta:
        """Read a time such as ``30s``, ``5m``, ``2h`` or ``90d`` within bounds."""
        if not self.has(name):
            self._known.append(name)
            return default
        value = self.text(name)
        matched = _DURATION.fullmatch(value)
        found = timedelta(seconds=float(matched[1]) * _SECONDS[matched[2]]) if matched else None
        if found is None or not least <= found <= most:
            refuse(self.key(name), value, f"a time such as 500ms, 30s, 5m, 2h or 90d, from {least} to {most}")
        return found

    def file(self, name: str) -> Path | None:
        """Read the absolute path of a file; None where there is none."""
        text = self.text(name, "")
        if text and not Path(text).is_absolute():
            refuse(self.key(name), text, "an absolute path")
        return Path(text) if text else None

    def texts(self, name: str) -> Mapping[str, str]:
        """Read a table of texts; empty where there is none."""
        table = Table(self.key(name), self._take(name, {}))
        return {key: table.text(key) for key in list(table._found)}

    def words(self, name: str) -> tuple[str, ...]:
        """Read a list of texts; empty where there is none."""
        value = self._take(name, [])
        if not isinstance(value, list) or not all(isinstance(each, str) and each.isprintable() for each in value):
            refuse(self.key(name), value, "a list of texts")
        return tuple(value)

    def flag(self, name: str) -> bool:
        """Read true or false; false where there is none."""
        value = self._take(name, False)  # noqa: FBT003  # a default as others are
        if not isinstance(value, bool):
            refuse(self.key(name), value, "true or false")
        return value

    def table(self, name: str) -> Table:
        """Read a table that has to be there."""
        return Table(self.key(name), self._take(name, None))

    def tables(self, name: str) -> list[Table]:
        """Read an array of tables; empty where there is none."""
        return tables(self.key(name), self._take(name, []))

    def end(self) -> None:
        """Refuse what was not asked for."""
        for name, value in self._found.items():
            refuse(self.key(name), value, f"absent: the keys are {', '.join(self._known)}")

    def _take(self, name: str, default: object) -> object:
        self._known.append(name)
        value = self._found.pop(name, default)
        if value is None:
            refuse(self.key(name), "", "given")
        return value


def tables(field: str, found: object) -> list[Table]:
    """Read an array of tables."""
    if not isinstance(found, list):
        refuse(field, found, f"an array of tables: [[{field}]]")
    return [Table(f"{field}[{position}]", one) for position, one in enumerate(found)]
