"""The store on real files: its settings, its migrations, and who may open it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import autogenerate
from alembic.runtime import migration as alembic_migration

from controller.core import errors, model
from controller.core.audit import chain
from controller.store import database, executor, reading, rows, sqlite, tables

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _node(fence: int) -> model.Node:
    return model.Node(
        id=model.NodeId("n1"),
        labels={"zone": "a"},
        capabilities=frozenset({"driver.handover"}),
        agent_version="0.1.0",
        fence=fence,
        is_connected=False,
        last_seen_at=_NOW,
        components={},
    )


async def test_the_migrations_make_the_tables_that_the_statements_know(where: database.Where) -> None:
    store = database.Store(where, executor.InlineExecutor())
    context = await store.write(
        lambda connection: autogenerate.compare_metadata(
            alembic_migration.MigrationContext.configure(connection), tables.metadata
        )
    )
    assert context == []
    store.close()


async def test_a_store_survives_its_closing_and_keeps_what_was_written(where: database.Where) -> None:
    store = database.Store(where, executor.WriterThread())
    await store.commit(rows.Commit(at=_NOW, nodes=(rows.NodeWrite(_node(1)),)))
    store.close()
    store = database.Store(where, executor.WriterThread())
    assert store.read(reading.snapshot).nodes == (_node(1),)
    assert store.read(reading.alive_at) == _NOW
    store.close()


async def test_each_commit_is_flushed_to_the_write_ahead_log(tmp_path: Path) -> None:
    store = database.Store(tmp_path / "store", executor.InlineExecutor())
    pragmas = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
    found = await store.write(
        lambda connection: [connection.exec_driver_sql(f"PRAGMA {each}").scalar() for each in pragmas]
    )
    assert found == ["wal", 2, sqlite.BUSY_TIMEOUT_MILLISECONDS, 1]
    store.close()


def test_a_second_controller_is_refused_until_the_first_has_closed(where: database.Where) -> None:
    store = database.Store(where, executor.InlineExecutor())
    with pytest.raises(errors.RefusedError) as refused:
        database.Store(where, executor.InlineExecutor())
    assert (refused.value.code, refused.value.field) == ("store_in_use", "store")
    store.close()
    database.Store(where, executor.InlineExecutor()).close()


_HOLDER = """
import sys, pathlib
from controller.store import database, executor
store = database.Store(pathlib.Path(sys.argv[1]), executor.WriterThread())
print("open", flush=True)
sys.stdin.read()
"""


def test_a_controller_that_was_killed_keeps_nobody_out(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / "store")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(errors.RefusedError):
            database.Store(tmp_path / "store", executor.InlineExecutor())
        holder.kill()
        holder.wait()
    database.Store(tmp_path / "store", executor.InlineExecutor()).close()


async def test_a_store_that_a_newer_program_wrote_is_refused_and_left_as_it_is(where: database.Where) -> None:
    store = database.Store(where, executor.InlineExecutor())
    await store.write(lambda connection: connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    for _ in range(2):
        with pytest.raises(errors.RefusedError) as refused:
            database.Store(where, executor.InlineExecutor())
        assert refused.value.code == "store_too_new"


async def test_a_fence_that_would_go_back_is_a_conflict_and_nothing_is_written(where: database.Where) -> None:
    store = database.Store(where, executor.InlineExecutor())
    await store.commit(rows.Commit(at=_NOW, nodes=(rows.NodeWrite(_node(5)),)))
    entry = chain.Entry(_NOW, "ann", "act", "subject", "")
    with pytest.raises(errors.ConflictError):
        await store.commit(rows.Commit(at=_NOW, audit=(entry,), nodes=(rows.NodeWrite(_node(4), replaces=_node(5)),)))
    assert store.read(reading.snapshot).nodes == (_node(5),)
    assert store.read(lambda connection: reading.audit(connection, "subject")) == ()
    store.close()


async def test_transactions_run_in_the_order_in_which_they_were_asked_for(where: database.Where) -> None:
    store = database.Store(where, executor.WriterThread())
    entries = [chain.Entry(_NOW, "ann", str(number), "subject", "") for number in range(50)]
    async with asyncio.TaskGroup() as group:
        for entry in entries:
            group.create_task(store.commit(rows.Commit(at=_NOW, audit=(entry,))))
    assert list(store.read(lambda connection: reading.audit(connection, "subject"))) == entries
    store.close()


async def test_a_transaction_that_was_asked_for_is_finished_when_nobody_waits_any_more(where: database.Where) -> None:
    store = database.Store(where, executor.WriterThread())
    entry = chain.Entry(_NOW, "ann", "act", "subject", "")
    is_free = threading.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(store.write(lambda _: is_free.wait()))
        impatient = group.create_task(store.commit(rows.Commit(at=_NOW, audit=(entry,))))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        is_free.set()
    store.close()
    store = database.Store(where, executor.WriterThread())
    assert store.read(lambda connection: reading.audit(connection, "subject")) == (entry,)
    store.close()


async def test_the_database_itself_allows_one_open_assignment_for_a_node(where: database.Where) -> None:
    store = database.Store(where, executor.InlineExecutor())
    values = {
        "rollout_id": "r",
        "node_id": "n1",
        "fence": 1,
        "epoch": 1,
        "state": "ASSIGNED",
        "is_open": True,
        "is_settled": False,
        "body": "",
    }
    with pytest.raises(sa.exc.IntegrityError):
        await store.write(
            lambda connection: connection.execute(
                sa.insert(tables.assignments), [{"operation_id": "a", **values}, {"operation_id": "b", **values}]
            )
        )
    store.close()
