"""Who needs whom among the pins, by what the installed distributions say of themselves.

Rules kept here: a requirement counts whatever Python and platform it is for, since the lock is for all of them; of an
extra it counts where somebody has asked for that extra.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata

from packaging import markers, requirements, utils

Extras = frozenset[str]


def reached(root: str, extras: Extras, names: frozenset[str]) -> Mapping[str, Sequence[str]]:
    """Everything that a distribution needs, and what that needs.

    Args:
        root: The distribution.
        extras: Of its extras, those that are asked for.
        names: Which count; what is not pinned is for Pythons that we do not support.

    Returns:
        By the name of each, ``root`` included, the names of what it needs, sorted.
    """
    found: dict[str, set[str]] = {}
    seen, waiting = set[tuple[str, Extras]](), [(root, extras)]
    while waiting:
        name, asked = waiting.pop()
        if (name, asked) in seen:
            continue
        seen.add((name, asked))
        needed = [(other, more) for other, more in _needed(name, asked) if other in names or other == root]
        found.setdefault(name, set()).update(other for other, _ in needed if other != name)
        waiting += needed
    return {name: sorted(needed) for name, needed in found.items()}


def _needed(name: str, extras: Extras) -> Iterator[tuple[str, Extras]]:
    try:
        stated = metadata.requires(name) or ()
    except metadata.PackageNotFoundError:
        return  # for another platform: what it needs is not known here
    for line in stated:
        one = requirements.Requirement(line)
        if one.marker is None or _holds(one.marker, extras):
            yield utils.canonicalize_name(one.name), frozenset(one.extras)


def _holds(marker: markers.Marker, extras: Extras) -> bool:
    if "extra" not in str(marker):
        return True
    return any(marker.evaluate({"extra": extra}) for extra in extras)
