"""Copies of a store: taken while a controller writes, looked at, put back; and what is found to be wrong with one."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import alembic.command
import pytest
import sqlalchemy as sa

from controller.config import stores
from controller.core import errors, model
from controller.store import (
    checking,
    copies,
    database,
    executor,
    histories,
    identities,
    migration,
    restorations,
    sqlite,
)
from tests.controller.engine import fleet

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def silent(*_: object) -> None:
    """Progress that nobody looks at."""


def found(path: Path | stores.PostgreSQL, *, has_bundle: bool = True) -> list[str]:
    with database.looked_at(path) as connection:
        looking = checking.Check(lambda _: has_bundle, silent)
        return [f"{each.place}: {each.message}" for each in looking.findings(connection)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of a fleet that had a rollout, and was not closed in order."""
    path = tmp_path / "store.db"
    filled(path)
    return path


def filled(where: Path | stores.PostgreSQL) -> None:
    async def story() -> None:
        controller = fleet.Controller(where)
        agents = await fleet.upgraded_fleet(controller)
        begun = await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        assert begun.state is model.RolloutState.RUNNING
        for agent in agents:
            await agent.obey(controller.engine)
        await controller.crash()

    fleet.in_virtual_time(story)


# Copying.


def test_a_copy_is_one_state_though_a_controller_writes_meanwhile(store: Path, tmp_path: Path) -> None:
    writing = database.Store(store, executor.InlineExecutor())
    token = model.JoinToken("t0", model.NodeId("n1"), "hash", NOW)
    told: list[int] = []

    def write(done: int, _total: int) -> None:
        told.append(done)
        asyncio.run(writing.write(lambda connection: identities.put_token(connection, token)))

    made = copies.backup(store, tmp_path / "copy", write)
    writing.close()
    assert told, "progress is told"
    assert made.form == migration.newest()
    assert made.size_bytes == made.path.stat().st_size
    assert found(made.path) == []
    with database.looked_at(made.path) as connection:
        assert identities.token(connection, "t0") is None
    with database.looked_at(store) as connection:
        assert identities.token(connection, "t0") == token


def test_a_copy_is_its_owners_alone_and_replaces_nothing(store: Path, tmp_path: Path) -> None:
    made = copies.backup(store, tmp_path / "copy", silent)
    assert made.path.stat().st_mode & 0o777 == 0o600
    before = made.path.read_bytes()
    with pytest.raises(errors.RefusedError, match="there already"):
        copies.backup(store, made.path, silent)
    assert made.path.read_bytes() == before
    with pytest.raises(errors.NotFoundError):
        copies.backup(tmp_path / "nothing", tmp_path / "other", silent)
    assert sorted(each.name for each in tmp_path.glob("*copy*")) == ["copy"]


def test_a_store_that_is_broken_is_not_copied(store: Path, tmp_path: Path) -> None:
    broken(store)
    with pytest.raises(errors.RefusedError, match=r"not whole|cannot be read"):
        copies.backup(store, tmp_path / "copy", silent)
    assert not (tmp_path / "copy").exists()


