"""Freezes, resolved against the labels of nodes: which hold a node, and from when on.

Rules kept: no operation starts on a node while a freeze covers it, nor after the next one has begun (G5): that instant
travels with the command. What goes back is held by none. Left out: who sets one (`fleet`).
"""

from __future__ import annotations

import functools
from datetime import datetime

from controller.core import model, selector
from controller.engine import world as worlds

# Selectors that are kept parsed; there are seldom more than a few freezes.
_SELECTORS_MAX = 256


def of_node(world: worlds.World, node: model.Node) -> tuple[model.Freeze, ...]:
    """Return the freezes that cover a node, in force or to come, by their begin."""
    if not world.freezes:
        return ()
    found = (each for each in world.freezes.values() if _parsed(each.selector).matches(node.labels))
    return tuple(sorted(found, key=lambda each: (each.since, each.id)))


def is_in_force(freeze: model.Freeze, at: datetime) -> bool:
    """Tell whether a freeze has begun and is not over."""
    return freeze.since <= at and not is_over(freeze, at)


def is_over(freeze: model.Freeze, at: datetime) -> bool:
    """Tell whether a freeze has ended."""
    return freeze.until is not None and freeze.until <= at


def start_by(world: worlds.World, node: model.Node, wanted: datetime, at: datetime) -> datetime:
    """Bound the last start on a node by the freezes that cover it; ``at`` itself where one is in force."""
    for each in of_node(world, node):
        if not is_over(each, at):
            return min(wanted, max(each.since, at))
    return wanted


def next_boundary(world: worlds.World, at: datetime) -> datetime | None:
    """Tell when the next freeze begins or ends."""
    instants = (instant for each in world.freezes.values() for instant in (each.since, each.until))
    return min((each for each in instants if each is not None and each > at), default=None)


@functools.lru_cache(maxsize=_SELECTORS_MAX)
def _parsed(text: str) -> selector.Selector:
    return selector.parse(text)
