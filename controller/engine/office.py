"""What the rooms of the engine share: the desk, the clock, who is present, and how an order is carried out.

Rules kept: an order that is refused is stored with who gave it, counted and traced, all in one transaction. Left out:
what the orders are; each room has its own (`agents`, `catalogue`, `fleet`, `rollouts`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import rpds

from controller import clock as clocks
from controller.config import rules as settings_of_rules
from controller.core import errors, model
from controller.engine import (
    acts,
    following,
    heeding,
    judges,
    lookout,
    planning,
    presence,
    pressure,
    queueing,
    recent,
    repeating,
    rules,
    sources,
    stepping,
    timing,
    tracing,
    triggering,
    watching,
)
from controller.engine import desk as desks
from controller.engine import draft as drafts
from controller.metrics import collector, limits, monitor, prometheus
from controller.store import answers, database, reading, rows
from controller.telemetry import refusals

Answer = TypeVar("Answer")
Shown = Callable[[drafts.Draft, Answer], object]

# Of what a refused caller has said: more is no longer for people.
AUDITED_CHARS_MAX = 1_024
# Longer than an event may be late: within it none is taken twice.
EVENTS_REMEMBERED = timedelta(days=2)
# What stops something is taken also where there is no room for more.
_STOPPING = frozenset(
    {
        "add_freeze",
        "cancel_rollout",
        "cordon_node",
        "deny_rollout",
        "pause_rollout",
        "quarantine_node",
        "revert_rollout",
        "roll_back_emergency",
    }
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for, as it is kept where it is refused.

    Args:
        actor: Who asks.
        action: What for, in a word.
        what: All of it.
        component: The one that it is about; empty where it names none.
        subject: What it would be done to, as the audit log names it; the component where that is left out.
    """

    actor: str
    action: str
    what: object
    component: str = ""
    subject: str = ""