def broken(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'changes'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


# Putting back.


def test_a_store_is_put_back_and_what_it_replaces_stays_beside_it(store: Path, tmp_path: Path) -> None:
    opened = database.Store(store, executor.InlineExecutor())
    open_token = model.JoinToken("open", model.NodeId("n1"), "hash", NOW)
    used_token = model.JoinToken("used", model.NodeId("n2"), "hash", NOW, key_hash="k", certificate="c")
    asyncio.run(opened.write(lambda connection: identities.put_token(connection, open_token)))
    asyncio.run(opened.write(lambda connection: identities.put_token(connection, used_token)))
    taken = copies.backup(store, tmp_path / "copy", silent)
    later = model.JoinToken("later", model.NodeId("n3"), "hash", NOW)
    asyncio.run(opened.write(lambda connection: identities.put_token(connection, later)))
    with pytest.raises(errors.RefusedError, match="another controller is using it"):
        copies.restore(taken.path, store, actor="ann", at=NOW, progress=silent)
    opened.close()

    restored = copies.restore(taken.path, store, actor="ann", at=NOW, progress=silent)
    assert restored.void_tokens == 1
    with database.looked_at(store) as connection:
        assert [identities.token(connection, name) for name in ("open", "used", "later")] == [None, used_token, None]
        assert restorations.read(connection) == (restorations.Restoration(taken.taken_at, NOW),)
        said = connection.execute(sa.text("SELECT actor, action FROM audit ORDER BY epoch DESC, position DESC")).first()
    assert said == ("ann", "store.restore")
    assert found(store) == []
    assert restored.replaced is not None
    with database.looked_at(restored.replaced) as connection:
        assert identities.token(connection, "later") == later
    assert [each.name for each in tmp_path.iterdir() if "partial" in each.name] == []
    database.Store(store, executor.InlineExecutor()).close()


def test_what_is_put_back_is_looked_at_first(store: Path, tmp_path: Path) -> None:
    before = copies.backup(store, tmp_path / "whole", silent)
    other = tmp_path / "other"
    other.write_text("nothing that a database would be", "utf-8")
    newer = copies.backup(store, tmp_path / "newer", silent).path
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    holed = copies.backup(store, tmp_path / "holed", silent).path
    broken(holed)
    for path in (other, newer, holed):
        with pytest.raises(errors.RefusedError):
            copies.restore(path, store, actor="ann", at=NOW, progress=silent)
    assert found(store) == []
    assert copies.backup(store, tmp_path / "again", silent).taken_at == before.taken_at
    assert list(tmp_path.glob("*.until-*")) == []


def test_a_broken_store_can_be_replaced(store: Path, tmp_path: Path) -> None:
    taken = copies.backup(store, tmp_path / "copy", silent)
    store.write_bytes(b"\xff" * 8192)
    store.with_name(store.name + "-wal").write_bytes(b"what is left of a write-ahead log")
    restored = copies.restore(taken.path, store, actor="ann", at=NOW, progress=silent)
    assert restored.replaced is not None
    assert restored.replaced.read_bytes() == b"\xff" * 8192
    assert restored.replaced.with_name(restored.replaced.name + "-wal").exists()
    assert found(store) == []


# Looking.

WRONG: dict[str, tuple[str, str]] = {
    "a changed audit row": ("UPDATE audit SET reason = 'other' WHERE position = 1", "audit 1/1: "),
    "a change that is not the planned one": ("DELETE FROM changes WHERE node_id = 'n1'", "rollout "),
    "another end than the events lead to": (
        "UPDATE rollouts SET head = replace(head, '\"reached\":1', '\"reached\":2')",
        "its journal leads to another reached",
    ),
    "an event that is gone": ("DELETE FROM events WHERE id = (SELECT max(id) FROM events)", "its journal leads to"),
    "a body that nobody can read": ("UPDATE changes SET body = '{}'", "it cannot be read"),
    "a lease that is gone": ("DELETE FROM leases", "it cannot be read"),
    "a release that nobody can read": ("UPDATE releases SET body = '{}'", "state: an engine could not start from it"),
    "an older form": ("UPDATE alembic_version SET version_num = '0008'", "form: it has form 0008"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_whatever_is_wrong_is_found(store: Path, wrong: str) -> None:
    statement, wanted = WRONG[wrong]
    assert found(store) == []
    with sqlite3.connect(store) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        assert connection.execute(statement).rowcount > 0
    assert any(wanted in each for each in found(store)), found(store)


def test_a_store_on_either_database_is_looked_at_and_gives_its_histories(where: Path | stores.PostgreSQL) -> None:
    filled(where)
    assert found(where) == []
    with database.looked_at(where) as connection:
        assert migration.form_of(connection) == migration.newest()
        history = histories.of(connection, "up")
        assert list(checking.differences(history.ended, history.happened)) == []
        with pytest.raises(sa.exc.DBAPIError, match=r"read-?only"):
            connection.execute(sa.text("DELETE FROM leases"))


def test_a_bundle_that_is_missing_and_a_broken_page_are_found(store: Path) -> None:
    assert len(found(store, has_bundle=False)) == len(fleet.VERSIONS)
    broken(store)
    assert any(each.startswith("file: ") for each in found(store))


# Migrations.


def killed(store: Path, before: int) -> int:
    """Open a store in a process of its own that is killed before one of its statements; -1 for none."""
    program = f"""
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from controller.store import database, executor
count = 0
@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def counted(*_):
    global count
    count += 1
    if count == {before}:
        os.kill(os.getpid(), signal.SIGKILL)
database.Store(Path({str(store)!r}), executor.InlineExecutor()).close()
print(count)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return int(done.stdout)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return -1


def test_61_a_migration_that_was_killed_is_simply_run_again(tmp_path: Path) -> None:
    older = tmp_path / "older"
    _at_form(older, "0004")
    statements = killed(_copied(older, tmp_path / "whole"), 0)
    assert statements > 20
    for before in range(1, statements + 1, max(1, statements // 8)):
        path = _copied(older, tmp_path / f"killed{before}")
        assert killed(path, before) == -1
        with database.looked_at(path) as connection:
            assert migration.form_of(connection) in ("0004", migration.newest())
        database.Store(path, executor.InlineExecutor()).close()
        with database.looked_at(path) as connection:
            assert migration.form_of(connection) == migration.newest()
        assert found(path) == []


def _copied(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes())
    return target


def _at_form(path: Path, form: str) -> None:
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        settings = migration.config()
        settings.attributes["connection"] = connection
        alembic.command.upgrade(settings, form)
    engine.dispose()


# Histories.


def test_a_history_that_was_written_down_is_worked_out_anew(store: Path) -> None:
    with database.looked_at(store) as connection:
        (rollout_id,) = connection.scalars(sa.text("SELECT rollout_id FROM rollouts")).all()
        history = histories.of(connection, rollout_id)
        with pytest.raises(errors.NotFoundError):
            histories.of(connection, "another")
    lines = list(histories.lines(history))
    assert histories.read(lines) == history
    assert list(checking.differences(history.ended, history.happened)) == []
    shorter = histories.read([*lines[:-2], lines[-1]])
    assert list(checking.differences(shorter.ended, shorter.happened)) != []


BAD_LINES: dict[str, Callable[[list[str]], list[str]]] = {
    "nothing": lambda _: [],
    "one line": lambda lines: lines[:1],
    "no JSON": lambda lines: [*lines[:-1], "{"],
    "another form": lambda lines: [lines[0].replace('"form":1', '"form":2'), *lines[1:]],
    "a field that is missing": lambda lines: [*lines[:-1], "{}"],
    "an event of another form": lambda lines: [lines[0], lines[1].replace('"v":1', '"v":2'), *lines[2:]],
}


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_history_that_cannot_be_read_is_refused(store: Path, bad: str) -> None:
    with database.looked_at(store) as connection:
        lines = list(histories.lines(histories.of(connection, "up")))
    with pytest.raises(errors.InvalidRequestError, match="cannot read the history"):
        histories.read(BAD_LINES[bad](lines))


def test_a_file_of_root_belongs_to_whom_its_folder_belongs(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(tmp_path, 65534, 65534)
    with sqlite.locked(tmp_path / "store"):
        pass
    assert (tmp_path / "store.lock").stat().st_uid == 65534


def test_spans_of_which_nothing_is_known() -> None:
    hour = timedelta(hours=1)
    known = restorations.Restoration(NOW - hour, NOW)
    assert [known.has(at) for at in (NOW - 2 * hour, NOW - hour, NOW - hour / 2, NOW)] == [False, True, True, False]
    assert restorations.Restoration(None, NOW).has(NOW - 999 * hour)
