"""Which versions a module knows: comparators of SemVer, as in a manifest.

Rules kept here: the precedence of SemVer 2.0; all comparators of a text must hold. Left out: build metadata, which has
no precedence.
"""

import operator
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")
COMPARATOR = re.compile(r"(<=|>=|==|<|>)?\s*(\S+)")
Key = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]
COMPARE: Mapping[str, Callable[[Key, Key], bool]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}
)


class VersionError(Exception):
    """The text is no version, or no list of comparators."""


def holds(comparators: str, version: str) -> bool:
    """Whether a version keeps every comparator, for example ``>=1.2.0,<2.0.0``.

    Raises:
        VersionError: One of the two is not of that form.
    """
    found = _key(version)
    for text in comparators.split(","):
        match = COMPARATOR.fullmatch(text.strip())
        if match is None:
            raise VersionError(f"cannot use {comparators!r}: it is a list such as >=1.2.0,<2.0.0")
        if not COMPARE[match[1] or "=="](found, _key(match[2])):
            return False
    return True


def _key(version: str) -> Key:
    match = VERSION.fullmatch(version)
    if match is None:
        raise VersionError(f"cannot use {version!r} as a version: it is three numbers, as in 1.2.0")
    parts = (match[4] or "").split(".")
    # A release comes after its pre-releases, and numbers in them come before words.
    before = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts if part)
    return int(match[1]), int(match[2]), int(match[3]), not before, before
