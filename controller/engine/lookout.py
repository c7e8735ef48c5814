"""Watches what time alone changes of nodes: those that stay away, and freezes that begin and end.

Theory of operation. A node whose session has closed is only cut off; it is away once it has not come back for a while,
and then its row says since when, so that a restart of the controller neither forgets it nor counts it as back. Right
after a start every node is cut off, by no doing of its own. What is missed is a session, not a node: a later one may be
on its way into the store while the time of the earlier one runs out. A freeze that begins or ends is told to every
rollout.

Rules kept: all nodes of a look are told in few transactions, none of which is large; a look that finds nothing writes
nothing. Left out: what follows for a rollout (`standing`).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from controller.core import model
from controller.engine import desk as desks
from controller.engine import draft as drafts
from controller.engine import freezing, standing, stepping

# Nodes told in one piece of work: some ten milliseconds of the loop.
NODES_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class _Missed:
    """What a node is missed for.

    Args:
        sessions: Any of which may be the latest that is stored.
    """

    sessions: frozenset[model.SessionId]
    since: datetime
    away_at: datetime


class Lookout:
    """Looks after nodes that are cut off, and after freezes.

    Args:
        present: Nodes that have a live session now.
    """

    def __init__(self, desk: desks.Desk, present: Collection[model.NodeId]) -> None:
        self._desk = desk
        self._present = present
        self._cut_off: dict[model.NodeId, _Missed] = {}
        self._looked_at: datetime | None = None

    async def start(self, now: datetime, away_at: datetime) -> None:
        """Begin with every node cut off, none of them away before ``away_at``; tell the rollouts how all stands."""
        for node in self._desk.world.nodes.values():
            if node.offline_since is None:
                self.cut_off(node.id, now, away_at)
        self._looked_at = now
        await self.tell(sorted(self._desk.world.concerned), now)

    def cut_off(
        self, node_id: model.NodeId, since: datetime, away_at: datetime, doubtful: model.SessionId | None = None
    ) -> None:
        """Wait for a node to come back.

        Args:
            node_id: Whose latest session has ended.
            since: When it ended.
            away_at: When the node counts as away unless it has come back.
            doubtful: A session that may be the latest, but for all that is known here is not stored yet.
        """
        latest = self._desk.world.sessions.get(node_id)
        sessions = (None if latest is None else latest.session_id, doubtful)
        self._cut_off[node_id] = _Missed(frozenset(each for each in sessions if each is not None), since, away_at)

    def next_at(self) -> datetime | None:
        """Tell when to look again; None for not before something happens."""
        away = (missed.away_at for missed in self._cut_off.values())
        boundary = None if self._looked_at is None else freezing.next_boundary(self._desk.world, self._looked_at)
        return min((each for each in (*away, boundary) if each is not None), default=None)

    async def look(self, now: datetime) -> None:
        """Tell of all that has come to pass by now."""
        due = {node_id: missed for node_id, missed in self._cut_off.items() if missed.away_at <= now}
        for node_id in due:
            del self._cut_off[node_id]
        absent = {node_id: missed for node_id, missed in due.items() if node_id not in self._present}
        for some in _batches(absent):
            await self._desk.submit(functools.partial(_note_away, absent={each: absent[each] for each in some}))
        boundary = None if self._looked_at is None else freezing.next_boundary(self._desk.world, self._looked_at)
        if boundary is not None and boundary <= now:
            self._looked_at = now
            await self.tell(sorted(self._desk.world.concerned), now)
            await self._desk.submit(_lift_ended)

    async def tell(self, nodes: Iterable[model.NodeId], now: datetime) -> None:
        """Tell every rollout that is under way what is news of these nodes."""
        for some in _batches(nodes):
            if standing.has_news(self._desk.world, some, now):
                await self._desk.submit(functools.partial(standing.refresh, node_ids=some))
            else:
                await asyncio.sleep(0)  # of many nodes, looking alone takes a while


def _batches(nodes: Iterable[model.NodeId]) -> Iterator[tuple[model.NodeId, ...]]:
    left = iter(nodes)
    while some := tuple(itertools.islice(left, NODES_AT_ONCE)):
        yield some


def _note_away(draft: drafts.Draft, absent: Mapping[model.NodeId, _Missed]) -> None:
    for node_id, missed in absent.items():
        node, latest = draft.world.nodes.get(node_id), draft.world.sessions.get(node_id)
        is_back = latest is not None and latest.session_id not in missed.sessions
        if node is not None and node.offline_since is None and not is_back:
            draft.put_node(replace(node, is_connected=False, offline_since=missed.since))
    standing.refresh(draft, absent)


def _lift_ended(draft: drafts.Draft) -> None:
    """Forget freezes that are over; the audit keeps them."""
    for freeze_id in sorted(draft.world.freezes):
        freeze = draft.world.freezes[freeze_id]
        if freezing.is_over(freeze, draft.at):
            draft.lift_freeze(freeze_id)
            draft.put_audit(stepping.CONTROLLER_ACTOR, "freeze.ended", freeze_id, freeze.reason)
