"""The tables: one row per thing that changes by itself.

Rules kept: what the statements ask for by value is a column of its own, everything else is one JSON column in the form
of ``codec``, or bytes where numbers are many; instants are UTC text, which sorts as time does; at most one open
assignment stands for a node, which the database itself enforces. The migrations make the same tables; a test compares
the two.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


# PostgreSQL else sorts text as people of some country do, and passes over the punctuation of instants.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NOTHING = '{"v":1,"data":[]}'  # an empty map or tuple, as the codec writes it


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, TEXT, primary_key=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _serial() -> sa.Column[int]:
    # SQLite numbers rows by itself only where the key is its own INTEGER.
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True)


meta = sa.Table("meta", metadata, _key("name"), _text("value"))

# Who writes to the store: its one row is of use on PostgreSQL alone, a file is locked by the operating system.
leadership = sa.Table(
    "leadership",
    metadata,
    _key("name"),
    _number("term"),
    _text("owner"),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
)

releases = sa.Table(
    "releases",
    metadata,
    _key("component"),
    _key("version"),
    sa.Column("digest", TEXT, nullable=False),
    _text("body"),
)

edges = sa.Table(
    "edges",
    metadata,
    _key("component"),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    _text("body"),
)

barriers = sa.Table("barriers", metadata, _key("component"), _key("version"), _text("body"))

channels = sa.Table("channels", metadata, _key("component"), _key("name"), _text("body"))

blocks = sa.Table("blocks", metadata, _key("component"), _key("version"), _text("body"))

freezes = sa.Table("freezes", metadata, _key("freeze_id"), _text("body"))

outcomes = sa.Table(
    "outcomes",
    metadata,
    _key("operation_id"),
    _text("at"),
    _text("body"),
    sa.Index("ix_outcomes_at", "at"),
)

rule_watches = sa.Table("rule_watches", metadata, _key("rule"), _key("node_id"), _text("body"))

nodes = sa.Table(
    "nodes",
    metadata,
    _key("node_id"),
    _number("fence"),
    _text("agent_version"),
    _text("labels"),
    _text("capabilities"),
    sa.Column("last_seen_at", TEXT),
    _text("components"),
    _text("bad_digests"),
    # Nodes that were stored before there were these columns have nothing in them.
    sa.Column("conditions", TEXT, nullable=False, server_default=_NOTHING),
    sa.Column("own_labels", TEXT, nullable=False, server_default=_NOTHING),
    sa.Column("set_labels", TEXT, nullable=False, server_default=_NOTHING),
    sa.Column("cordoned_because", TEXT, nullable=False, server_default=""),
    sa.Column("quarantined_because", TEXT, nullable=False, server_default=""),
    sa.Column("offline_since", TEXT),
)

sessions = sa.Table(
    "sessions",
    metadata,
    _key("node_id"),
    _text("session_id"),
    _number("generation"),
    _text("boot_id"),
    _text("instance_token"),
    _text("opened_at"),
)

rollouts = sa.Table(
    "rollouts",
    metadata,
    _key("rollout_id"),
    _text("name"),
    _text("state"),
    sa.Column("is_terminal", sa.Boolean, nullable=False),
    _number("revision"),
    _text("request"),
    _text("plan"),
    _text("head"),
    # Names of all that it changes, each between blanks, so that one is found by what it contains.
    sa.Column("components", TEXT, nullable=False, server_default=""),
    sa.Index("ix_rollouts_name", "name"),
    sa.Index("ix_rollouts_is_terminal", "is_terminal"),
)

changes = sa.Table(
    "changes",
    metadata,
    _key("rollout_id"),
    sa.Column("wave", sa.Integer, primary_key=True, autoincrement=False),
    _key("node_id"),
    _key("component"),
    _text("body"),
    sa.Index("ix_changes_node_id_rollout_id", "node_id", "rollout_id"),
)

standings = sa.Table("standings", metadata, _key("rollout_id"), _key("node_id"), _text("body"))

approvals = sa.Table(
    "approvals",
    metadata,
    _key("rollout_id"),
    _text("state"),
    _text("body"),
    sa.Index("ix_approvals_state", "state"),
)

leases = sa.Table("leases", metadata, _key("rollout_id"), _number("epoch"), _text("owner"))

assignments = sa.Table(
    "assignments",
    metadata,
    _key("operation_id"),
    _text("rollout_id"),
    _text("node_id"),
    _number("fence"),
    _number("epoch"),
    _text("state"),
    sa.Column("is_open", sa.Boolean, nullable=False),
    sa.Column("is_settled", sa.Boolean, nullable=False),
    _text("body"),
    sa.Index("ix_assignments_rollout_id", "rollout_id"),
    sa.Index("ix_assignments_is_settled", "is_settled"),
    sa.Index(
        "uq_assignments_open_node_id",
        "node_id",
        unique=True,
        sqlite_where=sa.text("is_open = 1"),
        postgresql_where=sa.text("is_open"),
    ),
)

steps = sa.Table(
    "steps",
    metadata,
    _key("operation_id"),
    sa.Column("step_index", sa.Integer, primary_key=True, autoincrement=False),
    _text("body"),
)

events = sa.Table(
    "events",
    metadata,
    _serial(),
    _text("rollout_id"),
    _number("revision"),
    _text("core_version"),
    _text("at"),
    _text("body"),
    sa.Index("ix_events_rollout_id", "rollout_id"),
)

audit_epochs = sa.Table(
    "audit_epochs",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    _text("started_at"),
    _number("previous_epoch"),
    _number("previous_position"),
    _text("previous_hash"),
    _text("hash"),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    _text("at"),
    _text("actor"),
    _text("action"),
    _text("subject"),
    _text("reason"),
    _text("result"),
    _text("previous_hash"),
    _text("hash"),
    sa.Index("ix_audit_subject", "subject"),
    sqlite_with_rowid=False,  # its key is what it is read by
)

refusals = sa.Table(
    "refusals",
    metadata,
    _serial(),
    _text("at"),
    _text("actor"),
    _text("action"),
    _text("code"),
    _text("message"),
    _text("body"),
)

series_chunks = sa.Table(
    "series_chunks",
    metadata,
    _key("node_id"),
    _key("component"),
    _key("began_at"),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("ix_series_chunks_component_began_at_node_id", "component", "began_at", "node_id"),
    sa.Index("ix_series_chunks_began_at", "began_at"),
)

triggers = sa.Table("triggers", metadata, _key("name"), _text("trigger_id"), _text("body"), _text("status"))

trigger_signals = sa.Table("trigger_signals", metadata, _key("trigger_id"), _key("node_id"), _text("body"))

firings = sa.Table(
    "firings",
    metadata,
    _key("trigger_id"),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    _text("trigger_name"),
    _text("fired_at"),
    sa.Column("is_open", sa.Boolean, nullable=False),
    _text("body"),
    sa.Index("ix_firings_trigger_name_fired_at", "trigger_name", "fired_at"),
    sa.Index("ix_firings_fired_at", "fired_at"),
)

received_events = sa.Table(
    "received_events",
    metadata,
    _key("source"),
    _key("event_id"),
    _text("received_at"),
    sa.Index("ix_received_events_received_at", "received_at"),
)

join_tokens = sa.Table(
    "join_tokens",
    metadata,
    _key("token_id"),
    _text("node_id"),
    _text("secret_hash"),
    _text("expires_at"),
    _text("key_hash"),
    _text("certificate"),
    sa.Index("ix_join_tokens_expires_at", "expires_at"),
)

identities = sa.Table(
    "identities",
    metadata,
    _key("node_id"),
    _number("serial"),
    _text("key_hash"),
    _text("certificate"),
    _text("previous_key_hash"),
    _text("previous_certificate"),
    _number("recoveries_left"),
    _text("locked_because"),
)

requests = sa.Table("requests", metadata, _key("request_id"), _text("rollout_id"))

answers = sa.Table(
    "answers",
    metadata,
    _key("request_id"),
    _text("method"),
    _text("caller"),
    _text("content_hash"),
    _text("answered_at"),
    sa.Column("body", sa.LargeBinary, nullable=False),
    _text("withheld_because"),
    sa.Index("ix_answers_answered_at", "answered_at"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    _serial(),
    _text("trace_id"),
    _text("span_id"),
    _text("body"),
    sa.Column("is_emitted", sa.Boolean, nullable=False),
    sa.Index("uq_outbox_trace_id_span_id", "trace_id", "span_id", unique=True),
    sa.Index("ix_outbox_is_emitted", "is_emitted"),
)
