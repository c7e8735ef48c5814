"""The lock: one version of each package that may be installed, with the hashes that it must have.

Rules kept here: the lock is whole, so every line of it is a pin with hashes, and anything else is refused. A package
may be pinned more than once, each time for other Pythons or platforms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from packaging import requirements, utils

from controller.packaging.distribution.errors import DistributionError

HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Pin:
    """One version of one package.

    Args:
        name: In its normal form.
        marker: For which Pythons and platforms, as in the lock; empty for all.
        hashes: SHA-256 in hexadecimal digits, of each file that may be installed for it.
    """

    name: str
    version: str
    marker: str
    hashes: Sequence[str]


def read(text: str) -> Sequence[Pin]:
    """Read a lock.

    Raises:
        DistributionError: A line is no pin with hashes.
    """
    return tuple(_pin(line) for line in _lines(text))


def _lines(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


def _pin(line: str) -> Pin:
    stated, *_ = line.partition(" --hash=")
    hashes = HASH.findall(line)
    try:
        found = requirements.Requirement(stated)
    except requirements.InvalidRequirement as error:
        raise DistributionError(f"cannot read the lock: {stated.strip()!r} is no requirement: {error}") from error
    [*specifiers] = found.specifier
    if len(specifiers) != 1 or specifiers[0].operator != "==" or not hashes:
        raise DistributionError(f"cannot read the lock: {stated.strip()!r} is no version with hashes; run `make lock`")
    marker = "" if found.marker is None else str(found.marker)
    return Pin(utils.canonicalize_name(found.name), specifiers[0].version, marker, tuple(hashes))
