"""The version graph, freezes, outcomes, and what operators decide of nodes."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from controller.store import tables

revision = "0003"
down_revision = "0002"

_NOTHING = '{"v":1,"data":[]}'


def upgrade() -> None:
    _graph()
    _standings()
    _outcomes()
    _nodes()
    _rollouts()


def _graph() -> None:
    op.create_table(
        "edges",
        sa.Column("component", tables.TEXT, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("component", "position", name=op.f("pk_edges")),
    )
    for table, key in (("barriers", "version"), ("channels", "name"), ("blocks", "version")):
        op.create_table(
            table,
            sa.Column("component", tables.TEXT, nullable=False),
            sa.Column(key, tables.TEXT, nullable=False),
            sa.Column("body", tables.TEXT, nullable=False),
            sa.PrimaryKeyConstraint("component", key, name=op.f(f"pk_{table}")),
        )
    op.create_table(
        "freezes",
        sa.Column("freeze_id", tables.TEXT, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("freeze_id", name=op.f("pk_freezes")),
    )


def _standings() -> None:
    op.create_table(
        "standings",
        sa.Column("rollout_id", tables.TEXT, nullable=False),
        sa.Column("node_id", tables.TEXT, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", "node_id", name=op.f("pk_standings")),
    )


def _outcomes() -> None:
    op.create_table(
        "outcomes",
        sa.Column("operation_id", tables.TEXT, nullable=False),
        sa.Column("at", tables.TEXT, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_outcomes")),
    )
    op.create_index("ix_outcomes_at", "outcomes", ["at"], unique=False)


def _nodes() -> None:
    op.add_column("nodes", sa.Column("own_labels", tables.TEXT, nullable=False, server_default=_NOTHING))
    op.add_column("nodes", sa.Column("set_labels", tables.TEXT, nullable=False, server_default=_NOTHING))
    op.add_column("nodes", sa.Column("cordoned_because", tables.TEXT, nullable=False, server_default=""))
    op.add_column("nodes", sa.Column("quarantined_because", tables.TEXT, nullable=False, server_default=""))
    op.add_column("nodes", sa.Column("offline_since", tables.TEXT, nullable=True))
    # Whatever labels a node had came from its agent.
    op.execute("UPDATE nodes SET own_labels = labels")


def _rollouts() -> None:
    op.create_index("ix_changes_node_id_rollout_id", "changes", ["node_id", "rollout_id"], unique=False)
    op.add_column("rollouts", sa.Column("components", tables.TEXT, nullable=False, server_default=""))
    rollouts = sa.table("rollouts", sa.column("rollout_id"), sa.column("request"), sa.column("components"))
    connection = op.get_bind()
    for row in connection.execute(sa.select(rollouts.c.rollout_id, rollouts.c.request)).all():
        component = json.loads(row.request)["data"]["component"]
        connection.execute(
            sa.update(rollouts).where(rollouts.c.rollout_id == row.rollout_id).values(components=f" {component} ")
        )
