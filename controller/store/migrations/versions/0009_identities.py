"""Join tokens, and the certificates of nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from controller.store import tables

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "join_tokens",
        sa.Column("token_id", tables.TEXT, nullable=False),
        sa.Column("node_id", tables.TEXT, nullable=False),
        sa.Column("secret_hash", tables.TEXT, nullable=False),
        sa.Column("expires_at", tables.TEXT, nullable=False),
        sa.Column("key_hash", tables.TEXT, nullable=False),
        sa.Column("certificate", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_join_tokens")),
    )
    op.create_index(op.f("ix_join_tokens_expires_at"), "join_tokens", ["expires_at"])
    op.create_table(
        "identities",
        sa.Column("node_id", tables.TEXT, nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("key_hash", tables.TEXT, nullable=False),
        sa.Column("certificate", tables.TEXT, nullable=False),
        sa.Column("previous_key_hash", tables.TEXT, nullable=False),
        sa.Column("previous_certificate", tables.TEXT, nullable=False),
        sa.Column("recoveries_left", sa.BigInteger(), nullable=False),
        sa.Column("locked_because", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_identities")),
    )
