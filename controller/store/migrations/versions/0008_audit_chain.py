"""The audit log as a chain that only grows; what is there already becomes its first epoch."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

from controller.core.audit import chain
from controller.store import forms, guards, tables

revision = "0008"
down_revision = "0007"
_ROWS_AT_ONCE = 1_000


def upgrade() -> None:
    op.rename_table("audit", "audit_before")
    op.drop_index("ix_audit_subject", "audit_before")
    if op.get_bind().dialect.name == "postgresql":  # where indexes of all tables share their names
        op.execute("ALTER INDEX pk_audit RENAME TO pk_audit_before")
    _make_tables()
    _chain()
    op.drop_table("audit_before")
    for statement in guards.statements(op.get_bind().dialect.name):
        op.get_bind().exec_driver_sql(statement)


def _make_tables() -> None:
    op.create_table(
        "audit_epochs",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("started_at", tables.TEXT, nullable=False),
        sa.Column("previous_epoch", sa.BigInteger(), nullable=False),
        sa.Column("previous_position", sa.BigInteger(), nullable=False),
        sa.Column("previous_hash", tables.TEXT, nullable=False),
        sa.Column("hash", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_epochs")),
    )
    op.create_table(
        "audit",
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", tables.TEXT, nullable=False),
        sa.Column("actor", tables.TEXT, nullable=False),
        sa.Column("action", tables.TEXT, nullable=False),
        sa.Column("subject", tables.TEXT, nullable=False),
        sa.Column("reason", tables.TEXT, nullable=False),
        sa.Column("result", tables.TEXT, nullable=False),
        sa.Column("previous_hash", tables.TEXT, nullable=False),
        sa.Column("hash", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("epoch", "position", name=op.f("pk_audit")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_audit_subject", "audit", ["subject"])


def _chain() -> None:
    connection = op.get_bind()
    head: chain.Head | None = None
    for rows in _stored(connection):
        written = []
        for row in rows:
            entry = chain.Entry(datetime.fromisoformat(row.at), row.actor, row.action, row.subject, row.reason)
            if head is None:
                epoch = chain.begin(chain.GENESIS, entry.at)
                connection.execute(sa.insert(tables.audit_epochs), [forms.audit_epoch_row(epoch)])
                head = epoch.head
            chained = chain.follow(head, entry)
            head = chained.head
            written.append(forms.audit_row(chained))
        connection.execute(sa.insert(tables.audit), written)


def _stored(connection: sa.Connection) -> Iterator[Any]:
    """Read what was kept so far, in order, some rows at a time."""
    last = 0
    more = sa.text("SELECT * FROM audit_before WHERE id > :last ORDER BY id LIMIT :limit")
    while rows := connection.execute(more, {"last": last, "limit": _ROWS_AT_ONCE}).all():
        yield rows
        last = rows[-1].id
