"""What calls were answered that must not be carried out twice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from controller.store import tables

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "answers",
        sa.Column("request_id", tables.TEXT, nullable=False),
        sa.Column("method", tables.TEXT, nullable=False),
        sa.Column("caller", tables.TEXT, nullable=False),
        sa.Column("content_hash", tables.TEXT, nullable=False),
        sa.Column("answered_at", tables.TEXT, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("withheld_because", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_answers")),
    )
    op.create_index(op.f("ix_answers_answered_at"), "answers", ["answered_at"], unique=False)
