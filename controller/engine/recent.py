"""Rollouts that have ended not long ago: watched to their last state, reported to late, and first to be taken back.

Rules kept: what is kept is what was last written, so never older than the store; bounded by changes, not by rollouts,
for a rollout may have one or a hundred thousand. Left out: names, which only the store can resolve.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from controller.core import model
from controller.store import rows

CHANGES_MAX = 50_000  # of all that are kept: some 100 MiB; reading as many takes seconds


class Recent:
    """The ended rollouts that were written last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[model.RolloutId, rows.RolloutWrite] = OrderedDict()
        self._changes = 0

    def take(self, written: Iterable[rows.RolloutWrite]) -> None:
        """Keep what has ended, and forget what goes on."""
        for each in written:
            before = self._kept.pop(each.rollout.id, None)
            self._changes -= 0 if before is None else len(before.rollout.changes)
            if each.rollout.state.is_terminal:
                self._kept[each.rollout.id] = each
                self._changes += len(each.rollout.changes)
        while self._changes > CHANGES_MAX:
            _, oldest = self._kept.popitem(last=False)
            self._changes -= len(oldest.rollout.changes)

    def find(self, rollout_id: str) -> rows.RolloutWrite | None:
        """Find one by its identity."""
        return self._kept.get(model.RolloutId(rollout_id))

    def forget(self, gone: Iterable[model.RolloutId]) -> None:
        """Forget those that the store has no longer."""
        for each in gone:
            before = self._kept.pop(each, None)
            self._changes -= 0 if before is None else len(before.rollout.changes)

    def clear(self) -> None:
        """Forget all of them: the store may hold something else."""
        self._kept.clear()
        self._changes = 0
