"""The statements that delete what is over and old, some rows at a time.

Rules kept: nothing that is under way, or of which more may come, is deleted: not a rollout before its end, nor one with
an operation that is not settled or that an open firing waits for; a rollout goes with its head first, in one
transaction that says so, so that nobody ever reads half of one, and the rest of it goes whenever there is time, also in
a later life; what is left of it is up to where rollouts went. The audit log is never touched.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa

from controller.core import model
from controller.store import forms, replacing, tables

ROLLOUTS_KEPT = 100  # that ended last, however old: what people may still want to take back
ROLLOUTS_LOOKED_AT = 100  # the oldest, in one look
GONE_UP_TO = "rollouts_gone_up_to"
_GOING = "rollout_going:"  # and whose rest is still there
_SECOND_NANOSECONDS = 1_000_000_000
_R, _A, _E = tables.rollouts.c, tables.assignments.c, tables.events.c


def due_rollouts(connection: sa.Connection, before: datetime) -> tuple[model.RolloutId, ...]:
    """Name some rollouts to which nothing has happened since an instant and nothing can, oldest first."""
    ended = sa.select(sa.func.count()).select_from(tables.rollouts).where(_R.is_terminal.is_(True))
    spare = (connection.scalar(ended) or 0) - ROLLOUTS_KEPT
    if spare <= 0:
        return ()
    oldest = sa.select(_R.rollout_id).where(_R.is_terminal.is_(True)).order_by(_R.rollout_id)
    found = connection.scalars(oldest.limit(min(spare, ROLLOUTS_LOOKED_AT))).all()
    return tuple(model.RolloutId(each) for each in found if _is_over(connection, each, before))


def delete_head(connection: sa.Connection, rollout_id: model.RolloutId, before: datetime) -> bool:
    """Delete a rollout for whoever looks, with its request's identity; False where it is under way again."""
    is_ended = connection.scalar(sa.select(_R.is_terminal).where(_R.rollout_id == rollout_id))
    if not is_ended or not _is_over(connection, rollout_id, before):
        return False
    for table in (tables.rollouts, tables.leases, tables.approvals, tables.requests):
        connection.execute(sa.delete(table).where(table.c.rollout_id == rollout_id))
    gone = max(gone_up_to(connection), rollout_id)
    marks = [{"name": GONE_UP_TO, "value": gone}, {"name": f"{_GOING}{rollout_id}", "value": ""}]
    replacing.upsert(connection, tables.meta, marks)
    return True


def going(connection: sa.Connection) -> tuple[model.RolloutId, ...]:
    """Name the rollouts of which only the rest is there."""
    names = connection.scalars(sa.select(tables.meta.c.name).where(tables.meta.c.name.startswith(_GOING)))
    return tuple(sorted(model.RolloutId(each.removeprefix(_GOING)) for each in names))


def delete_rest(connection: sa.Connection, rollout_id: model.RolloutId, trace_id: str, limit: int) -> bool:
    """Delete some rows of a rollout that has no head; True while there may be more."""
    operations = sa.select(_A.operation_id).where(_A.rollout_id == rollout_id).order_by(_A.operation_id).limit(limit)
    some = connection.scalars(operations).all()
    connection.execute(sa.delete(tables.steps).where(tables.steps.c.operation_id.in_(some)))
    connection.execute(sa.delete(tables.assignments).where(_A.operation_id.in_(some)))
    count = len(some)
    for table in (tables.changes, tables.standings, tables.events, tables.outbox):
        is_its = table.c.trace_id == trace_id if table is tables.outbox else table.c.rollout_id == rollout_id
        count += _delete_some(connection, table, is_its, limit - count)
    if count < limit:
        connection.execute(sa.delete(tables.meta).where(tables.meta.c.name == f"{_GOING}{rollout_id}"))
    return count >= limit


