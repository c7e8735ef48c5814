"""How the rules of the monitor stand where that has a clock."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from controller.store import tables

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "rule_watches",
        sa.Column("rule", tables.TEXT, nullable=False),
        sa.Column("node_id", tables.TEXT, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("rule", "node_id", name=op.f("pk_rule_watches")),
    )
