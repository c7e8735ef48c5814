"""Versions in the form of SemVer 2.0, as far as a node must judge them: form, order, and comparators.

Source: https://semver.org, sections 9 to 11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

NUMBER = r"(?:0|[1-9]\d*)"
IDENTIFIER = rf"(?:{NUMBER}|\d*[A-Za-z-][0-9A-Za-z-]*)"
VERSION = re.compile(
    rf"(?P<core>{NUMBER}\.{NUMBER}\.{NUMBER})(?:-(?P<pre>{IDENTIFIER}(?:\.{IDENTIFIER})*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
COMPARATOR = re.compile(r"\s*(?P<operator>[<>]=?|!?=|)\s*(?P<version>[0-9A-Za-z.+-]+)\s*", re.ASCII)
COMPARATORS_MAX = 16  # ranges that people write have two
RULE = "comparators <, <=, >, >=, = or != of SemVer versions, with commas between, for example >=1.2.0,<2.0.0"


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A version by its precedence; build metadata does not count."""

    core: tuple[int, ...]
    prerelease: tuple[str, ...]

    def __lt__(self, other: Version) -> bool:
        return self._precedence() < other._precedence()

    def _precedence(self) -> tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]:
        identifiers = tuple((False, int(word), "") if word.isdecimal() else (True, 0, word) for word in self.prerelease)
        return self.core, not self.prerelease, identifiers


@dataclass(frozen=True, slots=True)
class Comparator:
    """One bound on a version; by precedence alone, so that 2.0.0-rc.1 is below 2.0.0."""

    operator: str
    version: Version

    def lets(self, version: Version) -> bool:
        """Say whether a version keeps to this bound."""
        is_below, is_same = version < self.version, version == self.version
        passed = {
            "<": is_below,
            "<=": is_below or is_same,
            ">": not is_below and not is_same,
            ">=": not is_below,
            "=": is_same,
            "!=": not is_same,
        }
        return passed[self.operator]


def parse(text: str) -> Version | None:
    """Read a version; None where the text is not SemVer 2.0."""
    match = VERSION.fullmatch(text)
    if match is None:
        return None
    prerelease = match["pre"]
    core = tuple(int(number) for number in match["core"].split("."))
    return Version(core, tuple(prerelease.split(".")) if prerelease else ())


def parse_comparators(text: str) -> tuple[Comparator, ...] | None:
    """Read comparators, all of which must let a version pass; none in an empty text, None where it breaks `RULE`."""
    if not text:
        return ()
    found = [_comparator(part) for part in text.split(",")]
    known = tuple(each for each in found if each is not None)
    return known if len(known) == len(found) <= COMPARATORS_MAX else None


def matches(version: str, comparators: str) -> bool:
    """Say whether a version keeps to all comparators; what is no version, or no comparators, matches nothing."""
    bounds, read = parse_comparators(comparators), parse(version)
    return bounds is not None and read is not None and all(bound.lets(read) for bound in bounds)


def _comparator(part: str) -> Comparator | None:
    match = COMPARATOR.fullmatch(part)
    version = parse(match["version"]) if match else None
    return Comparator(match["operator"] or "=", version) if match and version else None
