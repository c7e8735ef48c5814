"""Who writes to a store that several controllers reach."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from controller.store import tables

revision = "0010"
down_revision = "0009"

_NEVER = datetime(2000, 1, 1, tzinfo=UTC)


def upgrade() -> None:
    made = op.create_table(
        "leadership",
        sa.Column("name", tables.TEXT, nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("owner", tables.TEXT, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leadership")),
    )
    op.bulk_insert(made, [{"name": "store", "term": 0, "owner": "", "expires_at": _NEVER}])
