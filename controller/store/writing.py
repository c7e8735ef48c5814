"""The statements that write: one ``Commit`` becomes one transaction, or nothing of it happens.

Rules kept: a rollout's row is replaced only at the revision that the step was made on, and only under the lease's own
epoch; a node's fence never goes back; step records and spans are stored once, whoever tells them again.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from controller.core import errors, model, statistics
from controller.store import answers, chaining, codec, forms, replacing, rows, tables

ALIVE = "alive_at"
TOTALS = "totals"
REFUSED = "refused"
ACCESS = "access:"  # and where it was seen
# Firings of one trigger that are kept, oldest gone first: of a storm of events each leaves one.
FIRINGS_MAX = 1_000
FIRINGS_FORGOTTEN = 100  # at once: to look at each firing would cost more than to keep some
LOOKED_AT = "rules_looked_at"

# Those that are asked most often are made once: making one takes longer than running it.
_REPLACE_HEAD = sa.update(tables.rollouts).where(
    tables.rollouts.c.rollout_id == sa.bindparam("of_rollout"),
    tables.rollouts.c.revision == sa.bindparam("known_revision"),
    sa.exists().where(
        tables.leases.c.rollout_id == tables.rollouts.c.rollout_id,
        tables.leases.c.epoch == sa.bindparam("known_epoch"),
        tables.leases.c.owner == sa.bindparam("known_owner"),
    ),
)
_REPLACE_NODE = sa.update(tables.nodes).where(
    tables.nodes.c.node_id == sa.bindparam("of_node"), tables.nodes.c.fence <= sa.bindparam("new_fence")
)
_FENCE = sa.select(tables.nodes.c.fence).where(tables.nodes.c.node_id == sa.bindparam("of_node"))


def apply(connection: sa.Connection, commit: rows.Commit, log: chaining.Chaining) -> None:
    """Write everything, inside the transaction that the caller began.

    Args:
        connection: On which it began.
        commit: What to write.
        log: The audit log; it goes on in the same transaction.

    Raises:
        ConflictError: Somebody else owns the rollout now, or has changed it since.
    """
    for write in commit.rollouts:
        _write_rollout(connection, write)
    _insert(connection, tables.releases, [forms.release_row(each) for each in commit.releases])
    _delete(connection, tables.nodes, [{"node_id": each} for each in commit.removed_nodes])
    _delete(connection, tables.identities, [{"node_id": each} for each in commit.removed_nodes])
    _write_nodes(connection, commit.nodes)
    replacing.upsert(connection, tables.sessions, [forms.session_row(each) for each in commit.sessions])
    _write_assignments(connection, commit.assignments)
    replacing.insert_once(connection, tables.steps, [forms.step_row(each) for each in commit.steps])
    _insert(connection, tables.events, [forms.event_row(each) for each in commit.occurrences])
    log.write(connection, commit.audit, commit.at)
    _insert(connection, tables.refusals, [forms.refusal_row(each) for each in commit.refusals])
    requests = [{"request_id": request_id, "rollout_id": rollout_id} for request_id, rollout_id in commit.requests]
    _insert(connection, tables.requests, requests)
    answers.put(connection, commit.answers)
    replacing.insert_once(connection, tables.outbox, [forms.span_row(each) for each in commit.spans])
    _write_graph(connection, commit)
    replacing.insert_once(connection, tables.outcomes, [forms.outcome_row(each) for each in commit.outcomes])
    _write_counters(connection, commit)
    _write_watches(connection, commit)
    _write_triggers(connection, commit)
    replacing.upsert(connection, tables.meta, [{"name": ALIVE, "value": forms.instant(commit.at)}])


def take_leases(connection: sa.Connection, owner: str) -> None:
    """Take every rollout over, each under a new epoch: whoever had them before can write no more."""
    connection.execute(sa.update(tables.leases).values(epoch=tables.leases.c.epoch + 1, owner=owner))


def mark_emitted(connection: sa.Connection, numbers: Sequence[int]) -> None:
    """Remember that these rows of the outbox have reached a collector."""
    connection.execute(
        sa.update(tables.outbox).where(tables.outbox.c.id == sa.bindparam("number")).values(is_emitted=True),
        [{"number": number} for number in numbers],
    )


def write_chunks(connection: sa.Connection, chunks: Sequence[model.SeriesChunk]) -> None:
    """Write chunks of series, each in the place of what was there under its key."""
    replacing.upsert(connection, tables.series_chunks, [forms.chunk_row(each) for each in chunks])


def delete_chunks(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete the oldest chunks of series that begin before an instant, and say how many that were."""
    table = tables.series_chunks
    key = (table.c.node_id, table.c.component, table.c.began_at)
    oldest = sa.select(*key).where(table.c.began_at < forms.instant(before)).order_by(table.c.began_at).limit(limit)
    return connection.execute(sa.delete(table).where(sa.tuple_(*key).in_(oldest))).rowcount


