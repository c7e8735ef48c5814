"""A PostgreSQL server of the tests' own, with databases made from a template that has all tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from controller.cli.demo import postgresql
from controller.config import stores
from controller.core import secret
from controller.store import database, executor

TEMPLATE = "instar_template"
_SETTINGS = {"max_connections": "60", "autovacuum": "off"}  # it is small: each test process has a server


class Cluster(postgresql.Server):
    """One server."""

    def __init__(self) -> None:
        super().__init__(_SETTINGS)
        self._count = 0
        try:
            self.execute(f"CREATE DATABASE {TEMPLATE}")
            database.Store(self.at(TEMPLATE), executor.InlineExecutor()).close()
        except BaseException:
            self.close()
            raise

    def at(self, name: str, *, port: int | None = None) -> stores.PostgreSQL:
        """The address of a database; by another port, where something stands between."""
        return address(f"127.0.0.1:{port or self.port}/{name}")

    def make(self) -> stores.PostgreSQL:
        """A database of its own, with all tables."""
        return self.at(self.make_name(TEMPLATE))

    def make_bare(self) -> stores.PostgreSQL:
        """A database of its own, with nothing in it."""
        return self.at(self.make_name("template1"))

    def make_name(self, template: str) -> str:
        self._count += 1
        name = f"t{self._count}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def set(self, name: str, value: str) -> None:
        """Change a setting of the whole server."""
        self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")


def address(rest: str) -> stores.PostgreSQL:
    """Where a store is, as the settings would have read it."""
    return stores.PostgreSQL(secret.Secret(f"{stores.SCHEME}://{postgresql.USER}@{rest}"), rest)


def execute(where: database.Where, first: str, *others: str) -> list[tuple[Any, ...]]:
    """Run statements in one transaction, beside the controller; returns what the last one found."""
    engine = sa.create_engine(where.url.reveal() if isinstance(where, stores.PostgreSQL) else f"sqlite:///{where}")
    try:
        with engine.begin() as connection:
            found = connection.exec_driver_sql(first)
            for each in others:
                found = connection.exec_driver_sql(each)
            return [tuple(each) for each in found.all()] if found.returns_rows else []
    finally:
        engine.dispose()
