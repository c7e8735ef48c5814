"""The rules of the monitor: looks by them at intervals, and tells every rollout which of them keep it where it is.

Theory of operation. A look is written in one transaction, in which the rollouts are told as well. Between two looks a
rollout is told when it begins, is taken up again, or changes a node on which a rule fires already.

Rules kept: until somebody has looked, and when the looks fail, nothing is known, and that holds (G7); a look that
cannot be written is written with the next one. Left out: what is seen (`controller.metrics.monitor`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from controller import clock as clocks
from controller import tasks
from controller.core import copying, errors, events, model
from controller.core.monitoring import board as boards
from controller.engine import desk as desks
from controller.engine import draft as drafts
from controller.engine import stepping
from controller.engine import world as worlds
from controller.metrics import monitor as monitors
from controller.store import rows

Stored = Callable[[], tuple[Iterable[model.Watched], datetime | None]]
Seen = Callable[[drafts.Draft, boards.Board], None]

_log = logging.getLogger(__name__)


def tell(draft: drafts.Draft, rollout: model.Rollout, lease: rows.Lease) -> model.Rollout:
    """Tell a rollout which rules keep it, where that is news; give it back as it then is."""
    if not rollout.request.policy.hold_while_firing:
        return rollout
    holds = boards.holds(draft.world.board, rollout, draft.at)
    if holds == rollout.rule_holds:
        return rollout
    return stepping.feed(draft, rollout, lease, events.RulesChanged(draft.at, holds))


def tell_all(draft: drafts.Draft) -> None:
    """Tell every rollout that is under way."""
    for rollout_id in sorted(draft.world.rollouts):
        rollout = draft.world.rollouts[rollout_id]
        if rollout.state is not model.RolloutState.PENDING:
            tell(draft, rollout, draft.world.leases[rollout_id])


def follow(draft: drafts.Draft) -> None:
    """Tell the rollouts that have just changed a node on which a rule keeps them."""
    for rollout_id, write in tuple(draft.rollouts.items()):
        rollout = draft.world.rollouts.get(rollout_id)
        if rollout is None or not rollout.request.policy.hold_while_firing:
            continue
        if boards.is_news(draft.world.board, rollout, write.changes):
            tell(draft, rollout, draft.world.leases[rollout_id])


class Rules:
    """Looks by all rules, one look after the other.

    Args:
        interval: From the begin of one look to that of the next.
        stored: Reads how the rules stood before this life, and when that was last seen to be so.
        seen: Drafts what else follows from a look.
    """

    def __init__(
        self,
        desk: desks.Desk,
        clock: clocks.Clock,
        monitor: monitors.Monitor,
        interval: timedelta,
        stored: Stored,
        seen: Seen,
    ) -> None:
        self._desk = desk
        self._clock = clock
        self._monitor = monitor
        self._interval = interval
        self._stored = stored
        self._seen = seen
        self._unwritten: dict[boards.Key, model.Watched | None] = {}
        self._guard: tasks.Guard | None = None
        self._is_restored = False

    @property
    def names(self) -> frozenset[str]:
        """Names of all rules."""
        return frozenset(self._monitor.rules)

    @property
    def all(self) -> tuple[model.Rule, ...]:
        """All rules."""
        return tuple(self._monitor.rules.values())

    def replace(self, rules: Iterable[model.Rule]) -> None:
        """Watch for these besides what is configured, from the next look on; before the first start, for those stored.

        Args:
            rules: All that are not configured.
        """
        self._monitor.replace(rules)

    async def start(self) -> bool:
        """Begin to look; say whether that is new. The first start of a life takes up what was stored."""
        if self._guard is not None:
            return False
        if not self._is_restored:
            self._unwritten |= dict.fromkeys(self._monitor.restore(*self._stored()))
            self._is_restored = True
        self._guard = tasks.Guard()
        self._guard.start(self._run(), "engine rules")
        return True

    async def stop(self) -> bool:
        """Look no more; say whether it was looked before. From then on nobody can tell of any rule, and that holds."""
        guard, self._guard = self._guard, None
        if guard is None:
            return False
        await guard.stop()
        await self._desk.submit(_forget)
        return True

    async def _run(self) -> None:
        """Look at intervals until cancelled, while there is something to look for."""
        while True:
            begun = self._clock.monotonic()
            try:
                if not self._monitor.is_idle or self._unwritten:
                    await self.look()
            except errors.InstarError as error:
                _log.error("cannot write how the rules stand: %s", error)
            spent = self._clock.monotonic() - begun
            await asyncio.sleep(max(0.0, self._interval.total_seconds() - spent))

    async def look(self) -> None:
        """Look once by each rule, write what is news, and tell the rollouts.

        Raises:
            InstarError: It could not be written; it will be with the next look.
        """
        now = self._clock.now()
        nodes = _by_component(self._desk.world, {each.component for each in self._monitor.rules.values()})
        self._unwritten |= await self._monitor.look(nodes, now)
        changed = dict(self._unwritten)
        await self._desk.submit(functools.partial(self._write, board=self._monitor.board(now), changed=changed))
        self._unwritten = {key: each for key, each in self._unwritten.items() if changed.get(key) is not each}

    def _write(
        self, draft: drafts.Draft, board: boards.Board, changed: Mapping[boards.Key, model.Watched | None]
    ) -> None:
        draft.put_board(board, changed)
        tell_all(draft)
        self._seen(draft, board)


def _forget(draft: drafts.Draft) -> None:
    if draft.world.board is not None:
        draft.world = copying.replace(draft.world, board=None)
        tell_all(draft)


def _by_component(
    world: worlds.World, components: Iterable[model.ComponentName]
) -> dict[model.ComponentName, list[model.NodeId]]:
    found: dict[model.ComponentName, list[model.NodeId]] = {each: [] for each in components}
    for node_id, node in world.nodes.items():
        for name, having in found.items():
            if name in node.components:
                having.append(node_id)
    return found
