"""Values of a manifest that have one form wherever they stand.

Rules kept here: whatever breaks a rule is an `InvalidRequestError` that names the dotted key, the value and the rule;
the rules are those of the agent, which reads the same file again. Left out: which keys there are (`manifest`,
`driver_options`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Never

from google.protobuf import duration_pb2, message

from controller.core import errors

NAME_RULE = "1 to 63 lower-case letters, digits, dots and dashes, beginning and ending with a letter or digit"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
# As the node has it: an instance's id and socket paths are made of the name.
COMPONENT_NAME_CHARS_MAX = 40
ITEMS_MAX = 64  # of arguments, variables, sockets or series
TEXT_CHARS_MAX = 4096  # of one word of a command, or the name of a service: what a path may have
PATH_CHARS_MAX = 240  # what a bundle's header can name
SECONDS_MAX = 86_400  # one day: whatever a component waits for, it is not longer
_TARGET = re.compile(r"/[!-~]*")


def refuse(field: str, value: object, rule: str, *, code: str = "manifest_invalid") -> Never:
    """Refuse a manifest for one of its keys.

    Raises:
        InvalidRequestError: Always.
    """
    shown = f" {value!r}" if value else ""
    raise errors.InvalidRequestError(
        f"cannot use the manifest: {field}{shown} must be {rule}", code=code, field=field, value=str(value), rule=rule
    )


def check_name(field: str, value: str) -> None:
    """Refuse what is no name."""
    if not _NAME.fullmatch(value):
        refuse(field, value, NAME_RULE)


def check_component(field: str, value: str) -> None:
    """Refuse what is no name of a component."""
    check_name(field, value)
    if len(value) > COMPONENT_NAME_CHARS_MAX:
        refuse(field, value, f"at most {COMPONENT_NAME_CHARS_MAX} characters long")


def check_count(field: str, count: int) -> None:
    """Refuse more items than any sane manifest has."""
    if count > ITEMS_MAX:
        refuse(field, str(count), f"at most {ITEMS_MAX} items long")


def check_once(field: str, items: Sequence[object]) -> None:
    """Refuse an item that stands there twice."""
    for item in items:
        if items.count(item) > 1:
            refuse(field, str(item), "there once")


def check_words(field: str, words: Sequence[str]) -> None:
    """Refuse what is no command: a program, and its arguments."""
    if not words or not words[0]:
        refuse(field, "", "a program and its arguments")
    check_optional_words(field, words)


def check_optional_words(field: str, words: Sequence[str]) -> None:
    """Refuse what is no command where there may be none."""
    if words and not words[0]:
        refuse(field, "", "a program and its arguments")
    check_count(field, len(words))
    for word in words:
        check_text(field, word)


def check_text(field: str, text: str) -> None:
    """Refuse a text that cannot be passed on as it stands."""
    if "\0" in text or len(text) > TEXT_CHARS_MAX:
        refuse(field, text[:TEXT_CHARS_MAX], f"without NUL and at most {TEXT_CHARS_MAX} characters long")


def check_target(field: str, path: str) -> None:
    """Refuse what is no target of a GET."""
    if not _TARGET.fullmatch(path):
        refuse(field, path, "a path that begins with '/' and holds visible ASCII only")


def check_bundled(field: str, path: str) -> None:
    """Refuse what is no file or folder of the bundle."""
    parts = path.split("/")
    if len(path) > PATH_CHARS_MAX or any(part in {"", ".", ".."} or not part.isprintable() for part in parts):
        refuse(field, path, "a relative path within the bundle, with no empty, . or .. part")


def check_durations(manifest: message.Message) -> None:
    """Refuse a time, wherever it stands, that is none or too long to wait for."""
    for field, seconds in _durations(manifest, ""):
        if not 0 < seconds <= SECONDS_MAX:
            refuse(field, f"{seconds}s", f"a time above 0 s and up to {SECONDS_MAX} s")


def _durations(part: message.Message, path: str) -> Iterator[tuple[str, float]]:
    for field, value in part.ListFields():
        if isinstance(value, duration_pb2.Duration):
            yield path + field.name, value.seconds + value.nanos / 1e9
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            parts: Iterable[message.Message] = value if field.is_repeated else (value,)
            for one in parts:
                yield from _durations(one, f"{path}{field.name}.")
