"""What nodes measured, thinned out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from controller.store import tables

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "series_chunks",
        sa.Column("node_id", tables.TEXT, nullable=False),
        sa.Column("component", tables.TEXT, nullable=False),
        sa.Column("began_at", tables.TEXT, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", "component", "began_at", name=op.f("pk_series_chunks")),
    )
    op.create_index(
        "ix_series_chunks_component_began_at_node_id",
        "series_chunks",
        ["component", "began_at", "node_id"],
        unique=False,
    )
    op.create_index("ix_series_chunks_began_at", "series_chunks", ["began_at"], unique=False)
