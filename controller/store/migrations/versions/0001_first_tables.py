"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from controller.store import tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    _assignments()
    _audit()
    _changes()
    _events()
    _leases()
    _meta()
    _nodes()
    _outbox()
    _refusals()
    _releases()
    _requests()
    _rollouts()
    _sessions()
    _steps()


def _assignments() -> None:
    op.create_table(
        "assignments",
        sa.Column("operation_id", tables.TEXT, nullable=False),
        sa.Column("rollout_id", tables.TEXT, nullable=False),
        sa.Column("node_id", tables.TEXT, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("state", tables.TEXT, nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("is_settled", sa.Boolean(), nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_assignments")),
    )
    op.create_index("ix_assignments_is_settled", "assignments", ["is_settled"], unique=False)
    op.create_index("ix_assignments_rollout_id", "assignments", ["rollout_id"], unique=False)
    op.create_index(
        "uq_assignments_open_node_id",
        "assignments",
        ["node_id"],
        unique=True,
        sqlite_where=sa.text("is_open = 1"),
        postgresql_where=sa.text("is_open"),
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", tables.TEXT, nullable=False),
        sa.Column("actor", tables.TEXT, nullable=False),
        sa.Column("action", tables.TEXT, nullable=False),
        sa.Column("subject", tables.TEXT, nullable=False),
        sa.Column("reason", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_subject", "audit", ["subject"], unique=False)


def _changes() -> None:
    op.create_table(
        "changes",
        sa.Column("rollout_id", tables.TEXT, nullable=False),
        sa.Column("wave", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("node_id", tables.TEXT, nullable=False),
        sa.Column("component", tables.TEXT, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", "wave", "node_id", "component", name=op.f("pk_changes")),
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("rollout_id", tables.TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("core_version", tables.TEXT, nullable=False),
        sa.Column("at", tables.TEXT, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_rollout_id", "events", ["rollout_id"], unique=False)


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("rollout_id", tables.TEXT, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("owner", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_leases")),
    )


def _meta() -> None:
    op.create_table(
        "meta",
        sa.Column("name", tables.TEXT, nullable=False),
        sa.Column("value", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_meta")),
    )


def _nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("node_id", tables.TEXT, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("agent_version", tables.TEXT, nullable=False),
        sa.Column("labels", tables.TEXT, nullable=False),
        sa.Column("capabilities", tables.TEXT, nullable=False),
        sa.Column("last_seen_at", tables.TEXT, nullable=True),
        sa.Column("components", tables.TEXT, nullable=False),
        sa.Column("bad_digests", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_nodes")),
    )


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("trace_id", tables.TEXT, nullable=False),
        sa.Column("span_id", tables.TEXT, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.Column("is_emitted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_is_emitted", "outbox", ["is_emitted"], unique=False)
    op.create_index("uq_outbox_trace_id_span_id", "outbox", ["trace_id", "span_id"], unique=True)


def _refusals() -> None:
    op.create_table(
        "refusals",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", tables.TEXT, nullable=False),
        sa.Column("actor", tables.TEXT, nullable=False),
        sa.Column("action", tables.TEXT, nullable=False),
        sa.Column("code", tables.TEXT, nullable=False),
        sa.Column("message", tables.TEXT, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refusals")),
    )


def _releases() -> None:
    op.create_table(
        "releases",
        sa.Column("component", tables.TEXT, nullable=False),
        sa.Column("version", tables.TEXT, nullable=False),
        sa.Column("digest", tables.TEXT, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("component", "version", name=op.f("pk_releases")),
    )


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("request_id", tables.TEXT, nullable=False),
        sa.Column("rollout_id", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_requests")),
    )


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("rollout_id", tables.TEXT, nullable=False),
        sa.Column("name", tables.TEXT, nullable=False),
        sa.Column("state", tables.TEXT, nullable=False),
        sa.Column("is_terminal", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("request", tables.TEXT, nullable=False),
        sa.Column("plan", tables.TEXT, nullable=False),
        sa.Column("head", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_rollouts")),
    )
    op.create_index("ix_rollouts_is_terminal", "rollouts", ["is_terminal"], unique=False)
    op.create_index("ix_rollouts_name", "rollouts", ["name"], unique=False)


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("node_id", tables.TEXT, nullable=False),
        sa.Column("session_id", tables.TEXT, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("boot_id", tables.TEXT, nullable=False),
        sa.Column("instance_token", tables.TEXT, nullable=False),
        sa.Column("opened_at", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_sessions")),
    )


def _steps() -> None:
    op.create_table(
        "steps",
        sa.Column("operation_id", tables.TEXT, nullable=False),
        sa.Column("step_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", tables.TEXT, nullable=False),
        sa.PrimaryKeyConstraint("operation_id", "step_index", name=op.f("pk_steps")),
    )
