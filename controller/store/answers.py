"""Answers to calls that carry a request identity: read and written inside a transaction that the caller began.

Rules kept: an answer is written in the transaction of what it tells of; it is compressed, for one may name each node of
a large fleet. Left out: which call is the same as an earlier one (`controller.engine.repeating`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from controller.store import forms, rows, tables

_COMPRESSION = 1  # the least: most of an answer repeats itself, and the store has other work
_T = tables.answers


def find(connection: sa.Connection, request_id: str) -> rows.Answer | None:
    """Read what was answered under a request identity; None for nothing."""
    row = connection.execute(sa.select(_T).where(_T.c.request_id == request_id)).mappings().first()
    if row is None:
        return None
    return rows.Answer(
        request_id=row["request_id"],
        method=row["method"],
        caller=row["caller"],
        content_hash=row["content_hash"],
        at=datetime.fromisoformat(row["answered_at"]),
        body=zlib.decompress(row["body"]),
        withheld_because=row["withheld_because"],
    )


def put(connection: sa.Connection, given: Iterable[rows.Answer]) -> None:
    """Write answers under identities that have none."""
    found = [_row(each) for each in given]
    if found:
        connection.execute(sa.insert(_T), found)


def _row(given: rows.Answer) -> dict[str, object]:
    return {
        "request_id": given.request_id,
        "method": given.method,
        "caller": given.caller,
        "content_hash": given.content_hash,
        "answered_at": forms.instant(given.at),
        "body": zlib.compress(given.body, _COMPRESSION),
        "withheld_because": given.withheld_because,
    }
