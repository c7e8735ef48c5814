"""A store on PostgreSQL: its connections, its transactions, and what becomes of one whose end nobody has heard.

Theory of operation. A connection that breaks before COMMIT was sent has written nothing: the work runs again, on a new
one. When it breaks while COMMIT is under way, nobody knows; but PostgreSQL does, for each transaction has a number of
which it says later whether it was committed. Until it has said so nothing else is read or written: what is read would
be from before or behind that transaction, by luck.

Rules kept: nothing is left in a session, so that a pooler may give each transaction another one (no prepared
statements, no advisory lock beyond a transaction, settings for one transaction alone); writes are serializable, and run
again where another writer was first; each wait has an end; an error tells the server's word, never the statement's
values nor the address's password. Left out: what is written, and how often somebody asks again (the callers).
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import pool

from controller.config import stores
from controller.core import errors
from controller.store import leading, postgres_text

Result = TypeVar("Result")

VERSION_MIN = 14  # the oldest that its makers still mend
CONNECT_TIMEOUT_SECONDS = 3  # also asks for the loop's patience: reads run on it
# A statement that takes longer is stuck; the lease of a rollout outlasts it.
STATEMENT_TIMEOUT_MILLISECONDS = 5_000
LOCK_TIMEOUT_MILLISECONDS = 2_000  # others hold rows for milliseconds
# A controller that was stopped in the middle of a transaction keeps others waiting no longer.
IDLE_TIMEOUT_MILLISECONDS = 5_000
ATTEMPTS_MAX = 6  # of one piece of work, over some three seconds: a database that starts again takes one or two
FIRST_PAUSE_SECONDS = 0.1  # doubled each time
RESOLVE_ATTEMPTS_MAX = 20
RESOLVE_PAUSE_SECONDS = 0.1
_MIGRATING = 0x696E7374  # names the lock of whoever makes tables, among those of the database: "inst"

_CONNECT_ARGUMENTS: Mapping[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "application_name": "instar",
    "target_session_attrs": "read-write",  # of several hosts the one that is not a stand-by
    "tcp_user_timeout": STATEMENT_TIMEOUT_MILLISECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
# What is committed is durable, whatever a role or a database has as its default; stronger settings stay.
_BEGIN = """SELECT set_config('statement_timeout', :statement, true), set_config('lock_timeout', :lock, true),
    set_config('idle_in_transaction_session_timeout', :idle, true),
    CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END"""
_BEGIN_WRITING = sa.text(f"{leading.RENEWAL} {_BEGIN}, {leading.IS_LED}, CAST(pg_current_xact_id() AS text)")
_BEGIN_READING = sa.text(_BEGIN)
_BOUNDS = {
    "statement": str(STATEMENT_TIMEOUT_MILLISECONDS),
    "lock": str(LOCK_TIMEOUT_MILLISECONDS),
    "idle": str(IDLE_TIMEOUT_MILLISECONDS),
}
_STATUS = sa.text("SELECT pg_xact_status(CAST(:number AS xid8))")
_IN_PROGRESS = "in progress"

_DISK_FULL = "53100"
_READ_ONLY = "25006"
_NO_SUCH_TRANSACTION = "22023"
# Another writer was first, each waited for the other, or it is a stand-by now.
_AGAIN = frozenset({"40001", "40P01", _READ_ONLY})

_log = logging.getLogger(__name__)


class _NotWrittenError(Exception):
    """Nothing of the work was written, and it may be done again."""


@contextlib.contextmanager
def looked_at(where: stores.PostgreSQL) -> Iterator[sa.Connection]:
    """Open one state of a database for reading, whatever form it has.

    Raises:
        UnavailableError: The server does not answer, or does not let us in.
    """
    engine = _engine(where, isolation="REPEATABLE READ").execution_options(postgresql_readonly=True)
    try:
        connection = engine.connect()
    except sa.exc.DBAPIError as error:
        engine.dispose()
        raise errors.UnavailableError(
            f"cannot open the store {where.shown}: {type(error.orig).__name__}",
            code="store_unavailable",
            field="store.url",
            value=where.shown,
            rule="a server that answers",
        ) from None
    try:
        with connection, connection.begin():
            yield connection
    finally:
        engine.dispose()


class Server:
    """One database of a server.

    Raises:
        UnavailableError: The server does not answer, or does not let us in.
        RefusedError: Another controller leads; the server is too old, its text is not UTF-8, or a newer program wrote
            the database.
    """

    def __init__(self, where: stores.PostgreSQL) -> None:
        self._where = where
        self._in_doubt: str | None = None
        self._term = 0
        self._writing = _engine(where, isolation="SERIALIZABLE")
        self._reading = _engine(where, isolation="REPEATABLE READ").execution_options(postgresql_readonly=True)
        try:
            self._open()
        except BaseException as error:
            self.close()
            if isinstance(error, sa.exc.DBAPIError):
                raise self._fault(error, f"cannot open the store {where.shown}") from None
            raise

    def _open(self) -> None:
        with self._writing.execution_options(isolation_level="READ COMMITTED").begin() as connection:
            self._check(connection)
            leading.check_free(connection, self._where.shown)
            # Of several that start at once one makes the tables, and the others then find them.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATING)))
            self._term = leading.take(connection, self._where.shown, self._where.lease)

    @property
    def _begin(self) -> Mapping[str, object]:
        return {**_BOUNDS, "term": self._term, "seconds": self._where.lease.total_seconds()}

    def _check(self, connection: sa.Connection) -> None:
        version = int(connection.scalar(sa.text("SHOW server_version_num")) or 0) // 10_000
        encoding = connection.scalar(sa.text("SHOW server_encoding"))
        if version < VERSION_MIN:
            self._refuse("server_old", f"PostgreSQL {version}", f"PostgreSQL {VERSION_MIN} or newer")
        if encoding != "UTF8":
            self._refuse("encoding_unfit", str(encoding), "a database whose encoding is UTF8")

    def _refuse(self, code: str, value: str, rule: str) -> None:
        raise errors.RefusedError(
            f"cannot use the store {self._where.shown}: it is {value}, and must be {rule}",
            code=f"store_{code}",
            field="store.url",
            value=value,
            rule=rule,
        )

    def write(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Run the work in a transaction of its own, from its begin again where that came to nothing.

        Raises:
            UnavailableError: The server cannot take it now, code ``store_unavailable`` or ``store_full``; nobody can
                say whether it has, code ``outcome_unknown``; or another controller leads, code ``lease_lost``.
        """
        pause = FIRST_PAUSE_SECONDS
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                self._settle(RESOLVE_ATTEMPTS_MAX)
                return self._attempt(work)
            except _NotWrittenError as error:
                _log.warning("transaction %d of %d came to nothing: %s", attempt, ATTEMPTS_MAX, error)
            except sa.exc.DBAPIError as error:
                if _state(error) == _READ_ONLY:
                    self._disconnect()  # it has become a stand-by: the next connection looks for who is none
                if attempt == ATTEMPTS_MAX or not _may_be_repeated(error):
                    raise self._fault(error, "cannot use the store") from None
            time.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311  # it only keeps writers out of each other's way
            pause *= 2
        raise errors.UnavailableError(
            "cannot use the store: its connections break", code="store_unavailable", field="store.url"
        )

    def _attempt(self, work: Callable[[sa.Connection], Result]) -> Result:
        with self._writing.connect() as connection:
            *_, term, number = connection.execute(_BEGIN_WRITING, self._begin).one()
            if term is None:
                raise leading.lost(self._where.shown)
            result = work(connection)
            try:
                connection.commit()
            except sa.exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                self._in_doubt = number
        if self._in_doubt is not None and not self._settle(RESOLVE_ATTEMPTS_MAX):
            raise _NotWrittenError("the connection broke, and the server says that it has committed nothing")
        return result

    def read(self, query: Callable[[sa.Connection], Result]) -> Result:
        """Run a query on one state of what is committed; at once again where the connection was a dead one.

        Raises:
            UnavailableError: The server does not answer, code ``store_unavailable``.
        """
        try:
            self._settle(1)
            try:
                return self._query(query)
            except sa.exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                return self._query(query)
        except sa.exc.DBAPIError as error:
            raise self._fault(error, "cannot read the store") from None

    def _query(self, query: Callable[[sa.Connection], Result]) -> Result:
        with self._reading.connect() as connection:
            connection.execute(_BEGIN_READING, _BOUNDS)
            return query(connection)

    def _settle(self, attempts: int) -> bool:
        """Learn what became of the transaction that is in doubt, if one is; tell whether it was committed.

        Raises:
            UnavailableError: The server is not at its end, or does not answer; code ``outcome_unknown``.
        """
        number = self._in_doubt
        if number is None:
            return False
        for attempt in range(attempts):
            if attempt:
                time.sleep(RESOLVE_PAUSE_SECONDS)
            status = self._status(number)
            if status != _IN_PROGRESS:
                self._in_doubt = None
                return status == "committed"
        raise errors.UnavailableError(
            "cannot say yet whether the last transaction was written: the connection broke during its commit",
            code="outcome_unknown",
            field="store.url",
            rule="nothing is read or written before the server has said what became of it",
        )

    def _status(self, number: str) -> str | None:
        """Ask what became of a transaction; one that cannot be asked now counts as under way."""
        try:
            with self._reading.connect() as connection:
                connection.execute(_BEGIN_READING, _BOUNDS)
                status: str | None = connection.scalar(_STATUS, {"number": number})
                return status
        except sa.exc.DBAPIError as error:
            # A server that has never heard of it has not committed it.
            return None if _state(error) == _NO_SUCH_TRANSACTION else _IN_PROGRESS

    def _fault(self, error: sa.exc.DBAPIError, what: str) -> Exception:
        """Say it as ours, where it is not a statement that broke a rule of the tables."""
        state, word = _state(error), _word(error)
        if not isinstance(error, sa.exc.OperationalError) and state != _READ_ONLY and not error.connection_invalidated:
            return error
        if state == _DISK_FULL:
            return errors.UnavailableError(
                f"{what}: the disk of the database is full: {word}",
                code="store_full",
                field="store.url",
                value=self._where.shown,
                rule="what is accepted is durable; make room, then ask again",
            )
        return errors.UnavailableError(
            f"{what}: {word}",
            code="store_unavailable",
            field="store.url",
            value=self._where.shown,
            rule="a PostgreSQL server that lets us in, can be written to, and answers in time",
        )

    @property
    def lease(self) -> timedelta:
        """Time after which others may take over, if nothing is written."""
        return self._where.lease

    def close(self) -> None:
        """Let another controller lead, and close the connections."""
        try:
            if self._term:
                with self._writing.begin() as connection:
                    connection.execute(_BEGIN_READING, _BOUNDS)
                    leading.release(connection, self._term)
        except sa.exc.DBAPIError as error:
            _log.warning("cannot end the term: others wait for its time to pass: %s", _word(error))
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        self._writing.dispose()
        self._reading.dispose()


