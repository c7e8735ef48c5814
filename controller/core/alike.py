"""Nodes that are alike: what a plan makes of one of them, it makes of all of them.

Rules kept: two nodes are alike where all that decides what becomes of them is the same: what they run of the components
concerned, what they can do, what they left for cause, what was changed by hand, what they make of the conditions of the
version graph, and the class that past durations are known by. A fleet of any size has few kinds of nodes. Left out:
labels, domains, and whether a node is reachable, cordoned or frozen, which are its own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from controller.core import aims, model

CLASS_LABEL = "class"  # the label that names the class of a node, by which outcomes are kept
Holds = Callable[[str, model.Node], bool | None]

_INSTALLED = operator.attrgetter("version", "digest", "permanent_digest", "is_stopped")


@dataclass(frozen=True, slots=True)
class Looks:
    """What is looked at.

    Args:
        components: Those that the request changes, that these require, and that require these.
        conditions: Those of the version graph.
        holds: Evaluates one of them over a node.
    """

    components: tuple[model.ComponentName, ...]
    conditions: tuple[str, ...]
    holds: Holds


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of nodes.

    Args:
        node: One of them.
        holds: What it makes of each condition.
    """

    node: model.Node
    holds: tuple[tuple[str, bool | None], ...]

    @property
    def name(self) -> str:
        """The class that its past durations are known by."""
        return self.node.labels.get(CLASS_LABEL, "")


def concerned(asked: Iterable[aims.Aim], known: aims.Book) -> tuple[model.ComponentName, ...]:
    """Name the components that a request changes, those that they require, and those that require them."""
    changed = {each.component for each in asked}
    found = set(changed)
    for name, releases in known.by_component.items():
        required = {each.component for release in releases for each in release.requirements}
        found |= required if name in changed else {name} if required & changed else set()
    return tuple(sorted(found))


def sort_out(nodes: Iterable[model.Node], looks: Looks) -> tuple[Sequence[Kind], Sequence[int]]:
    """Give the kinds of some nodes, and for each node the index of its kind."""
    seen: dict[Hashable, int] = {}
    kinds: list[Kind] = []
    indexes: list[int] = []
    for node in nodes:
        holds = tuple([(each, looks.holds(each, node)) for each in looks.conditions]) if looks.conditions else ()
        key = (
            node.capabilities,
            frozenset(node.bad_digests) if node.bad_digests else None,
            tuple(each for each in node.conditions if each.code == model.DRIFT) if node.conditions else None,
            node.labels.get(CLASS_LABEL),
            holds,
            *[each and _INSTALLED(each) for each in map(node.components.get, looks.components)],
        )
        index = seen.setdefault(key, len(kinds))
        if index == len(kinds):
            kinds.append(Kind(node, holds))
        indexes.append(index)
    return kinds, indexes
