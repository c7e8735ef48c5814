"""Values of a manifest that have one form wherever they stand; each is checked and given back.

Rules kept here: whatever breaks a rule is a `ConfigError` that names the key, the value and the rule. Left out: which
keys there are (`manifest`, `checks`, `options`, `state_schema`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta

from google.protobuf import duration_pb2, message

from agent.config import semver
from agent.config.errors import ConfigError

ENTRIES_MAX = 64  # sockets, arguments, variables, series: more is a mistake
DURATION_MAX = timedelta(hours=24)  # nothing that a node waits for takes longer
TEXT_CHARS_MAX = 4096  # of one word of a command, or the name of a service: what a path may have
PATH_CHARS_MAX = 240  # what a bundle's header can name
REQUEST_TARGET = re.compile(r"/[!-~]*")


def broken(name: str, value: object, rule: str) -> ConfigError:
    """Make the error that names the key, the value and the rule."""
    return ConfigError(f"cannot use {name} = {value!r}: {rule}", field=name, value=str(value), rule=rule)


def matching(name: str, value: str, form: re.Pattern[str], rule: str) -> str:
    """Check a text against its form."""
    if not form.fullmatch(value):
        raise broken(name, value, rule)
    return value


def few(name: str, entries: Iterable[object]) -> None:
    """Refuse more entries than any sane manifest has."""
    count = len(tuple(entries))
    if count > ENTRIES_MAX:
        raise broken(name, count, f"it has at most {ENTRIES_MAX} entries")


def once(name: str, entries: Sequence[object], rule: str) -> None:
    """Refuse an entry that stands there twice."""
    for entry in entries:
        if entries.count(entry) > 1:
            raise broken(name, entry, rule)


def words(name: str, command: Iterable[str]) -> tuple[str, ...]:
    """Check a command: a program, and its arguments."""
    found = tuple(command)
    if not found or not found[0]:
        raise broken(name, list(found), "it has at least a program")
    few(name, found)
    for word in found:
        plain(name, word)
    return found


def optional_words(name: str, command: Iterable[str]) -> tuple[str, ...]:
    """Check a command that may be left out."""
    found = tuple(command)
    return words(name, found) if found else ()


def plain(name: str, text: str) -> str:
    """Check a text that is passed on as it stands."""
    if "\0" in text or len(text) > TEXT_CHARS_MAX:
        raise broken(name, text[:TEXT_CHARS_MAX], f"it holds no NUL and at most {TEXT_CHARS_MAX} characters")
    return text


def duration(name: str, owner: message.Message, default: timedelta) -> timedelta:
    """Read a duration, named by the last part of its key; the default where it is left out."""
    key = name.rpartition(".")[2]
    if not owner.HasField(key):
        return default
    found = getattr(owner, key)
    assert isinstance(found, duration_pb2.Duration)  # noqa: S101  # only durations are asked for
    value = found.ToTimedelta()
    if not timedelta() < value <= DURATION_MAX:
        raise broken(name, f"{value.total_seconds():g}s", "it is more than 0s and at most 24h")
    return value


def version(name: str, text: str) -> str:
    """Check a version."""
    if semver.parse(text) is None:
        raise broken(name, text, "it has the form of SemVer 2.0, for example 1.0.0")
    return text


def comparators(name: str, text: str) -> str:
    """Check comparators of versions; none are fine."""
    if semver.parse_comparators(text) is None:
        raise broken(name, text, semver.RULE)
    return text


def request_target(name: str, path: str) -> str:
    """Check the path of a GET."""
    return matching(name, path, REQUEST_TARGET, "it begins with / and holds visible ASCII only")


def bundled(name: str, path: str) -> str:
    """Check the name of a file or folder of the bundle."""
    parts = path.split("/")
    if len(path) > PATH_CHARS_MAX or any(part in {"", ".", ".."} or not part.isprintable() for part in parts):
        raise broken(name, path, "it is a relative path within the bundle, with no empty, . or .. part")
    return path
