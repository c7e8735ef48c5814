"""The statements that read the audit log, by its places."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from controller.core.audit import chain
from controller.store import tables


def before(connection: sa.Connection, before: chain.Place | None, subject: str, limit: int) -> tuple[chain.Row, ...]:
    """Read rows of the audit before a place, newest first; None is the end, an empty subject any."""
    table = tables.audit
    newest = sa.select(table).order_by(table.c.epoch.desc(), table.c.position.desc()).limit(limit)
    if before is not None:
        newest = newest.where(sa.tuple_(table.c.epoch, table.c.position) < (before.epoch, before.position))
    if subject:
        newest = newest.where(table.c.subject == subject)
    return tuple(map(row, connection.execute(newest)))


def following(connection: sa.Connection, place: chain.Place, limit: int) -> tuple[chain.Record, ...]:
    """Read what stands behind a place of the audit, whether or not it should: rows of one epoch, or its beginning."""
    rows_behind = _behind(connection, place, limit)
    if rows_behind:
        return rows_behind
    begun = sa.select(sa.func.min(tables.audit_epochs.c.number)).where(tables.audit_epochs.c.number > place.epoch)
    told = sa.select(sa.func.min(tables.audit.c.epoch)).where(tables.audit.c.epoch > place.epoch)
    found = [each for each in (connection.scalar(begun), connection.scalar(told)) if each is not None]
    if not found:
        return ()
    epoch = epoch_of(connection, min(found))
    return _behind(connection, chain.Place(min(found), 0), limit) if epoch is None else (epoch,)


def passes(connection: sa.Connection, head: chain.Head) -> bool:
    """Tell whether the audit goes through a head."""
    if head == chain.GENESIS:
        return True
    if head.position == 0:
        epoch = epoch_of(connection, head.epoch)
        return epoch is not None and epoch.head == head
    table = tables.audit
    at = sa.select(table.c.hash).where(table.c.epoch == head.epoch, table.c.position == head.position)
    return connection.scalar(at) == head.hash


def epoch_of(connection: sa.Connection, number: int) -> chain.Epoch | None:
    """Read the beginning of an epoch of the audit; None where there is none of that number."""
    table = tables.audit_epochs
    found = connection.execute(sa.select(table).where(table.c.number == number)).one_or_none()
    return None if found is None else _epoch(found)


def head(connection: sa.Connection) -> chain.Head:
    """Read up to where the audit goes."""
    table = tables.audit_epochs
    latest = connection.execute(sa.select(table).order_by(table.c.number.desc()).limit(1)).one_or_none()
    return chain.GENESIS if latest is None else head_of(connection, _epoch(latest))


def head_of(connection: sa.Connection, epoch: chain.Epoch) -> chain.Head:
    """Read up to where an epoch of the audit goes."""
    table = tables.audit
    newest = sa.select(table).where(table.c.epoch == epoch.number).order_by(table.c.position.desc()).limit(1)
    found = connection.execute(newest).one_or_none()
    return epoch.head if found is None else row(found).head


def _behind(connection: sa.Connection, place: chain.Place, limit: int) -> tuple[chain.Row, ...]:
    table = tables.audit
    behind = sa.select(table).where(table.c.epoch == place.epoch, table.c.position > place.position)
    return tuple(map(row, connection.execute(behind.order_by(table.c.position).limit(limit))))


def row(stored: sa.Row[tuple[object, ...]]) -> chain.Row:
    """Read a row, as it is stored."""
    told = (stored.actor, stored.action, stored.subject, stored.reason, stored.result)
    entry = chain.Entry(datetime.fromisoformat(stored.at), *told)
    return chain.Row(stored.epoch, stored.position, entry, stored.previous_hash, stored.hash)


def _epoch(stored: sa.Row[tuple[object, ...]]) -> chain.Epoch:
    previous = chain.Head(stored.previous_epoch, stored.previous_position, stored.previous_hash)
    return chain.Epoch(stored.number, datetime.fromisoformat(stored.started_at), previous, stored.hash)
