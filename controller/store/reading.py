"""The statements that read; each returns values of the core or of ``rows``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar, cast

import rpds
import sqlalchemy as sa

from controller.core import events, model, statistics
from controller.core.audit import chain
from controller.store import audits, codec, forms, rows, tables, writing

Value = TypeVar("Value")

# Outcomes that advice is made of: some hundred rollouts of a thousand nodes, read in about a second.
OUTCOMES_MAX = 100_000
# Parameters of one statement; SQLite's own bound is 32,766.
_PARAMETERS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an engine has to know at its start.

    Args:
        nodes: Without what only a live session knows.
        rollouts: Those that are not at their end, with who steps them.
        assignments: Those that are not settled.
        steps: What was told of those.
        graph: What is declared of the ways between releases.
        outcomes: The latest, oldest first.
        refused: Requests that were refused.
    """

    nodes: tuple[model.Node, ...]
    releases: tuple[model.Release, ...]
    rollouts: tuple[tuple[model.Rollout, rows.Lease], ...]
    assignments: tuple[rows.Assignment, ...]
    steps: tuple[model.StepRecord, ...]
    sessions: tuple[rows.Session, ...]
    graph: model.VersionGraph
    blocks: tuple[rows.Block, ...]
    freezes: tuple[model.Freeze, ...]
    outcomes: tuple[model.Outcome, ...]
    totals: statistics.Totals
    refused: int
    triggers: tuple[rows.TriggerRow, ...] = ()


def snapshot(connection: sa.Connection) -> Snapshot:
    """Read what an engine starts from."""
    unsettled = tables.assignments.c.is_settled.is_(False)
    assignments = _assignments(connection, sa.select(tables.assignments.c.body).where(unsettled))
    held = {each.node_id: each.operation_id for each in assignments if each.is_open}
    return Snapshot(
        nodes=tuple(_node(row, held) for row in connection.execute(sa.select(tables.nodes).order_by("node_id"))),
        releases=tuple(
            codec.decode(body, model.Release)
            for body in connection.scalars(sa.select(tables.releases.c.body).order_by("component", "version"))
        ),
        rollouts=tuple(
            (each, lease(connection, each.id))
            for each in _rollouts(connection, tables.rollouts.c.is_terminal.is_(False))
        ),
        assignments=assignments,
        steps=tuple(step for each in assignments for step in steps(connection, each.operation_id)),
        sessions=tuple(_session(row) for row in connection.execute(sa.select(tables.sessions).order_by("node_id"))),
        graph=_graph(connection),
        blocks=tuple(_bodies(connection, tables.blocks, rows.Block)),
        freezes=tuple(_bodies(connection, tables.freezes, model.Freeze)),
        outcomes=_outcomes(connection),
        totals=_totals(connection),
        refused=int(_meta(connection, writing.REFUSED) or 0),
        triggers=tuple(_trigger(connection, row) for row in connection.execute(sa.select(tables.triggers))),
    )


def rollout(connection: sa.Connection, name_or_id: str) -> model.Rollout | None:
    """Read one rollout by its identity, or the newest by its name."""
    named = (
        sa.select(tables.rollouts.c.rollout_id)
        .where(sa.or_(tables.rollouts.c.rollout_id == name_or_id, tables.rollouts.c.name == name_or_id))
        .order_by((tables.rollouts.c.rollout_id == name_or_id).desc(), tables.rollouts.c.rollout_id.desc())
        .limit(1)
    )
    found = connection.scalar(named)
    return None if found is None else _rollouts(connection, tables.rollouts.c.rollout_id == found)[0]


def lease(connection: sa.Connection, rollout_id: model.RolloutId) -> rows.Lease:
    """Read who may step a rollout; each one has a lease from its first row on."""
    row = connection.execute(sa.select(tables.leases).where(tables.leases.c.rollout_id == rollout_id)).one()
    return rows.Lease(rollout_id, row.epoch, row.owner)


def rollout_ids(connection: sa.Connection, limit: int) -> tuple[model.RolloutId, ...]:
    """Read the identities of the newest rollouts, newest first."""
    newest = sa.select(tables.rollouts.c.rollout_id).order_by(tables.rollouts.c.rollout_id.desc()).limit(limit)
    return tuple(map(model.RolloutId, connection.scalars(newest)))


def latest_rollout_of(connection: sa.Connection, node_id: model.NodeId) -> model.Rollout | None:
    """Read the newest rollout that has, or had, a change of a node."""
    # Of one that went for its age some changes may still be there.
    is_there = sa.exists().where(tables.rollouts.c.rollout_id == tables.changes.c.rollout_id)
    of_node = sa.select(tables.changes.c.rollout_id).where(tables.changes.c.node_id == node_id, is_there)
    found = connection.scalar(of_node.order_by(tables.changes.c.rollout_id.desc()).limit(1))
    return None if found is None else _rollouts(connection, tables.rollouts.c.rollout_id == found)[0]


