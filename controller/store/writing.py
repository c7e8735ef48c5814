"""The statements that write: one ``Commit`` becomes one transaction, or nothing of it happens.

Rules kept: a rollout's row is replaced only at the revision that the step was made on, and only under the lease's own
epoch; a node's fence never goes back; step records and spans are stored once, whoever tells them again.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from controller.core import errors, events, model
from controller.store import codec, rows, tables

ALIVE = "alive_at"
# What the head row leaves to rows and columns of their own.
ELSEWHERE = frozenset({"changes", "plan", "request"})

# Which core made a journal's events: they are replayed against later ones for ever.
CORE_VERSION = importlib.metadata.version("instar")

Row = dict[str, Any]


def instant(at: datetime) -> str:
    """Write an instant so that text order is time order."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def apply(connection: sa.Connection, commit: rows.Commit) -> None:
    """Write everything, inside the transaction that the caller began.

    Raises:
        ConflictError: Somebody else owns the rollout now, or has changed it since.
    """
    for write in commit.rollouts:
        _write_rollout(connection, write)
    _insert(connection, tables.releases, [_release_row(each) for each in commit.releases])
    _write_nodes(connection, commit.nodes)
    _upsert(connection, tables.sessions, [_session_row(each) for each in commit.sessions])
    _write_assignments(connection, commit.assignments)
    _insert_once(connection, tables.steps, [_step_row(each) for each in commit.steps])
    _insert(connection, tables.events, [_event_row(each) for each in commit.occurrences])
    _insert(connection, tables.audit, [_audit_row(each) for each in commit.audit])
    _insert(connection, tables.refusals, [_refusal_row(each) for each in commit.refusals])
    requests = [{"request_id": request_id, "rollout_id": rollout_id} for request_id, rollout_id in commit.requests]
    _insert(connection, tables.requests, requests)
    _insert_once(connection, tables.outbox, [_span_row(each) for each in commit.spans])
    _upsert(connection, tables.meta, [{"name": ALIVE, "value": instant(commit.at)}])


def take_leases(connection: sa.Connection, owner: str) -> None:
    """Take every rollout over, each under a new epoch: whoever had them before can write no more."""
    connection.execute(sa.update(tables.leases).values(epoch=tables.leases.c.epoch + 1, owner=owner))


def mark_emitted(connection: sa.Connection, numbers: Sequence[int]) -> None:
    """Remember that these rows of the outbox have reached a collector."""
    connection.execute(
        sa.update(tables.outbox).where(tables.outbox.c.id == sa.bindparam("number")).values(is_emitted=True),
        [{"number": number} for number in numbers],
    )


def _write_rollout(connection: sa.Connection, write: rows.RolloutWrite) -> None:
    rollout, lease = write.rollout, write.lease
    head = {
        "state": rollout.state.value,
        "is_terminal": rollout.state.is_terminal,
        "revision": rollout.revision,
        "head": codec.encode(rollout, model.Rollout, without=ELSEWHERE),
    }
    if write.replaces is None:
        _insert(connection, tables.leases, [_lease_row(lease)])
        _insert(connection, tables.rollouts, [_new_rollout_row(rollout, head)])
    else:
        _replace_head(connection, write, head)
    changed = [_change_row(rollout.id, rollout.changes[key]) for key in write.changes]
    _upsert(connection, tables.changes, changed)


def _new_rollout_row(rollout: model.Rollout, head: Row) -> Row:
    return {
        "rollout_id": rollout.id,
        "name": rollout.request.name,
        "request": codec.encode(rollout.request, model.UpgradeRequest),
        "plan": codec.encode(rollout.plan, model.Plan),
        **head,
    }


def _replace_head(connection: sa.Connection, write: rows.RolloutWrite, head: Row) -> None:
    held = sa.exists().where(
        tables.leases.c.rollout_id == write.lease.rollout_id,
        tables.leases.c.epoch == write.lease.epoch,
        tables.leases.c.owner == write.lease.owner,
    )
    replaced = connection.execute(
        sa.update(tables.rollouts)
        .where(tables.rollouts.c.rollout_id == write.rollout.id, tables.rollouts.c.revision == write.replaces, held)
        .values(**head)
    )
    if replaced.rowcount != 1:
        raise errors.ConflictError(
            f"cannot store rollout {write.rollout.id}: it is no longer at revision {write.replaces} "
            f"under epoch {write.lease.epoch}",
            code="rollout_changed",
            field="revision",
            value=str(write.replaces),
            rule="a rollout is stepped by the controller that holds its lease, on its latest state",
        )


def _write_nodes(connection: sa.Connection, writes: Sequence[rows.NodeWrite]) -> None:
    _insert(connection, tables.nodes, [_node_row(each.node) for each in writes if each.is_new])
    for write in writes:
        if not write.is_new:
            _replace_node(connection, write.node)


