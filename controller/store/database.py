"""The store as the engine sees it: pieces of work become transactions, in a file of SQLite or a database of PostgreSQL.

Rules kept: what returns is durable; transactions run one after another, in the order in which they were asked for;
reads see what is committed. Left out: how each database keeps that (`sqlite`, `postgres`), and what is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeVar

import sqlalchemy as sa

from controller.config import stores
from controller.core import errors, model
from controller.core.audit import chain
from controller.store import audits, chaining, executor, leading, reading, rows, sqlite, writing

Result = TypeVar("Result")

RENEWALS = 4  # within a lease: one may fail, another may be late
IDLE_SECONDS = 3_600.0  # between two looks where there is nothing to renew

_log = logging.getLogger(__name__)

# A file, a database of PostgreSQL, or nowhere but in memory.
Where = Path | stores.PostgreSQL | None


class Database(Protocol):
    """Where transactions happen."""

    @property
    def lease(self) -> timedelta | None:
        """Time after which another controller may take over, if nothing is written; None for never."""
        ...

    def write(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Run the work in a transaction of its own; it may run several times, of which one counts."""
        ...

    def read(self, query: Callable[[sa.Connection], Result]) -> Result:
        """Run a query on one state of what is committed."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Store:
    """One open store.

    Args:
        where: Its file, or its database; None for one in memory, which lives as long as this object.
        transactions: Where transactions run.

    Raises:
        RefusedError: Another controller has the file open, or a newer program wrote it.
        UnavailableError: The database does not answer.
    """

    def __init__(self, where: Where, transactions: executor.Executor) -> None:
        self._transactions = transactions
        self._log = chaining.Chaining()
        self._database = _open(where)

    async def write(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Run the work in a transaction of its own, and return what it returns once that is durable."""

        def attempt(connection: sa.Connection) -> Result:
            self._log.start()
            return work(connection)

        def transaction() -> Result:
            try:
                result = self._database.write(attempt)
            except BaseException:
                self._log.doubt()
                raise
            self._log.settle()
            return result

        return await self._transactions.run(transaction)

    async def keep(self) -> None:
        """Stay the one that writes here, until cancelled.

        Raises:
            UnavailableError: Another controller has taken over, code ``lease_lost``.
        """
        lease = self._database.lease
        while True:
            await asyncio.sleep(IDLE_SECONDS if lease is None else lease.total_seconds() / RENEWALS)
            if lease is None:
                continue
            try:
                await self.write(lambda _: None)
            except errors.UnavailableError as error:
                if error.code == leading.LEASE_LOST:
                    raise
                _log.warning("cannot say to others that this controller leads: %s", error)

    async def commit(self, commit: rows.Commit) -> None:
        """Write a commit; durable when this returns.

        Raises:
            ConflictError: Somebody else owns or changed a rollout of it; nothing is written.
        """
        await self.write(lambda connection: writing.apply(connection, commit, self._log))

    def note(self, connection: sa.Connection, entry: chain.Entry) -> None:
        """Write an audit entry, inside a transaction of `write`; the chain goes on with it."""
        self._log.write(connection, (entry,), entry.at)

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
        return self._database.read(query)

    def close(self) -> None:
        """Finish what was asked, and let another controller have the store."""
        self._transactions.close()
        self._database.close()


@contextlib.contextmanager
def looked_at(where: Path | stores.PostgreSQL) -> Iterator[sa.Connection]:
    """Open one state of a store for reading, whatever form it has, and whether or not a controller uses it.

    Raises:
        NotFoundError: There is no such file.
        UnavailableError: The database does not answer.
    """
    if not isinstance(where, stores.PostgreSQL):
        with sqlite.looked_at(where) as connection:
            yield connection
        return
    from controller.store import postgres  # noqa: PLC0415  # as below

    with postgres.looked_at(where) as connection:
        yield connection


def _open(where: Where) -> Database:
    if not isinstance(where, stores.PostgreSQL):
        return sqlite.File(where)
    from controller.store import postgres  # noqa: PLC0415  # the driver is there only where it is wanted

    return postgres.Server(where)
