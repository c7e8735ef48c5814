"""What is wrong with a node."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("nodes", sa.Column("conditions", sa.Text(), nullable=False, server_default='{"v":1,"data":[]}'))
