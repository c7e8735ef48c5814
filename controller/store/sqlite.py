"""A store in a file of SQLite, or in memory: its settings, its migrations, and the promise that one controller writes.

Rules kept: WAL with synchronous=FULL (of 300 acknowledged commits, a power cut took all 300 under NORMAL and none
under FULL); every transaction begins IMMEDIATE on the one writing connection, so that none fails half-way for a
lock; a lock file beside the database, freed by the operating system when its holder dies, keeps a second controller
out. Left out: what is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import pool

from controller.core import errors
from controller.store import guards, migration

Result = TypeVar("Result")

# How long a statement waits for a foreign process, such as a backup, to let go of the file.
BUSY_TIMEOUT_MILLISECONDS = 5_000
LOCK_SUFFIX = ".lock"


class File:
    """One open file; without a path it is in memory, and lives as long as this object.

    Raises:
        RefusedError: Another controller has the file open, or a newer program wrote it.
    """

    lease: timedelta | None = None  # a lock of the operating system has no time

    def __init__(self, path: Path | None) -> None:
        self._lock = None if path is None else _lock(path)
        if path is not None:
            path.touch(mode=0o600)
        url = "sqlite://" if path is None else f"sqlite:///{path}"
        try:
            self._engine = _engine(url, begin="BEGIN IMMEDIATE")
            self._writer = self._engine.connect()
            self._reading_engine = self._engine if path is None else _engine(url, begin="BEGIN")
            self._reader = self._writer if path is None else self._reading_engine.connect()
            with self._writer.begin():
                if path is None:
                    guards.make(self._writer)
                else:
                    migration.upgrade(self._writer, str(path))
        except BaseException:
            _unlock(self._lock)
            raise

    def write(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Run the work in a transaction of its own; durable when this returns.

        Raises:
            UnavailableError: The disk is full, code ``store_full``; nothing has been written.
        """
        try:
            with self._writer.begin():
                return work(self._writer)
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                raise
            raise errors.UnavailableError(
                f"cannot write to the store: its disk is full ({error.orig})",
                code="store_full",
                field="store",
                rule="what is accepted is durable; make room, then ask again",
            ) from error

    def read(self, query: Callable[[sa.Connection], Result]) -> Result:
        """Run a query on what is committed."""
        with self._reader.begin():
            return query(self._reader)

    def close(self) -> None:
        """Close the file and let another controller have it."""
        self._reader.close()
        self._writer.close()
        self._reading_engine.dispose()
        self._engine.dispose()
        _unlock(self._lock)
        self._lock = None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep every controller out of a file while the block runs.

    Raises:
        RefusedError: A controller has it open.
    """
    descriptor = _lock(path)
    try:
        yield
    finally:
        _unlock(descriptor)


@contextlib.contextmanager
def looked_at(path: Path) -> Iterator[sa.Connection]:
    """Open one state of a file for reading, whether or not a controller has it open.

    Raises:
        NotFoundError: There is no file.
        RefusedError: It is no database, or one that is broken.
    """
    check_there(path, "store")
    engine = _engine(f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro&uri=true", begin="BEGIN", settings=())
    try:
        with engine.connect() as connection:
            looking = connection.begin()
            try:
                yield connection
            finally:
                looking.rollback()  # nothing was written, and of a broken file nothing can be committed
    except sa.exc.DatabaseError as error:
        raise errors.RefusedError(
            f"cannot read the store {path}: {error.orig}",
            code="store_broken",
            field="store",
            value=str(path),
            rule="what a controller has written; `instar store restore` puts a copy in its place",
        ) from error
    finally:
        engine.dispose()


def check_there(path: Path, field: str) -> None:
    """See that a file is there.

    Raises:
        NotFoundError: It is not.
    """
    if not path.is_file():
        raise errors.NotFoundError(
            f"cannot find the {field} {path}", code=f"{field}_unknown", field=field, value=str(path), rule="a file"
        )


def give_to_owner(path: Path) -> None:
    """Let a file that root has made belong to whom its folder belongs to: the controller runs as somebody else."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid)


_SETTINGS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    f"busy_timeout={BUSY_TIMEOUT_MILLISECONDS}",
    "foreign_keys=ON",
)


def _engine(url: str, *, begin: str, settings: tuple[str, ...] = _SETTINGS) -> sa.Engine:
    # Each engine has exactly one connection; the thread that uses it changes once, between opening and writing.
    engine = sa.create_engine(
        url, poolclass=pool.StaticPool, hide_parameters=True, connect_args={"check_same_thread": False}
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection, _record) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 the driver's own objects
        connection.isolation_level = None
        for pragma in settings:
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def start(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _lock(path: Path) -> int:
    descriptor = os.open(path.with_name(path.name + LOCK_SUFFIX), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_to_owner(path.with_name(path.name + LOCK_SUFFIX))
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