def _replace_node(connection: sa.Connection, node: model.Node) -> None:
    replaced = connection.execute(
        sa.update(tables.nodes)
        .where(tables.nodes.c.node_id == node.id, tables.nodes.c.fence <= node.fence)
        .values(**_node_row(node))
    )
    if replaced.rowcount != 1:
        raise errors.ConflictError(
            f"cannot store node {node.id}: a higher fence than {node.fence} has been given out for it",
            code="node_changed",
            field="fence",
            value=str(node.fence),
            rule="a node's fence never goes back",
        )


def _write_assignments(connection: sa.Connection, assignments: Sequence[rows.Assignment]) -> None:
    # Closed ones first: a node's next operation may be opened only when none is open.
    _upsert(connection, tables.assignments, [_assignment_row(each) for each in assignments if not each.is_open])
    _upsert(connection, tables.assignments, [_assignment_row(each) for each in assignments if each.is_open])


def _insert(connection: sa.Connection, table: sa.Table, values: Sequence[Row]) -> None:
    if values:
        connection.execute(sa.insert(table), values)


def _insert_once(connection: sa.Connection, table: sa.Table, values: Sequence[Row]) -> None:
    if values:
        connection.execute(sqlite.insert(table).on_conflict_do_nothing(), values)


def _upsert(connection: sa.Connection, table: sa.Table, values: Sequence[Row]) -> None:
    if values:
        connection.execute(_upsert_into(table), values)


@functools.cache
def _upsert_into(table: sa.Table) -> sa.Insert:
    statement = sqlite.insert(table)
    keys = [column.name for column in table.primary_key]
    changed = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


def _lease_row(lease: rows.Lease) -> Row:
    return {"rollout_id": lease.rollout_id, "epoch": lease.epoch, "owner": lease.owner}


def _release_row(release: model.Release) -> Row:
    return {
        "component": release.component,
        "version": release.version,
        "digest": release.digest,
        "body": codec.encode(release, model.Release),
    }


def _node_row(node: model.Node) -> Row:
    return {
        "node_id": node.id,
        "fence": node.fence,
        "agent_version": node.agent_version,
        "labels": codec.encode(node.labels, dict[str, str]),
        "capabilities": codec.encode(node.capabilities, frozenset[str]),
        "last_seen_at": None if node.last_seen_at is None else instant(node.last_seen_at),
        "components": codec.encode(node.components, dict[model.ComponentName, model.InstalledComponent]),
        "bad_digests": codec.encode(node.bad_digests, dict[model.Digest, str]),
        "conditions": codec.encode(node.conditions, tuple[model.Condition, ...]),
    }


def _session_row(session: rows.Session) -> Row:
    return {
        "node_id": session.node_id,
        "session_id": session.session_id,
        "generation": session.generation,
        "boot_id": session.boot_id,
        "instance_token": session.instance_token,
        "opened_at": instant(session.opened_at),
    }


def _change_row(rollout_id: model.RolloutId, progress: model.Progress) -> Row:
    return {
        "rollout_id": rollout_id,
        "wave": progress.wave,
        "node_id": progress.change.node_id,
        "component": progress.change.component,
        "body": codec.encode(progress, model.Progress),
    }


def _assignment_row(assignment: rows.Assignment) -> Row:
    return {
        "operation_id": assignment.operation_id,
        "rollout_id": assignment.rollout_id,
        "node_id": assignment.node_id,
        "fence": assignment.fence,
        "epoch": assignment.epoch,
        "state": assignment.state.value,
        "is_open": assignment.is_open,
        "is_settled": assignment.is_settled,
        "body": codec.encode(assignment, rows.Assignment),
    }


def _step_row(step: model.StepRecord) -> Row:
    return {
        "operation_id": step.operation_id,
        "step_index": step.index,
        "body": codec.encode(step, model.StepRecord),
    }


def _event_row(occurrence: rows.Occurrence) -> Row:
    return {
        "rollout_id": occurrence.rollout_id,
        "revision": occurrence.revision,
        "core_version": CORE_VERSION,
        "at": instant(occurrence.event.at),
        "body": codec.encode(occurrence.event, events.Event),
    }


def _audit_row(entry: rows.AuditEntry) -> Row:
    return {
        "at": instant(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "reason": entry.reason,
    }


def _refusal_row(refusal: rows.Refusal) -> Row:
    return {
        "at": instant(refusal.at),
        "actor": refusal.actor,
        "action": refusal.action,
        "code": refusal.code,
        "message": refusal.message,
        "body": refusal.body,
    }


def _span_row(span: rows.Span) -> Row:
    return {"trace_id": span.trace_id, "span_id": span.span_id, "body": span.body, "is_emitted": False}
