"""Approvals of rollouts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from controller.store import tables

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "approvals",
        sa.Column("rollout_id", tables.TEXT, nullable=False),
        sa.Column("state", tables.TEXT, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_approvals")),
    )
    op.create_index("ix_approvals_state", "approvals", ["state"], unique=False)
