"""Bounds that people set for a node: how many bytes, how many, how old.

Rules kept here: sizes and ages have a unit, or are whole bytes; whatever breaks a rule is a `ConfigError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from agent.config.errors import ConfigError

GIB_BYTES = 1024**3
SIZE = re.compile(r"(?P<number>\d{1,12}) ?(?P<unit>B|KiB|MiB|GiB|TiB)", re.ASCII)
UNIT_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": GIB_BYTES, "TiB": 1024**4}
AGE = re.compile(r"(?P<number>\d{1,6})(?P<unit>[smhd])", re.ASCII)
UNIT = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
AGE_MAX = timedelta(days=3650)  # older than any release that a node still has
POINTS_MAX = 100  # of one component; each may hold a copy of its state
SIZE_RULE = 'it is a number of bytes, or a text such as "10 GiB"'
AGE_RULE = 'it is a text such as "30d", "12h", "10m" or "90s", of at most 3650 days and not zero'


@dataclass(frozen=True, slots=True)
class RollbackPoints:
    """What rollback points may take; the newest of a component stays whatever they say.

    Args:
        max_count: Of one component, from 1.
        max_bytes: Of all components together.
        max_age: Past it a point is removed.
    """

    max_count: int = 5
    max_bytes: int = 10 * GIB_BYTES
    max_age: timedelta = timedelta(days=30)


def rollback_points(table: Mapping[str, object]) -> RollbackPoints:
    """Read the table, with defaults for what is left out."""
    known = ("max_age", "max_bytes", "max_count")
    for key, value in table.items():
        if key not in known:
            raise _unusable(f"rollback_points.{key}", value, f"known keys are {', '.join(known)}")
    default = RollbackPoints()
    return RollbackPoints(
        max_count=_count("rollback_points.max_count", table.get("max_count", default.max_count)),
        max_bytes=size_bytes("rollback_points.max_bytes", table.get("max_bytes", default.max_bytes)),
        max_age=_age(table["max_age"]) if "max_age" in table else default.max_age,
    )


def size_bytes(name: str, value: object) -> int:
    """Read a size.

    Raises:
        ConfigError: It is neither a number of bytes nor a number with a unit, or it is zero.
    """
    match = SIZE.fullmatch(value) if isinstance(value, str) else None
    found = int(match["number"]) * UNIT_BYTES[match["unit"]] if match else value
    if not isinstance(found, int) or isinstance(found, bool) or found <= 0:
        raise _unusable(name, value, SIZE_RULE)
    return found


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= POINTS_MAX:
        raise _unusable(name, value, f"it is a whole number from 1 to {POINTS_MAX}")
    return value


def _age(value: object) -> timedelta:
    match = AGE.fullmatch(value) if isinstance(value, str) else None
    age = int(match["number"]) * UNIT[match["unit"]] if match else timedelta()
    if not timedelta() < age <= AGE_MAX:
        raise _unusable("rollback_points.max_age", value, AGE_RULE)
    return age


def _unusable(name: str, value: object, rule: str) -> ConfigError:
    return ConfigError(f"cannot use {name} = {value!r}: {rule}", field=name, value=str(value), rule=rule)