def ended_rollout_ids(
    connection: sa.Connection, component: str, states: Iterable[model.RolloutState], limit: int
) -> tuple[model.RolloutId, ...]:
    """Read the newest rollouts that changed a component and ended in one of the states, newest first."""
    of_component = tables.rollouts.c.components.contains(f" {component} ", autoescape=True)
    ended = tables.rollouts.c.state.in_([each.value for each in states])
    newest = sa.select(tables.rollouts.c.rollout_id).where(ended, of_component)
    found = connection.scalars(newest.order_by(tables.rollouts.c.rollout_id.desc()).limit(limit))
    return tuple(map(model.RolloutId, found))


def approvals(
    connection: sa.Connection, states: Iterable[model.ApprovalState], limit: int
) -> tuple[model.Approval, ...]:
    """Read the newest approvals that are in one of the states, newest first."""
    table = tables.approvals
    found = sa.select(table.c.body).where(table.c.state.in_([each.value for each in states]))
    bodies = connection.scalars(found.order_by(table.c.rollout_id.desc()).limit(limit))
    return tuple(codec.decode(body, model.Approval) for body in bodies)


def firings(connection: sa.Connection, name: str, limit: int, *, only_open: bool) -> tuple[model.Firing, ...]:
    """Read the newest firings of a trigger by its name, or of all where that is empty, newest first."""
    table = tables.firings
    wanted = sa.select(table.c.body)
    if name:
        wanted = wanted.where(table.c.trigger_name == name)
    if only_open:
        wanted = wanted.where(table.c.is_open.is_(True))
    newest = wanted.order_by(table.c.fired_at.desc(), table.c.trigger_id.desc(), table.c.number.desc()).limit(limit)
    return tuple(codec.decode(body, model.Firing) for body in connection.scalars(newest))


def firing(connection: sa.Connection, trigger_id: str, number: int) -> model.Firing | None:
    """Read one firing."""
    table = tables.firings
    found = connection.scalar(sa.select(table.c.body).where(table.c.trigger_id == trigger_id, table.c.number == number))
    return None if found is None else cast("model.Firing", codec.decode(found, model.Firing))


def has_received(connection: sa.Connection, key: rows.EventKey) -> bool:
    """Tell whether an event was received before."""
    table = tables.received_events
    known = sa.select(sa.literal(1)).where(table.c.source == key.source, table.c.event_id == key.event_id)
    return connection.scalar(known) is not None


def requested_rollout(connection: sa.Connection, request_id: str) -> model.RolloutId | None:
    """Read which rollout a request made."""
    found = connection.scalar(sa.select(tables.requests.c.rollout_id).where(tables.requests.c.request_id == request_id))
    return None if found is None else model.RolloutId(found)


def assignments(connection: sa.Connection, operations: Sequence[model.OperationId]) -> tuple[rows.Assignment, ...]:
    """Read assignments by their operations; unknown ones are left out."""
    found: list[rows.Assignment] = []
    for start in range(0, len(operations), _PARAMETERS_AT_ONCE):
        wanted = tables.assignments.c.operation_id.in_(operations[start : start + _PARAMETERS_AT_ONCE])
        found += _assignments(connection, sa.select(tables.assignments.c.body).where(wanted))
    return tuple(found)


def steps(connection: sa.Connection, operation_id: model.OperationId) -> tuple[model.StepRecord, ...]:
    """Read what was told of one operation, in order."""
    told = (
        sa.select(tables.steps.c.body)
        .where(tables.steps.c.operation_id == operation_id)
        .order_by(tables.steps.c.step_index)
    )
    return tuple(codec.decode(body, model.StepRecord) for body in connection.scalars(told))


def journal(connection: sa.Connection, rollout_id: model.RolloutId) -> tuple[rows.Occurrence, ...]:
    """Read what happened to a rollout, in order."""
    happened = sa.select(tables.events).where(tables.events.c.rollout_id == rollout_id).order_by(tables.events.c.id)
    return tuple(
        rows.Occurrence(rollout_id, row.revision, codec.decode(row.body, events.Event))
        for row in connection.execute(happened)
    )


def writers_of(connection: sa.Connection, rollout_id: model.RolloutId) -> frozenset[str]:
    """Name the versions of this program that have written the journal of a rollout."""
    told = sa.select(tables.events.c.core_version).where(tables.events.c.rollout_id == rollout_id).distinct()
    return frozenset(connection.scalars(told))


