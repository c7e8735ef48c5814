"""What is wrong with a node."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from controller.store import tables

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("nodes", sa.Column("conditions", tables.TEXT, nullable=False, server_default='{"v":1,"data":[]}'))