def gone_up_to(connection: sa.Connection) -> str:
    """Read the newest identity of a rollout that was deleted for its age; empty for none."""
    return connection.scalar(sa.select(tables.meta.c.value).where(tables.meta.c.name == GONE_UP_TO)) or ""


def oldest_kept(connection: sa.Connection) -> str:
    """Read the oldest identity of a rollout that is kept; empty for none."""
    return connection.scalar(sa.select(sa.func.min(_R.rollout_id))) or ""


def delete_firings(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete some firings that are over and were made before an instant."""
    table = tables.firings
    is_old = sa.and_(table.c.fired_at < forms.instant(before), table.c.is_open.is_(False))
    return _delete_some(connection, table, is_old, limit)


def delete_outcomes(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete some outcomes of operations that ended before an instant."""
    return _delete_some(connection, tables.outcomes, tables.outcomes.c.at < forms.instant(before), limit)


def delete_refusals(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete the oldest refusals, where they are from before an instant."""
    table = tables.refusals
    oldest = sa.select(table.c.id, table.c.at).order_by(table.c.id).limit(limit)
    old = [row.id for row in connection.execute(oldest) if row.at < forms.instant(before)]
    return connection.execute(sa.delete(table).where(table.c.id.in_(old))).rowcount


def delete_answers(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete some answers that were given before an instant."""
    return _delete_some(connection, tables.answers, tables.answers.c.answered_at < forms.instant(before), limit)


def delete_spans(
    connection: sa.Connection, before: datetime, kept: Collection[str], after: int, limit: int
) -> int | None:
    """Delete some spans that ended before an instant.

    Args:
        connection: On which a transaction was begun.
        before: The instant.
        kept: Traces that stay whole.
        after: Number of the row after which to look.
        limit: Rows to look at.

    Returns:
        Number of the row after which to go on; None where those that follow are young, or none do.
    """
    table = tables.outbox
    following = sa.select(table.c.id, table.c.trace_id, table.c.body).where(table.c.id > after)
    found = connection.execute(following.order_by(table.c.id).limit(limit)).all()
    instant = before.timestamp() * _SECOND_NANOSECONDS
    old = [row for row in found if json.loads(row.body)["ended_at"] < instant]
    gone = [row.id for row in old if row.trace_id not in kept]
    connection.execute(sa.delete(table).where(table.c.id.in_(gone)))
    return found[-1].id if len(old) == limit else None


def open_rollouts(connection: sa.Connection) -> tuple[model.RolloutId, ...]:
    """Name the rollouts that are not at their end."""
    found = connection.scalars(sa.select(_R.rollout_id).where(_R.is_terminal.is_(False)))
    return tuple(map(model.RolloutId, found))


def _is_over(connection: sa.Connection, rollout_id: str, before: datetime) -> bool:
    last = sa.select(_E.at).where(_E.rollout_id == rollout_id).order_by(_E.id.desc()).limit(1)
    at = connection.scalar(last)
    if at is None or at >= forms.instant(before):
        return False
    unsettled = sa.select(sa.literal(1)).where(_A.rollout_id == rollout_id, _A.is_settled.is_(False)).limit(1)
    firings = tables.firings.c
    waited_for = sa.select(sa.literal(1)).where(
        firings.is_open.is_(True), firings.body.contains(f'"{rollout_id}"', autoescape=True)
    )
    return connection.scalar(unsettled) is None and connection.scalar(waited_for.limit(1)) is None


def _delete_some(connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool], limit: int) -> int:
    if limit <= 0:
        return 0
    key: Sequence[sa.Column[object]] = tuple(table.primary_key)
    some = connection.execute(sa.select(*key).where(which).limit(limit)).all()
    if some:
        wanted = (
            sa.tuple_(*key).in_([tuple(row) for row in some]) if len(key) > 1 else key[0].in_([row[0] for row in some])
        )
        connection.execute(sa.delete(table).where(wanted))
    return len(some)
