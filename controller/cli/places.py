"""On which line of a TOML or JSON document each of its keys stands, so that what is wrong can be shown where it is.

Rules kept here: only documents that the parsers of the standard library have accepted come here, so nothing is checked
a second time. Left out: what the documents say.
"""

from __future__ import annotations

import json
import re
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]  # keys, and numbers of items, from the top
_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""+|\'\'\'.*?\'\'\'+|"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL
)  # the long ones first
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_BARE = re.compile(r"[^,\]}\n#]+")


def of_toml(text: str) -> dict[Path, int]:
    """The line of each key, table and item of a TOML document."""
    return _Scanner(text).toml()


def of_json(text: str) -> dict[Path, int]:
    """The same of a JSON document."""
    return _Scanner(text).json()


def nearest(lines: dict[Path, int], path: Path) -> int:
    """The line of a key, or of what is nearest above it; 1 where nothing is."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


class _Scanner:
    """One walk over a document."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[Path, int] = {}
        self._items: dict[Path, int] = {}  # so many items the arrays of tables have so far

    def json(self) -> dict[Path, int]:
        self._blank()
        self._value(())
        return self._lines

    def toml(self) -> dict[Path, int]:
        table: Path = ()
        self._blank()
        while self._at < len(self._text):
            if self._here() == "[":
                table = self._header()
            else:
                self._pair(table)
            self._blank()
        return self._lines

    def _here(self) -> str:
        return self._text[self._at : self._at + 1]

    def _blank(self) -> None:
        found = _BLANK.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _header(self) -> Path:
        """``[table]`` or ``[[item]]``; the path of what follows."""
        line = self._line()
        is_item = self._text.startswith("[[", self._at)
        self._at += 2 if is_item else 1
        names = self._names()
        self._at += 2 if is_item else 1
        path: Path = ()
        for name in names[:-1]:
            path = self._inside((*path, name))
            self._lines.setdefault(path, line)
        path = (*path, names[-1])
        if is_item:
            self._lines.setdefault(path, line)
            self._items[path] = self._items.get(path, 0) + 1
        path = self._inside(path)
        self._lines.setdefault(path, line)
        return path

    def _inside(self, path: Path) -> Path:
        """The latest item, where it is an array of tables."""
        return (*path, self._items[path] - 1) if path in self._items else path

    def _pair(self, table: Path) -> None:
        line = self._line()
        path = table
        for name in self._names():
            path = (*path, name)
            self._lines.setdefault(path, line)
        self._at += 1  # the sign between key and value
        self._blank()
        self._value(path)

    def _names(self) -> list[str]:
        """A key with its dots."""
        names = []
        while True:
            self._blank()
            quoted = _STRING.match(self._text, self._at)
            found = quoted or _WORD.match(self._text, self._at)
            name = found[0] if found else ""
            self._at += len(name)
            names.append(_plain(name) if quoted else name)
            self._blank()
            if self._here() != ".":
                return names
            self._at += 1

    def _value(self, path: Path) -> None:
        opening = self._here()
        if opening == "{":
            self._parts(path, "}")
        elif opening == "[":
            self._parts(path, "]")
        else:
            found = _STRING.match(self._text, self._at) or _BARE.match(self._text, self._at)
            self._at = found.end() if found else len(self._text)

    def _parts(self, path: Path, closing: str) -> None:
        """What is within brackets: pairs, or items."""
        self._at += 1
        number = 0
        self._blank()
        while self._here() not in (closing, ""):
            if closing == "}":
                self._pair(path)
            else:
                self._lines[(*path, number)] = self._line()
                self._value((*path, number))
            number += 1
            self._blank()
            self._at += self._here() == ","
            self._blank()
        self._at += 1

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1


def _plain(quoted: str) -> str:
    """A key without its quotes."""
    if quoted[0] == "'":
        return quoted[1:-1]
    try:
        return str(json.loads(quoted))
    except ValueError:  # escapes that TOML has and JSON has not; nobody names keys so
        return quoted[1:-1]
