"""How often an instance turned lately: a change of its health, another process id, or a start after its death.

Rules kept here: turns are counted on monotonic time within a window; what turned too often is flapping until enough of
its turns are over. Left out: what is a turn (`agent.runner.health`).
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_SECONDS = 120.0  # a fault that comes and goes more slowly is seen by its probe each time
TURNS_MAX = 5  # within the window: two stumbles, with the way back from each, and one more


@dataclass(frozen=True, slots=True)
class Stability:
    """The latest turns of one instance, as monotonic seconds, oldest first; never more than decide."""

    turns_seconds: tuple[float, ...] = ()

    def turned(self, now_seconds: float, times: int = 1) -> Stability:
        """The same after it turned so many times more."""
        return Stability((*self.turns_seconds, *(now_seconds,) * min(times, TURNS_MAX + 1))[-TURNS_MAX - 1 :])

    def is_flapping(self, now_seconds: float) -> bool:
        """True while more than TURNS_MAX turns lie within the window."""
        recent = [turn for turn in self.turns_seconds if now_seconds - turn < WINDOW_SECONDS]
        return len(recent) > TURNS_MAX
