"""Copies of a store's file: taken while a controller writes to it, looked at, and put in its place again.

Rules kept: a copy is one state of what was committed, whole, and durable before it has its name; nothing is ever
written over. What is put back is copied, looked at and brought to the form that this program needs beside the store,
and takes its place in one step; what it replaces stays beside it. A store that is put back knows less than the fleet
does: join tokens that were open in it are void, for somebody may have used them since, and it remembers the span that
it knows nothing of (`restorations`), so that nodes which renewed their certificates meanwhile are not taken for their
own doubles. Fences need nothing: a node says the highest that it has seen, and the store jumps past it. Left out:
bundles, keys and metadata, which lie beside the store; PostgreSQL, which has tools of its own.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from controller.core import errors
from controller.core.audit import chain
from controller.store import chaining, restorations, sqlite, tables

# Pages that are copied before progress is told: 4 MiB, some milliseconds.
_PAGES_AT_ONCE = 1024
_DRAFT_SUFFIX = ".partial"
_JOURNALS = ("-wal", "-shm")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that is whole.

    Args:
        taken_at: The latest instant that the store knew of.
        form: Which migration it had last.
    """

    path: Path
    size_bytes: int
    form: str
    taken_at: datetime | None


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back.

    Args:
        replaced: Where what it replaced is now; None where nothing was there.
        void_tokens: Join tokens that nobody can use any more.
    """

    copy: Copy
    replaced: Path | None
    void_tokens: int


def backup(store: Path, target: Path, progress: Progress) -> Copy:
    """Copy a store, whether or not a controller is using it.

    Args:
        store: Its file.
        target: Where the copy is to be.
        progress: Told the pages that are copied, and all.

    Raises:
        RefusedError: There is no store, the target is there already, or the store is not whole.
        OSError: The target cannot be written.
    """
    sqlite.check_there(store, "store")
    draft = _draft_of(target)
    with _removed_at_last(draft):
        _copy(store, draft, progress)
        found = look(draft)
        _keep(draft, target)
    return Copy(target, found.size_bytes, found.form, found.taken_at)


def restore(copy: Path, store: Path, *, actor: str, at: datetime, progress: Progress) -> Restored:
    """Put a copy in the place of a store that no controller is using.

    Raises:
        RefusedError: A controller is using the store; the copy is not there, not whole, or of a newer program.
        OSError: The folder cannot be written.
    """
    sqlite.check_there(copy, "copy")
    with sqlite.locked(store):
        draft = _draft_of(store)
        with _removed_at_last(draft):
            _copy(copy, draft, progress)
            found = look(draft)
            void = _brought_up(draft, found, actor, at)
            replaced = _set_aside(store, at)
            sqlite.give_to_owner(draft)
            draft.replace(store)
            _sync(store.parent)
    return Restored(Copy(copy, found.size_bytes, found.form, found.taken_at), replaced, void)


def look(path: Path) -> Copy:
    """Look whether a copy is whole, and of which form.

    Raises:
        RefusedError: It is no store, or not whole.
    """
    with contextlib.closing(_read(path)) as connection:
        try:
            faults = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
            form = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            alive = connection.execute("SELECT value FROM meta WHERE name = 'alive_at'").fetchone()
        except sqlite3.DatabaseError as fault:
            raise _refused(path, f"it cannot be read as a store: {fault}", "copy_broken") from fault
    if faults or form is None:
        raise _refused(path, f"it is not whole: {'; '.join(faults) or 'it has no form'}", "copy_broken")
    taken_at = None if alive is None else datetime.fromisoformat(alive[0])
    return Copy(path, path.stat().st_size, str(form[0]), taken_at)


def _copy(source: Path, draft: Path, progress: Progress) -> None:
    """Copy one state: a reader that has begun sees nothing of what is committed later, and stops nobody."""
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(_read(source)) as reader, contextlib.closing(sqlite3.connect(draft)) as writer:
        try:
            reader.execute("BEGIN").close()
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
            told = lambda _, left, total: progress(total - left, total)  # noqa: E731
            reader.backup(writer, pages=_PAGES_AT_ONCE, progress=told, sleep=0)
            writer.execute("PRAGMA journal_mode=DELETE").fetchone()  # one file is all there is of a copy
        except sqlite3.DatabaseError as fault:
            raise _refused(source, f"it cannot be read as a store: {fault}", "copy_broken") from fault
    with draft.open("rb") as file:
        os.fsync(file.fileno())


def _brought_up(draft: Path, found: Copy, actor: str, at: datetime) -> int:
    """Bring a copy to the form of this program, and to what has to hold of one that was put back."""
    with contextlib.closing(sqlite.File(draft)) as file:
        void = file.write(lambda connection: _marked(connection, found, actor, at))
    _fold(draft)
    for suffix in (*_JOURNALS, sqlite.LOCK_SUFFIX):
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    return void


def _marked(connection: sa.Connection, found: Copy, actor: str, at: datetime) -> int:
    unused = tables.join_tokens.c.key_hash == ""
    void = connection.execute(sa.delete(tables.join_tokens).where(unused)).rowcount
    restorations.add(connection, restorations.Restoration(since=found.taken_at, until=at))
    since = "an unknown instant" if found.taken_at is None else found.taken_at.isoformat(timespec="seconds")
    reason = f"as of {since}; {void} join tokens are void"
    entry = chain.Entry(at, actor, "store.restore", "store", reason, "")
    chaining.Chaining().write(connection, (entry,), at)
    return void


def _fold(path: Path) -> None:
    """Let one file be all there is of a database."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE").fetchone()


def _set_aside(store: Path, at: datetime) -> Path | None:
    """Give what is there a second name, as one file where it can still be read."""
    if not store.exists():
        return None
    aside = store.with_name(f"{store.name}.until-{at:%Y%m%dT%H%M%SZ}")
    beside = [store.with_name(store.name + suffix) for suffix in _JOURNALS]
    kept = [each for each in beside if each.exists()]
    for each in kept:  # of a file that cannot be read, SQLite throws away what it has not taken over yet
        os.link(each, aside.with_name(aside.name + each.name.removeprefix(store.name)))
    try:
        _fold(store)
    except sqlite3.DatabaseError:
        for each in beside:
            each.unlink(missing_ok=True)
    else:
        for each in kept:
            aside.with_name(aside.name + each.name.removeprefix(store.name)).unlink()
    os.link(store, aside)
    return aside


# Files.


def _read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None)


def _draft_of(target: Path) -> Path:
    return target.with_name(f"{target.name}{_DRAFT_SUFFIX}.{os.getpid()}")


@contextlib.contextmanager
def _removed_at_last(draft: Path) -> Iterator[None]:
    try:
        yield
    finally:
        for suffix in ("", "-journal", *_JOURNALS, sqlite.LOCK_SUFFIX):
            draft.with_name(draft.name + suffix).unlink(missing_ok=True)


def _keep(draft: Path, target: Path) -> None:
    """Give a copy its name, which nothing else may have."""
    try:
        os.link(draft, target)
    except FileExistsError as fault:
        raise _refused(target, "it is there already", "copy_exists", "a name that nothing has") from fault
    draft.unlink()
    _sync(target.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refused(path: Path, fault: str, code: str, rule: str = "a copy that `instar store backup` made") -> Exception:
    return errors.RefusedError(f"cannot use {path}: {fault}", code=code, field="file", value=str(path), rule=rule)