def _may_be_repeated(error: sa.exc.DBAPIError) -> bool:
    """Tell whether the same work may go through soon, which has written nothing so far."""
    is_away = error.connection_invalidated or (isinstance(error, sa.exc.OperationalError) and not _state(error))
    return is_away or _state(error) in _AGAIN


def _state(error: sa.exc.DBAPIError) -> str:
    """Give the server's own code of an error; none where it has not spoken."""
    return getattr(error.orig, "sqlstate", None) or ""


def _word(error: sa.exc.DBAPIError) -> str:
    """Give what the server or its driver said, without the statement and its values."""
    told = getattr(getattr(error.orig, "diag", None), "message_primary", None) or str(error.orig)
    return " ".join(told.split())


def _engine(where: stores.PostgreSQL, *, isolation: str) -> sa.Engine:
    url = sa.make_url(where.url.reveal())
    engine = sa.create_engine(
        url,
        poolclass=pool.QueuePool,
        pool_size=2,  # the writer's thread and the loop's
        max_overflow=2,
        pool_use_lifo=True,
        isolation_level=isolation,
        hide_parameters=True,
        use_native_hstore=False,  # it would be asked for on each connection
        connect_args={
            "prepare_threshold": None,
            **{name: value for name, value in _CONNECT_ARGUMENTS.items() if name not in url.query},
        },
    )

    @sa.event.listens_for(engine, "do_connect")
    def show(_dialect, _record, _arguments, named) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 the driver's own
        if where.password_file is not None:
            named["password"] = where.password_file.read_text("utf-8").strip()

    @sa.event.listens_for(engine, "connect")
    def adapt(connection, _record) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 the driver's own objects
        postgres_text.adapt(connection)

    return engine