def forget_chunks(connection: sa.Connection, node_id: model.NodeId) -> None:
    """Delete the chunks of a node."""
    connection.execute(sa.delete(tables.series_chunks).where(tables.series_chunks.c.node_id == node_id))


def _write_rollout(connection: sa.Connection, write: rows.RolloutWrite) -> None:
    rollout = write.rollout
    if write.replaces is None:
        _insert(connection, tables.leases, [forms.lease_row(write.lease)])
        _insert(connection, tables.rollouts, [forms.new_rollout_row(rollout)])
    else:
        head = forms.head_columns(rollout)
        _replace_head(connection, write, {**head, **forms.plan_columns(rollout)} if write.is_replanned else head)
    if rollout.approval is not None and (write.replaces is None or write.is_decided):
        replacing.upsert(connection, tables.approvals, [forms.approval_row(rollout.approval)])
    _write_changes(connection, write)
    _write_standings(connection, write)


def _write_changes(connection: sa.Connection, write: rows.RolloutWrite) -> None:
    rollout, table = write.rollout, tables.changes
    if write.is_replanned:
        connection.execute(sa.delete(table).where(table.c.rollout_id == rollout.id))
    keys = dict.fromkeys(rollout.changes if write.is_replanned else write.changes)
    replacing.upsert(
        connection,
        table,
        [forms.change_row(rollout.id, rollout.changes[key]) for key in keys if key in rollout.changes],
    )
    _delete(
        connection,
        table,
        [
            {"rollout_id": rollout.id, "wave": key.wave, "node_id": key.node_id, "component": key.component}
            for key in keys
            if key not in rollout.changes
        ],
    )


def _write_standings(connection: sa.Connection, write: rows.RolloutWrite) -> None:
    rollout, known, told = write.rollout, write.rollout.standings, dict.fromkeys(write.standings)
    stand = [forms.standing_row(rollout.id, each, known[each]) for each in told if each in known]
    replacing.upsert(connection, tables.standings, stand)
    gone = [{"rollout_id": rollout.id, "node_id": each} for each in told if each not in known]
    _delete(connection, tables.standings, gone)


def _replace_head(connection: sa.Connection, write: rows.RolloutWrite, columns: forms.Row) -> None:
    known = {
        "of_rollout": write.rollout.id,
        "known_revision": write.replaces,
        "known_epoch": write.lease.epoch,
        "known_owner": write.lease.owner,
    }
    replaced = connection.execute(_REPLACE_HEAD, {**columns, **known})
    if replaced.rowcount != 1:
        raise errors.ConflictError(
            f"cannot store rollout {write.rollout.id}: it is no longer at revision {write.replaces} "
            f"under epoch {write.lease.epoch}",
            code="rollout_changed",
            field="revision",
            value=str(write.replaces),
            rule="a rollout is stepped by the controller that holds its lease, on its latest state",
        )


def _write_graph(connection: sa.Connection, commit: rows.Commit) -> None:
    for each in commit.declarations:
        for table in (tables.edges, tables.barriers):
            connection.execute(sa.delete(table).where(table.c.component == each.component))
        _insert(connection, tables.edges, [forms.edge_row(at, edge) for at, edge in enumerate(each.edges)])
        _insert(connection, tables.barriers, [forms.barrier_row(barrier) for barrier in each.barriers])
    replacing.upsert(connection, tables.channels, [forms.channel_row(each) for each in commit.channels])
    _delete(connection, tables.blocks, [{"component": each[0], "version": each[1]} for each in commit.unblocked])
    replacing.upsert(connection, tables.blocks, [forms.block_row(each) for each in commit.blocks])
    _delete(connection, tables.freezes, [{"freeze_id": each} for each in commit.lifted])
    replacing.upsert(connection, tables.freezes, [forms.freeze_row(each) for each in commit.freezes])


def _write_counters(connection: sa.Connection, commit: rows.Commit) -> None:
    if commit.totals is not None:
        totals = codec.encode(commit.totals, statistics.Totals)
        replacing.upsert(connection, tables.meta, [{"name": TOTALS, "value": totals}])
    if commit.refused is not None:
        replacing.upsert(connection, tables.meta, [{"name": REFUSED, "value": str(commit.refused)}])
    seen = [{"name": f"{ACCESS}{where}", "value": json.dumps(dict(facts))} for where, facts in commit.accesses]
    replacing.upsert(connection, tables.meta, seen)


