"""Versions in the form of SemVer 2.0, as far as a node must judge them: form and order.

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


def parse(text: str) -> Version | None:
    """Read a version; None where the text is not SemVer 2.0."""
    match = VERSION.fullmatch(text)
    if match is None:
        return None
    prerelease = match["pre"]
    core = tuple(int(number) for number in match["core"].split("."))
    return Version(core, tuple(prerelease.split(".")) if prerelease else ())
