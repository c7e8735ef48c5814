"""Inserts that know what to do where a row is there already, said as each database has it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from controller.store import tables

Row = Mapping[str, Any]

# Columns that never change once a row is there; to write them again would be to write their indexes again.
_FIXED = {tables.assignments: ("rollout_id", "node_id")}


def insert_once(connection: sa.Connection, table: sa.Table, values: Sequence[Row]) -> None:
    """Insert rows; one that is there already stays as it is."""
    if values:
        connection.execute(_insert_into(connection.dialect.name, table).on_conflict_do_nothing(), values)


def upsert(connection: sa.Connection, table: sa.Table, values: Sequence[Row]) -> None:
    """Insert whole rows, each in the place of what has its key."""
    if values:
        connection.execute(_upsert_into(connection.dialect.name, table), values)


def _insert_into(dialect: str, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@functools.cache
def _upsert_into(dialect: str, table: sa.Table) -> sa.Insert:
    statement = _insert_into(dialect, table)
    keys = [column.name for column in table.primary_key]
    kept = {*keys, *_FIXED.get(table, ())}
    changed = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in kept}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)