def _write_watches(connection: sa.Connection, commit: rows.Commit) -> None:
    gone = [{"rule": rule, "node_id": node_id or ""} for rule, node_id in commit.unwatched]
    _delete(connection, tables.rule_watches, gone)
    replacing.upsert(connection, tables.rule_watches, [forms.watch_row(each) for each in commit.watched])
    if commit.looked_at is not None:
        replacing.upsert(connection, tables.meta, [{"name": LOOKED_AT, "value": forms.instant(commit.looked_at)}])


def _write_triggers(connection: sa.Connection, commit: rows.Commit) -> None:
    _delete(connection, tables.triggers, [{"name": each} for each in commit.removed_triggers])
    replacing.upsert(connection, tables.triggers, [forms.trigger_row(each) for each in commit.triggers])
    gone = [forms.signal_key(key) for key, signal in commit.signals if signal is None]
    _delete(connection, tables.trigger_signals, gone)
    kept = [forms.signal_row(key, signal) for key, signal in commit.signals if signal is not None]
    replacing.upsert(connection, tables.trigger_signals, kept)
    replacing.upsert(connection, tables.firings, [forms.firing_row(each) for each in commit.firings])
    old = [each for each in commit.firings if each.number > FIRINGS_MAX and each.number % FIRINGS_FORGOTTEN == 0]
    for each in old:
        _forget_firings(connection, each)
    at = forms.instant(commit.at)
    received = [{"source": each.source, "event_id": each.event_id, "received_at": at} for each in commit.received]
    _insert(connection, tables.received_events, received)


def _forget_firings(connection: sa.Connection, latest: model.Firing) -> None:
    """Delete old firings of a trigger; one that is not at its end stays."""
    table = tables.firings
    is_old = table.c.number <= latest.number - FIRINGS_MAX
    of_trigger = table.c.trigger_id == latest.trigger_id
    connection.execute(sa.delete(table).where(of_trigger, is_old, table.c.is_open.is_(False)))


def forget_events(connection: sa.Connection, before: datetime) -> int:
    """Forget events that were received before an instant, and say how many that were."""
    table = tables.received_events
    return connection.execute(sa.delete(table).where(table.c.received_at < forms.instant(before))).rowcount


def _write_nodes(connection: sa.Connection, writes: Sequence[rows.NodeWrite]) -> None:
    _insert(connection, tables.nodes, [forms.node_row(each.node) for each in writes if each.replaces is None])
    alike: dict[frozenset[str], list[forms.Row]] = defaultdict(list)  # one statement writes the same columns of many
    for each in writes:
        if each.replaces is not None:
            columns = forms.node_columns(each.node, each.replaces)
            alike[frozenset(columns)].append({**columns, "of_node": each.node.id, "new_fence": each.node.fence})
    for known in alike.values():
        _replace_nodes(connection, known)


def _replace_nodes(connection: sa.Connection, known: Sequence[forms.Row]) -> None:
    if connection.execute(_REPLACE_NODE, known).rowcount == len(known):
        return
    for each in known:
        _check_fence(connection, each["of_node"], each["new_fence"])


def _check_fence(connection: sa.Connection, node_id: model.NodeId, fence: int) -> None:
    """Refuse a node of which the row that is stored is not the one that was just written."""
    if connection.scalar(_FENCE, {"of_node": node_id}) != fence:
        raise errors.ConflictError(
            f"cannot store node {node_id}: a higher fence than {fence} has been given out for it",
            code="node_changed",
            field="fence",
            value=str(fence),
            rule="a node's fence never goes back",
        )


def _write_assignments(connection: sa.Connection, assignments: Sequence[rows.Assignment]) -> None:
    # Closed ones first: a node's next operation may be opened only when none is open.
    replacing.upsert(
        connection, tables.assignments, [forms.assignment_row(each) for each in assignments if not each.is_open]
    )
    replacing.upsert(
        connection, tables.assignments, [forms.assignment_row(each) for each in assignments if each.is_open]
    )


def _insert(connection: sa.Connection, table: sa.Table, values: Sequence[forms.Row]) -> None:
    if values:
        connection.execute(sa.insert(table), values)


def _delete(connection: sa.Connection, table: sa.Table, keys: Sequence[forms.Row]) -> None:
    """Delete rows by the whole of their key."""
    if keys:
        connection.execute(_delete_from(table), [{f"of_{name}": key[name] for name in key} for key in keys])


@functools.cache
def _delete_from(table: sa.Table) -> sa.Delete:
    return sa.delete(table).where(*(column == sa.bindparam(f"of_{column.name}") for column in table.primary_key))
