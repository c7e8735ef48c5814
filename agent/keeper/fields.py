"""Reads the fields of a request: each is of its type and within its bound, or the request is refused by name.

Rules kept here: total conversion at the edge; a refusal names field, value and rule. Left out: what the fields mean.
"""

import json
import re
from collections.abc import Sequence

from agent.keeper import errors

Body = dict[str, object]

TEXT_MAX = 4096  # characters of a path or an address
ITEMS_MAX = 256  # words of a command, variables of an environment
SECONDS_MAX = 24 * 3600.0  # nothing on a node is waited for longer than a day
SOCKET = re.compile(r"[a-z0-9][a-z0-9.-]{0,59}(~[a-z0-9-]{1,32})?")  # a name, and the suffix of a private one
ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,59}")  # becomes a file name beside its suffix, and part of a socket path
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def refuse(name: str, value: object, rule: str) -> errors.RequestError:
    """Say what is wrong with a field; the value is cut short."""
    return errors.RequestError("invalid_request", f"cannot take {name} {value!r:.80}: {rule}")


def parse(line: bytes) -> Body:
    """Read one JSON object."""
    try:
        body = json.loads(line)
    except ValueError as error:
        raise errors.RequestError("invalid_request", f"cannot read the request: {error}") from error
    if not isinstance(body, dict):
        raise errors.RequestError("invalid_request", "cannot read the request: it is not an object")
    return body


def text(body: Body, name: str) -> str:
    """Read a text, which may be empty."""
    value = body.get(name)
    if not isinstance(value, str) or len(value) > TEXT_MAX or "\0" in value:
        raise refuse(name, value, f"it must be text of at most {TEXT_MAX} characters")
    return value


def identifier(body: Body, name: str) -> str:
    """Read an id of an instance or the name of a component."""
    value = text(body, name)
    if not ID.fullmatch(value):
        raise refuse(name, value, f"it must match {ID.pattern}")
    return value


def socket(body: Body, name: str) -> str:
    """Read the name of a listener."""
    value = text(body, name)
    if not SOCKET.fullmatch(value):
        raise refuse(name, value, f"it must match {SOCKET.pattern}")
    return value


def choice(body: Body, name: str, choices: Sequence[str]) -> str:
    """Read one of a few words."""
    value = text(body, name)
    if value not in choices:
        raise refuse(name, value, f"it must be one of {', '.join(choices)}")
    return value


def truth(body: Body, name: str) -> bool:
    """Read true or false."""
    value = body.get(name)
    if not isinstance(value, bool):
        raise refuse(name, value, "it must be true or false")
    return value


def digest(body: Body, name: str) -> str:
    """Read a digest."""
    value = text(body, name)
    if not DIGEST.fullmatch(value):
        raise refuse(name, value, f"it must match {DIGEST.pattern}")
    return value


def seconds(body: Body, name: str) -> float:
    """Read a span of time in seconds."""
    value = number(body, name)
    if not 0 <= value <= SECONDS_MAX:
        raise refuse(name, value, f"it must be from 0 to {SECONDS_MAX:.0f} seconds")
    return value


def whole(body: Body, name: str, least: int, most: int) -> int:
    """Read a whole number."""
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise refuse(name, value, f"it must be a whole number from {least} to {most}")
    return value


def texts(body: Body, name: str) -> tuple[str, ...]:
    """Read a list of texts."""
    value = body.get(name)
    if not isinstance(value, list) or len(value) > ITEMS_MAX:
        raise refuse(name, value, f"it must be a list of at most {ITEMS_MAX} texts")
    return tuple(text({name: item}, name) for item in value)


def mapping(body: Body, name: str) -> dict[str, str]:
    """Read an object whose values are texts."""
    value = body.get(name)
    if not isinstance(value, dict) or len(value) > ITEMS_MAX:
        raise refuse(name, value, f"it must be an object of at most {ITEMS_MAX} texts")
    return {key: text({name: item}, name) for key, item in value.items()}


def number(body: Body, name: str) -> float:
    """Read a number."""
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse(name, value, "it must be a number")
    return float(value)


def bodies(body: Body, name: str) -> tuple[Body, ...]:
    """Read a list of objects."""
    value = body.get(name)
    if not isinstance(value, list) or len(value) > ITEMS_MAX:
        raise refuse(name, value, f"it must be a list of at most {ITEMS_MAX} objects")
    return tuple(nested({name: item}, name) for item in value)


def nested(body: Body, name: str) -> Body:
    """Read an object."""
    value = body.get(name)
    if not isinstance(value, dict):
        raise refuse(name, value, "it must be an object")
    return value