def audit(connection: sa.Connection, subject: str) -> tuple[chain.Entry, ...]:
    """Read who did what to a subject, in order."""
    done = sa.select(tables.audit).where(tables.audit.c.subject == subject)
    return tuple(audits.row(each).entry for each in connection.execute(done.order_by(*tables.audit.primary_key)))


def refusals(connection: sa.Connection, limit: int) -> tuple[rows.Refusal, ...]:
    """Read the latest refusals, newest first."""
    latest = sa.select(tables.refusals).order_by(tables.refusals.c.id.desc()).limit(limit)
    return tuple(
        rows.Refusal(datetime.fromisoformat(row.at), row.actor, row.action, row.code, row.message, row.body)
        for row in connection.execute(latest)
    )


def pending_spans(connection: sa.Connection, limit: int) -> tuple[tuple[int, str], ...]:
    """Read spans that no collector has had, oldest first: their numbers and bodies."""
    pending = (
        sa.select(tables.outbox.c.id, tables.outbox.c.body)
        .where(tables.outbox.c.is_emitted.is_(False))
        .order_by(tables.outbox.c.id)
        .limit(limit)
    )
    return tuple((row.id, row.body) for row in connection.execute(pending))


def trace(connection: sa.Connection, trace_id: str) -> tuple[str, ...]:
    """Read the bodies of a trace's spans, emitted or not, in the order in which they became terminal."""
    spans = sa.select(tables.outbox.c.body).where(tables.outbox.c.trace_id == trace_id).order_by(tables.outbox.c.id)
    return tuple(connection.scalars(spans))


def chunks_of(connection: sa.Connection, node_id: model.NodeId, since: datetime) -> tuple[model.SeriesChunk, ...]:
    """Read the chunks of a node that begin from an instant on, by component and begin."""
    table = tables.series_chunks
    told = sa.select(table).where(table.c.node_id == node_id, table.c.began_at >= forms.instant(since))
    return tuple(map(_chunk, connection.execute(told.order_by(table.c.component, table.c.began_at))))


def chunks_between(
    connection: sa.Connection, component: str, span: tuple[datetime, datetime], after: tuple[datetime, str], limit: int
) -> tuple[model.SeriesChunk, ...]:
    """Read chunks of a component that begin in a span of time, after a begin and node, in the order of both."""
    table = tables.series_chunks
    begins = table.c.began_at.between(forms.instant(span[0]), forms.instant(span[1]))
    at, node_id = forms.instant(after[0]), after[1]
    follows = sa.or_(table.c.began_at > at, sa.and_(table.c.began_at == at, table.c.node_id > node_id))
    told = sa.select(table).where(table.c.component == component, begins, follows)
    return tuple(map(_chunk, connection.execute(told.order_by(table.c.began_at, table.c.node_id).limit(limit))))


def _chunk(row: sa.Row[tuple[object, ...]]) -> model.SeriesChunk:
    began_at = datetime.fromisoformat(row.began_at)
    return model.SeriesChunk(model.NodeId(row.node_id), row.component, began_at, bytes(row.body))


def alive_at(connection: sa.Connection) -> datetime | None:
    """Read when a controller last wrote; None in a new store."""
    text = _meta(connection, writing.ALIVE)
    return None if text is None else datetime.fromisoformat(text)


def watched(connection: sa.Connection) -> tuple[tuple[model.Watched, ...], datetime | None]:
    """Read how rules of the monitor stood, and when it was last looked; None for never."""
    text = _meta(connection, writing.LOOKED_AT)
    found = tuple(_bodies(connection, tables.rule_watches, model.Watched))
    return found, None if text is None else datetime.fromisoformat(text)


def access(connection: sa.Connection, subject: str) -> Mapping[str, str] | None:
    """Read what was last seen of what decides who may do what; None for nothing."""
    text = _meta(connection, f"{writing.ACCESS}{subject}")
    return None if text is None else cast("Mapping[str, str]", json.loads(text))


def _meta(connection: sa.Connection, name: str) -> str | None:
    return connection.scalar(sa.select(tables.meta.c.value).where(tables.meta.c.name == name))


def _totals(connection: sa.Connection) -> statistics.Totals:
    text = _meta(connection, writing.TOTALS)
    return statistics.Totals() if text is None else cast("statistics.Totals", codec.decode(text, statistics.Totals))


def _bodies(connection: sa.Connection, table: sa.Table, kind: type[Value]) -> Iterable[Value]:
    """Read the values of a table in the order of its key."""
    return (
        codec.decode(body, kind) for body in connection.scalars(sa.select(table.c.body).order_by(*table.primary_key))
    )


def _graph(connection: sa.Connection) -> model.VersionGraph:
    return model.VersionGraph(
        edges=tuple(_bodies(connection, tables.edges, model.Edge)),
        barriers=tuple(_bodies(connection, tables.barriers, model.Barrier)),
        channels=tuple(_bodies(connection, tables.channels, model.Channel)),
    )


