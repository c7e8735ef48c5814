"""SemVer 2.0: what order the versions of a component have, and which of them comparators let pass.

Rules kept: the order is that of the specification, clause 11, where build metadata count for nothing; comparators go by
it alone, so that 2.0.0-rc.1 is below 2.0.0. A version is a name and an order, never an identity: that is the digest.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controller.core import errors

TEXT_LENGTH_MAX = 128  # characters; a version stands in names of spans, files and columns
ORDERS_KEPT_MAX = 4096  # versions whose order is remembered; a graph compares the same few hundred over and over
COMPARATORS_MAX = 16  # as the node has it: ranges that people write have two
COMPARATORS_RULE = (
    f"at most {COMPARATORS_MAX} comparators <, <=, >, >=, = or != of SemVer versions, with commas between,"
    " for example >=1.2.0,<2.0.0"
)

# Source: https://semver.org, the expression that it suggests, digits bound to ASCII.
_FORM = re.compile(
    r"(?P<major>0|[1-9][0-9]*)\.(?P<minor>0|[1-9][0-9]*)\.(?P<patch>0|[1-9][0-9]*)"
    r"(?:-(?P<prerelease>(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
    r"(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+(?P<build>[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?"
)

_COMPARATOR = re.compile(r"\s*([<>]=?|!?=|)\s*([0-9A-Za-z.+-]+)\s*", re.ASCII)

# A number, or a word: numbers are lower than words.
Identifier = tuple[int, int, str]
Precedence = tuple[int, int, int, bool, tuple[Identifier, ...]]

_LETS: Mapping[str, Callable[[Precedence, Precedence], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class Version:
    """A version as SemVer reads it.

    Args:
        prerelease: Its identifiers; empty for a release proper.
        build: Build metadata, which have no order.
    """

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()
    build: str = ""

    @property
    def precedence(self) -> Precedence:
        """The order: numbers as numbers, a pre-release before its release, fewer identifiers before more."""
        return (self.major, self.minor, self.patch, not self.prerelease, tuple(map(_identifier, self.prerelease)))


def parse(text: str, field: str = "version") -> Version:
    """Read a version.

    Args:
        text: What somebody wrote.
        field: What the refusal calls the text.

    Raises:
        InvalidRequestError: It is not SemVer 2.0, or longer than a version may be.
    """
    found = _FORM.fullmatch(text) if len(text) <= TEXT_LENGTH_MAX else None
    if found is None:
        raise errors.InvalidRequestError(
            f"cannot read {field} {text[:TEXT_LENGTH_MAX]!r}: it must be SemVer 2.0, for example 1.4.0-rc.1",
            code="invalid_version",
            field=field,
            value=text[:TEXT_LENGTH_MAX],
            rule=f"SemVer 2.0 in at most {TEXT_LENGTH_MAX} characters",
        )
    prerelease = found["prerelease"]
    return Version(
        major=int(found["major"]),
        minor=int(found["minor"]),
        patch=int(found["patch"]),
        prerelease=tuple(prerelease.split(".")) if prerelease else (),
        build=found["build"] or "",
    )


@functools.lru_cache(maxsize=ORDERS_KEPT_MAX)
def order(text: str) -> Precedence:
    """Give the precedence of a version.

    Raises:
        InvalidRequestError: As `parse` has it.
    """
    return parse(text).precedence


@dataclass(frozen=True, slots=True)
class Comparator:
    """One bound on a version."""

    operator: str
    bound: Precedence

    def lets(self, precedence: Precedence) -> bool:
        """Tell whether a version keeps to the bound."""
        return _LETS[self.operator](precedence, self.bound)


def parse_comparators(text: str, field: str) -> tuple[Comparator, ...]:
    """Read comparators, all of which must let a version pass; none in an empty text.

    Raises:
        InvalidRequestError: The text breaks `COMPARATORS_RULE`.
    """
    found = [_COMPARATOR.fullmatch(part) for part in text.split(",")] if text else []
    if None in found or len(found) > COMPARATORS_MAX:
        raise errors.InvalidRequestError(
            f"cannot read {field} {text[:TEXT_LENGTH_MAX]!r}: it must be {COMPARATORS_RULE}",
            code="invalid_comparators",
            field=field,
            value=text[:TEXT_LENGTH_MAX],
            rule=COMPARATORS_RULE,
        )
    return tuple(Comparator(each[1] or "=", parse(each[2], field).precedence) for each in found if each is not None)


def matches(version: str, comparators: str) -> bool:
    """Tell whether a version keeps to all comparators."""
    precedence = order(version)
    return all(each.lets(precedence) for each in parse_comparators(comparators, "comparators"))


def is_lower(first: str, second: str) -> bool:
    """Tell whether the first version has a lower precedence than the second."""
    return order(first) < order(second)


def is_prerelease(text: str) -> bool:
    """Tell whether a version is one before a release proper."""
    return not order(text)[3]


def _identifier(text: str) -> Identifier:
    return (0, int(text), "") if text.isdecimal() else (1, 0, text)
