"""Who has a component in its hands: an operation that changes its instances, or upkeep; never both at once.

Rules kept here: a turn lasts as long as one piece of work; whoever gets it looks anew at what is true.
"""

from __future__ import annotations

import asyncio


class Hands:
    """The turns, one for each component."""

    def __init__(self) -> None:
        self._turns: dict[str, asyncio.Lock] = {}

    def on(self, component: str) -> asyncio.Lock:
        """Return what is held while somebody changes the component's instances."""
        return self._turns.setdefault(component, asyncio.Lock())