def _outcomes(connection: sa.Connection) -> tuple[model.Outcome, ...]:
    latest = sa.select(tables.outcomes.c.body).order_by(
        tables.outcomes.c.at.desc(), tables.outcomes.c.operation_id.desc()
    )
    bodies = connection.scalars(latest.limit(OUTCOMES_MAX)).all()
    return tuple(codec.decode(body, model.Outcome) for body in reversed(bodies))


def _rollouts(connection: sa.Connection, which: sa.ColumnElement[bool]) -> tuple[model.Rollout, ...]:
    found = connection.execute(sa.select(tables.rollouts).where(which).order_by(tables.rollouts.c.rollout_id)).all()
    return tuple(
        codec.decode(
            row.head,
            model.Rollout,
            request=codec.decode(row.request, model.UpgradeRequest),
            plan=codec.decode(row.plan, model.Plan),
            changes=_changes(connection, row.rollout_id),
            standings=_standings(connection, row.rollout_id),
            approval=_approval(connection, row.rollout_id),
        )
        for row in found
    )


def _changes(connection: sa.Connection, rollout_id: str) -> rpds.HashTrieMap[model.ChangeKey, model.Progress]:
    found = connection.scalars(sa.select(tables.changes.c.body).where(tables.changes.c.rollout_id == rollout_id))
    progress: Iterable[model.Progress] = (codec.decode(body, model.Progress) for body in found)
    return rpds.HashTrieMap((each.key, each) for each in progress)


def _standings(connection: sa.Connection, rollout_id: str) -> rpds.HashTrieMap[model.NodeId, model.Standing]:
    found = connection.execute(sa.select(tables.standings).where(tables.standings.c.rollout_id == rollout_id))
    return rpds.HashTrieMap((model.NodeId(row.node_id), codec.decode(row.body, model.Standing)) for row in found)


def _approval(connection: sa.Connection, rollout_id: str) -> model.Approval | None:
    found = sa.select(tables.approvals.c.body).where(tables.approvals.c.rollout_id == rollout_id)
    body = connection.scalar(found)
    return None if body is None else cast("model.Approval", codec.decode(body, model.Approval))


def _trigger(connection: sa.Connection, row: sa.Row[tuple[object, ...]]) -> rows.TriggerRow:
    status = codec.decode(row.status, model.TriggerStatus, signals=_signals(connection, row.trigger_id))
    return rows.TriggerRow(codec.decode(row.body, model.Trigger), status)


def _signals(connection: sa.Connection, trigger_id: str) -> rpds.HashTrieMap[model.NodeId | None, model.Signal]:
    table = tables.trigger_signals
    found = connection.execute(sa.select(table).where(table.c.trigger_id == trigger_id))
    return rpds.HashTrieMap(
        (model.NodeId(row.node_id) if row.node_id else None, codec.decode(row.body, model.Signal)) for row in found
    )


def _assignments(connection: sa.Connection, statement: sa.Select[str]) -> tuple[rows.Assignment, ...]:
    bodies = connection.scalars(statement.order_by(tables.assignments.c.node_id, tables.assignments.c.fence))
    return tuple(codec.decode(body, rows.Assignment) for body in bodies)


def _node(row: sa.Row[tuple[object, ...]], held: dict[model.NodeId, model.OperationId]) -> model.Node:
    node_id = model.NodeId(row.node_id)
    return model.Node(
        id=node_id,
        labels=codec.decode(row.labels, dict[str, str]),
        capabilities=codec.decode(row.capabilities, frozenset[str]),
        agent_version=row.agent_version,
        fence=row.fence,
        is_connected=False,
        last_seen_at=None if row.last_seen_at is None else datetime.fromisoformat(row.last_seen_at),
        components=codec.decode(row.components, dict[model.ComponentName, model.InstalledComponent]),
        operation_id=held.get(node_id),
        bad_digests=codec.decode(row.bad_digests, dict[model.Digest, str]),
        conditions=codec.decode(row.conditions, tuple[model.Condition, ...]),
        own_labels=codec.decode(row.own_labels, dict[str, str]),
        set_labels=codec.decode(row.set_labels, dict[str, str]),
        cordoned_because=row.cordoned_because,
        quarantined_because=row.quarantined_because,
        offline_since=None if row.offline_since is None else datetime.fromisoformat(row.offline_since),
    )


def _session(row: sa.Row[tuple[object, ...]]) -> rows.Session:
    return rows.Session(
        node_id=model.NodeId(row.node_id),
        session_id=model.SessionId(row.session_id),
        generation=row.generation,
        boot_id=row.boot_id,
        instance_token=row.instance_token,
        opened_at=datetime.fromisoformat(row.opened_at),
    )
