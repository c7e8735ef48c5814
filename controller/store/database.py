"""Opens the database: its settings, its migrations, and the promise that no second controller writes to it.

Rules kept: WAL with synchronous=FULL (of 300 acknowledged commits, a power cut took all 300 under NORMAL and none
under FULL); every transaction begins IMMEDIATE on the one writing connection, so that none fails half-way for a
lock; a lock file beside the database, freed by the operating system when its holder dies, keeps a second controller
out. Left out: what is written.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import pool

from controller.core import errors, model
from controller.core.audit import chain
from controller.store import audits, chaining, executor, migration, reading, rows, tables, writing

Result = TypeVar("Result")

# How long a statement waits for a foreign process, such as a backup, to let go of the file.
BUSY_TIMEOUT_MILLISECONDS = 5_000
_LOCK_SUFFIX = ".lock"


class Store:
    """One open database.

    Args:
        path: The database's file; None for one in memory, which lives as long as this object.
        transactions: Where transactions run.

    Raises:
        RefusedError: Another controller has the file open, or a newer program wrote it.
    """

    def __init__(self, path: Path | None, transactions: executor.Executor) -> None:
        self._transactions = transactions
        self._log = chaining.Chaining()
        self._lock = None if path is None else _lock(path)
        if path is not None:
            path.touch(mode=0o600)
        url = "sqlite://" if path is None else f"sqlite:///{path}"
        try:
            self._engine = _engine(url, begin="BEGIN IMMEDIATE")
            self._writer = self._engine.connect()
            self._reading_engine = self._engine if path is None else _engine(url, begin="BEGIN")
            self._reader = self._writer if path is None else self._reading_engine.connect()
            self._make_tables(path)
        except BaseException:
            _unlock(self._lock)
            raise

    def _make_tables(self, path: Path | None) -> None:
        with self._writer.begin():
            if path is None:
                tables.metadata.create_all(self._writer)
            else:
                migration.upgrade(self._writer, str(path))

    async def write(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Run the work in a transaction of its own, and return what it returns once that is durable."""

        def transaction() -> Result:
            try:
                with self._writer.begin():
                    result = work(self._writer)
            except BaseException:
                self._log.doubt()
                raise
            self._log.settle()
            return result

        return await self._transactions.run(transaction)

    async def commit(self, commit: rows.Commit) -> None:
        """Write a commit; durable when this returns.

        Raises:
            ConflictError: Somebody else owns or changed a rollout of it; nothing is written.
        """
        await self.write(lambda connection: writing.apply(connection, commit, self._log))

    async def take_leases(self, owner: str) -> None:
        """Take every rollout over, each under a new epoch."""
        await self.write(lambda connection: writing.take_leases(connection, owner))

    async def pending_spans(self, limit: int) -> tuple[tuple[int, str], ...]:
        """Read spans that no collector has had, oldest first."""
        return self.read(lambda connection: reading.pending_spans(connection, limit))

    async def mark_emitted(self, numbers: tuple[int, ...]) -> None:
        """Remember that these spans have reached a collector."""
        await self.write(lambda connection: writing.mark_emitted(connection, numbers))

    async def write_chunks(self, chunks: tuple[model.SeriesChunk, ...]) -> None:
        """Write chunks of series, each in the place of what was there under its key."""
        await self.write(lambda connection: writing.write_chunks(connection, chunks))

    async def delete_chunks(self, before: datetime, limit: int) -> int:
        """Delete the oldest chunks of series that begin before an instant, and say how many that were."""
        return await self.write(lambda connection: writing.delete_chunks(connection, before, limit))

    async def forget_chunks(self, node_id: model.NodeId) -> None:
        """Delete the chunks of series of a node."""
        await self.write(lambda connection: writing.forget_chunks(connection, node_id))

    async def forget_events(self, before: datetime) -> int:
        """Forget that events were received before an instant, and say how many that were."""
        return await self.write(lambda connection: writing.forget_events(connection, before))

    def chunks_of(self, node_id: model.NodeId, since: datetime) -> tuple[model.SeriesChunk, ...]:
        """Read the chunks of a node that begin from an instant on, by component and begin."""
        return self.read(lambda connection: reading.chunks_of(connection, node_id, since))

    def chunks_between(
        self, component: str, since: datetime, until: datetime, after: tuple[datetime, str], limit: int
    ) -> tuple[model.SeriesChunk, ...]:
        """Read chunks of a component that begin in a span of time, after a begin and node, in the order of both."""
        span = (since, until)
        return self.read(lambda connection: reading.chunks_between(connection, component, span, after, limit))

    def audit_head(self) -> chain.Head:
        """Say up to where the audit log goes, by the word of its writer where it has written."""
        return self._log.head or self.read(audits.head)

    def read(self, query: Callable[[sa.Connection], Result]) -> Result:
        """Run a query now, on what is committed; for one of the statements of ``reading``, which take a millisecond."""
        with self._reader.begin():
            return query(self._reader)

    def close(self) -> None:
        """Finish what was asked, close the file and let another controller have it."""
        self._transactions.close()
        self._reader.close()
        self._writer.close()
        self._reading_engine.dispose()
        self._engine.dispose()
        _unlock(self._lock)
        self._lock = None


def _engine(url: str, *, begin: str) -> sa.Engine:
    # Each engine has exactly one connection; the thread that uses it changes once, between opening and writing.
    engine = sa.create_engine(url, poolclass=pool.StaticPool, connect_args={"check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def configure(connection, _record) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 the driver's own objects
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            f"busy_timeout={BUSY_TIMEOUT_MILLISECONDS}",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def start(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _lock(path: Path) -> int:
    descriptor = os.open(path.with_name(path.name + _LOCK_SUFFIX), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise errors.RefusedError(
            f"cannot open the store {path}: another controller is using it",
            code="store_in_use",
            field="store",
            value=str(path),
            rule="one controller at a time opens a store",
        ) from error
    return descriptor


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