class Office:
    """The shared ground of the rooms.

    Args:
        store: Where the world is kept.
        clock: What time it is.
        ids: Where new identities come from.
        kept: How much is kept of what nodes measure.
        servers: Prometheus servers that an analysis may name.
        monitoring: What the fleet is watched for.
    """

    def __init__(
        self,
        store: database.Store,
        clock: clocks.Clock,
        ids: clocks.IdSource,
        kept: limits.Limits,
        servers: Mapping[str, prometheus.Prometheus],
        monitoring: settings_of_rules.Monitoring,
    ) -> None:
        self.collector = collector.Collector(store, clock, kept)
        self._sources = sources.Sources(self.collector, servers)
        self._store = store
        self._clock = clock
        self._ids = ids
        self._owner = ids.controller_id()
        self._present: dict[model.NodeId, presence.Presence] = {}
        self._rollout_bell: watching.Bell[model.RolloutId] = watching.Bell()
        self._node_bell: watching.Bell[model.NodeId] = watching.Bell()
        self._recent = recent.Recent()
        self._watched_for: rpds.HashTrieMap[str, model.Trigger] = rpds.HashTrieMap()
        names = frozenset(each.name for each in monitoring.rules)
        self._plans = planning.Planning(self._metrics_of, self._sources, names)
        self._desk = desks.Desk(
            store,
            clock,
            self._owner,
            desks.Hooks(following.Following(self._plans).follow, self._published, self._recent.clear),
            self._present.keys(),
        )
        self.pressure = pressure.Pressure(lambda: self._desk.waits_seconds, clock.monotonic)
        self._lookout = lookout.Lookout(self._desk, self._present.keys())
        self._ticker = timing.Ticker(self._desk, clock, self._lookout)
        watch = monitor.Monitor(monitoring.rules, self.collector)
        stored = functools.partial(store.read, reading.watched)
        self._heeding = heeding.Heeding()
        self.monitoring = rules.Rules(self._desk, clock, watch, monitoring.interval, stored, self._heeding.look)
        self._watch_for_triggers()
        self._queue = queueing.Queue(self._desk, clock, self._plans)
        self._judges = judges.Judges(self._desk, clock, self._sources)
        self._triggering = triggering.Triggering(self._desk, clock, self._forget_events)

    async def _forget_events(self, now: datetime) -> None:
        """Forget which events have come so long ago that none of them is taken any more."""
        await self._store.forget_events(now - EVENTS_REMEMBERED)

    async def _asked(
        self, asked: Asked, work: Callable[[drafts.Draft], Answer], shown: Shown[Answer] | None = None
    ) -> Answer:
        """Have work done for somebody; where it is refused, keep that it was.

        Args:
            asked: What for.
            work: What is done.
            shown: What whoever asked is shown in place of the answer of the work, once all that follows is drafted.

        Raises:
            RepeatedError: It was done before, for the same call.
        """
        if asked.action not in _STOPPING:
            self._desk.check_room()
        call = repeating.current()
        try:
            return await self._desk.submit(work if call is None else self._once(call, work, shown))
        except errors.InstarError as error:
            await self.keep_refusal(asked, error)
            raise

    def _once(
        self, call: repeating.Call, work: Callable[[drafts.Draft], Answer], shown: Shown[Answer] | None
    ) -> Callable[[drafts.Draft], Answer]:
        """Make work that is done unless the call was answered before, and writes how it is answered."""

        def done(draft: drafts.Draft) -> Answer:
            call.check_new(draft.answered(call.request_id) or self.answered(call.request_id))
            made = work(draft)

            def close() -> None:
                told = made if shown is None else shown(draft, made)
                draft.answers[call.request_id] = call.answered(told, draft.at)

            draft.closing = close
            return made

        return done

    def answered(self, request_id: str) -> rows.Answer | None:
        """Find what was answered under a request identity; None where nothing was, or it is kept no longer."""
        return self._store.read(lambda connection: answers.find(connection, request_id))

    def _written(self, draft: drafts.Draft, rollout_id: model.RolloutId) -> model.Rollout:
        """Find a rollout as a draft leaves it."""
        found = self._find_rollout(draft, rollout_id)
        assert found is not None  # noqa: S101  # the work has just stepped it
        return found[0]

    async def keep_refusal(self, asked: Asked, error: errors.InstarError) -> None:
        """Store, count and trace that a caller was refused, unless that is on the record or the fault is another's."""
        if error.blame is errors.Blame.CALLER and not error.is_kept:
            await self._desk.submit(functools.partial(_put_refused, asked=asked, error=error))
            error.is_kept = True

    def _find_assignment(self, draft: drafts.Draft, operation_id: model.OperationId) -> rows.Assignment | None:
        found = draft.assignment(operation_id)
        if found is not None:
            return found
        stored = self._store.read(lambda connection: reading.assignments(connection, (operation_id,)))
        return stored[0] if stored else None

    def _find_rollout(
        self, draft: drafts.Draft, rollout_id: model.RolloutId
    ) -> tuple[model.Rollout, rows.Lease] | None:
        """Find a rollout that this controller may step, at its end or not."""
        running = draft.world.rollouts.get(rollout_id)
        if running is not None:
            return running, draft.world.leases[rollout_id]
        written = draft.rollout(rollout_id)
        if written is not None:
            return written.rollout, written.lease
        known = self._recent.find(rollout_id)
        if known is not None:
            return known.rollout, known.lease
        ended = self._store.read(lambda connection: reading.rollout(connection, rollout_id))
        if ended is None or ended.id != rollout_id:
            return None
        lease = self._store.read(lambda connection: reading.lease(connection, rollout_id))
        return (ended, lease) if lease.owner == self._owner else None

    def _ours(self, draft: drafts.Draft, rollout_id: model.RolloutId) -> tuple[model.Rollout, rows.Lease]:
        """Find a rollout that is there, and that this controller has to be the one to step.

        Raises:
            UnavailableError: Code ``rollout_elsewhere``.
        """
        found = self._find_rollout(draft, rollout_id)
        if found is None:
            raise errors.UnavailableError(
                f"cannot step rollout {rollout_id}: another controller has its lease",
                code="rollout_elsewhere",
                field="rollout",
                value=rollout_id,
                rule="one controller steps a rollout",
            )
        return found

    def _node(self, draft: drafts.Draft, node_id: model.NodeId) -> model.Node:
        found = draft.world.nodes.get(node_id)
        if found is None:
            raise not_found("node", "node_id", node_id)
        return found

    def _metrics_of(self, node_id: model.NodeId) -> Mapping[str, float]:
        """Give the latest metrics of a node's host; none where it has no live session."""
        present = self._present.get(node_id)
        if present is None:
            return {}
        return {each.name: each.value for each in tuple(present.metrics.values()) if not each.component}

    def _published(self, draft: drafts.Draft) -> None:
        self._recent.take(draft.rollouts.values())
        for rollout_id in sorted(draft.rollouts):
            self._rollout_bell.ring(rollout_id)
        for node_id in sorted(draft.woken):
            self._node_bell.ring(node_id)
        if draft.rollouts or draft.freezes:
            self._ticker.wake()
        if draft.turned or draft.removed:
            self._queue.wake()
        self._triggering.take(draft)
        self._watch_for_triggers()

    def _watch_for_triggers(self) -> None:
        """Let the monitor watch for what triggers compare with its past, where their definitions have changed."""
        triggers = self._desk.world.triggers
        if triggers is not self._watched_for:
            self._watched_for = triggers
            self.monitoring.replace(heeding.rules(triggers.values()))


def _put_refused(draft: drafts.Draft, asked: Asked, error: errors.InstarError) -> None:
    draft.put_refusal(asked.actor, asked.action, error, repr(asked.what)[: stepping.REFUSED_BODY_MAX])
    subject = (asked.subject or asked.component)[:AUDITED_CHARS_MAX]
    draft.put_audit(asked.actor, acts.name(asked.action), subject, str(error)[:AUDITED_CHARS_MAX], result=error.code)
    number = draft.count_refused()
    refused = refusals.Refused(number, draft.at, asked.actor, asked.action, asked.component, error)
    tracing.request_refused(draft, refused)


def not_found(noun: str, field: str, value: str) -> errors.NotFoundError:
    """Say that something that was named does not exist."""
    return errors.NotFoundError(
        f"cannot find {noun} {value}",
        code=f"{noun}_not_found",
        field=field,
        value=value,
        rule="it must exist",
    )
