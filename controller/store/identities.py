"""Join tokens and certificates of nodes: read and written inside a transaction that the caller began.

Rules kept: what is decided on a row is written in the transaction that has read it. Left out: the
decisions (`controller.trust.enrolment`).
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import sqlalchemy as sa

from controller.core import model
from controller.store import forms, replacing, tables

_T, _I = tables.join_tokens, tables.identities


def token(connection: sa.Connection, token_id: str) -> model.JoinToken | None:
    """Read a join token."""
    row = connection.execute(sa.select(_T).where(_T.c.token_id == token_id)).mappings().first()
    if row is None:
        return None
    return model.JoinToken(
        id=row["token_id"],
        node_id=model.NodeId(row["node_id"]),
        secret_hash=row["secret_hash"],
        expires_at=datetime.fromisoformat(row["expires_at"]),
        key_hash=row["key_hash"],
        certificate=row["certificate"],
    )


def put_token(connection: sa.Connection, token: model.JoinToken) -> None:
    """Write a join token, or what has become of it."""
    values = asdict(token) | {"token_id": token.id, "expires_at": forms.instant(token.expires_at)}
    del values["id"]
    replacing.upsert(connection, _T, [values])


def forget_tokens(connection: sa.Connection, before: datetime) -> None:
    """Delete the tokens that ran out before an instant."""
    connection.execute(sa.delete(_T).where(_T.c.expires_at < forms.instant(before)))


def identity(connection: sa.Connection, node_id: model.NodeId) -> model.NodeIdentity | None:
    """Read what is known of a node's certificates."""
    row = connection.execute(sa.select(_I).where(_I.c.node_id == node_id)).mappings().first()
    return None if row is None else model.NodeIdentity(**{**row, "node_id": model.NodeId(row["node_id"])})


def put_identity(connection: sa.Connection, identity: model.NodeIdentity) -> None:
    """Write what is known of a node's certificates."""
    replacing.upsert(connection, _I, [asdict(identity)])
