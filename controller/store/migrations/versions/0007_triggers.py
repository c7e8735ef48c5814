"""Triggers, what they remember, their firings, and the events that they have seen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from controller.store import tables

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "triggers",
        sa.Column("name", tables.TEXT, nullable=False),
        sa.Column("trigger_id", tables.TEXT, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.Column("status", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_triggers")),
    )
    op.create_table(
        "trigger_signals",
        sa.Column("trigger_id", tables.TEXT, nullable=False),
        sa.Column("node_id", tables.TEXT, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("trigger_id", "node_id", name=op.f("pk_trigger_signals")),
    )
    op.create_table(
        "firings",
        sa.Column("trigger_id", tables.TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("trigger_name", tables.TEXT, nullable=False),
        sa.Column("fired_at", tables.TEXT, nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("trigger_id", "number", name=op.f("pk_firings")),
    )
    op.create_index(op.f("ix_firings_trigger_name_fired_at"), "firings", ["trigger_name", "fired_at"])
    op.create_index(op.f("ix_firings_fired_at"), "firings", ["fired_at"])
    op.create_table(
        "received_events",
        sa.Column("source", tables.TEXT, nullable=False),
        sa.Column("event_id", tables.TEXT, nullable=False),
        sa.Column("received_at", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("source", "event_id", name=op.f("pk_received_events")),
    )
    op.create_index(op.f("ix_received_events_received_at"), "received_events", ["received_at"])
