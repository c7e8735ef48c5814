"""What is PostgreSQL's alone: connections that break, servers that start again, writers that meet, and what is told."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import psycopg
import pytest
import sqlalchemy as sa

from controller.config import stores
from controller.core import errors, secret
from controller.core.audit import chain
from controller.store import database, executor, postgres, reading, rows, tables
from tests import breaking, pooling, postgresql

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PASSWORD = "correct-horse"  # noqa: S105  # it is looked for


def entry(action: str) -> chain.Entry:
    return chain.Entry(NOW, "ann", action, "r-1", "lunch")


def commit(*actions: str) -> rows.Commit:
    return rows.Commit(at=NOW, audit=tuple(map(entry, actions)))


def actions(store: database.Store) -> list[str]:
    return [each.action for each in store.read(lambda connection: reading.audit(connection, "r-1"))]


@pytest.fixture
def name(cluster: postgresql.Cluster) -> str:
    return cluster.make_name(postgresql.TEMPLATE)


@pytest.fixture
def store(cluster: postgresql.Cluster, name: str) -> Iterator[database.Store]:
    with contextlib.closing(database.Store(cluster.at(name), executor.InlineExecutor())) as opened:
        yield opened


@pytest.fixture
def wire(cluster: postgresql.Cluster) -> Iterator[breaking.Wire]:
    with contextlib.closing(breaking.Wire(cluster.port)) as between:
        yield between


async def test_all_text_is_sorted_byte_by_byte_as_sqlite_does(store: database.Store) -> None:
    other = sa.text("""SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'
        AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'""")
    assert store.read(lambda connection: connection.execute(other).all()) == []


@pytest.mark.parametrize("at", [breaking.BEFORE, breaking.BEHIND])
async def test_a_connection_that_breaks_during_a_commit_neither_loses_it_nor_does_it_twice(
    cluster: postgresql.Cluster, name: str, wire: breaking.Wire, at: str
) -> None:
    with contextlib.closing(database.Store(cluster.at(name, port=wire.port), executor.InlineExecutor())) as store:
        await store.commit(commit("one"))
        wire.break_at_commit(at)
        await store.commit(commit("two"))
        assert wire.broken == 1
        assert actions(store) == ["one", "two"]
        await store.commit(commit("three"))
        assert actions(store) == ["one", "two", "three"]


async def test_while_nobody_can_say_what_became_of_a_commit_nothing_is_read_or_written(
    cluster: postgresql.Cluster, name: str, wire: breaking.Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server waits for a stand-by that does not exist: the commit is under way for as long as we like."""
    monkeypatch.setattr(postgres, "RESOLVE_ATTEMPTS_MAX", 3)
    with contextlib.closing(database.Store(cluster.at(name, port=wire.port), executor.InlineExecutor())) as store:
        await store.commit(commit("one"))
        cluster.set("synchronous_standby_names", "nobody")
        try:
            wire.break_at_commit(breaking.SENT)
            for _ in range(2):
                with pytest.raises(errors.UnavailableError) as caught:
                    await store.commit(commit("two"))
                assert caught.value.code == "outcome_unknown"
                with pytest.raises(errors.UnavailableError):
                    actions(store)
        finally:
            cluster.set("synchronous_standby_names", "")
        await until(lambda: cluster.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == [])
        assert actions(store) == ["one", "two"]
        await store.commit(commit("three"))
        assert actions(store) == ["one", "two", "three"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_server_that_starts_again_delays_writes_and_refuses_none(how: signal.Signals) -> None:
    with contextlib.closing(postgresql.Cluster()) as own:
        store = database.Store(own.make(), executor.WriterThread())
        await store.commit(commit("one"))
        own.stop(how)
        waiting = asyncio.ensure_future(store.commit(commit("two")))
        await asyncio.to_thread(own.start)
        await waiting
        assert actions(store) == ["one", "two"]
        own.stop(how)
        own.start()
        assert actions(store) == ["one", "two"]  # a read finds a dead connection first
        own.stop(how)
        with pytest.raises(errors.UnavailableError) as caught:
            actions(store)
        assert caught.value.code == "store_unavailable"
        with pytest.raises(errors.UnavailableError):
            await store.commit(commit("lost"))
        own.start()
        await store.commit(commit("three"))
        assert actions(store) == ["one", "two", "three"]
        store.close()


async def test_what_was_decided_on_a_row_that_somebody_changed_meanwhile_is_decided_again(
    cluster: postgresql.Cluster, name: str, store: database.Store
) -> None:
    found: list[str | None] = []

    def decide(connection: sa.Connection) -> None:
        found.append(connection.scalar(sa.select(tables.meta.c.value).where(tables.meta.c.name == "count")))
        if len(found) == 1:
            cluster.execute("UPDATE meta SET value = '7' WHERE name = 'count'", name)
        connection.execute(sa.update(tables.meta).where(tables.meta.c.name == "count").values(value=f"{found[-1]}1"))

    cluster.execute("INSERT INTO meta VALUES ('count', '0')", name)
    await store.write(decide)
    assert found == ["0", "7"]
    assert cluster.execute("SELECT value FROM meta WHERE name = 'count'", name) == [("71",)]


def test_of_controllers_that_start_at_once_on_an_empty_database_one_makes_the_tables_and_leads(
    cluster: postgresql.Cluster,
) -> None:
    where = cluster.make_bare()

    def start() -> database.Store | str:
        try:
            return database.Store(where, executor.InlineExecutor())
        except errors.RefusedError as error:
            return error.code

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        started = list(threads.map(lambda _: start(), range(4)))
    [leader] = (each for each in started if isinstance(each, database.Store))
    assert [each for each in started if each is not leader] == ["store_in_use"] * 3
    assert leader.read(reading.snapshot).nodes == ()
    leader.close()


async def test_a_full_disk_is_told_as_one_and_nothing_is_accepted(
    cluster: postgresql.Cluster, name: str, store: database.Store
) -> None:
    """The server says what it says when it cannot extend a file."""
    full = "BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END"
    cluster.execute(f"CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $${full}$$", name)
    cluster.execute("CREATE TRIGGER no_room BEFORE INSERT ON meta EXECUTE FUNCTION no_room()", name)
    with pytest.raises(errors.UnavailableError) as caught:
        await store.commit(commit("one"))
    assert (caught.value.code, caught.value.is_retryable) == ("store_full", True)
    assert "could not extend file" in str(caught.value)
    cluster.execute("DROP TRIGGER no_room ON meta", name)
    assert actions(store) == []
    await store.commit(commit("two"))
    assert actions(store) == ["two"]


async def test_a_server_that_only_reads_is_no_store(cluster: postgresql.Cluster, name: str) -> None:
    """As a stand-by is, to which an address leads after a failure."""
    cluster.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(errors.UnavailableError) as caught:
        database.Store(cluster.at(name), executor.InlineExecutor())
    assert caught.value.code == "store_unavailable"
    assert "read-only" in str(caught.value)


async def test_who_holds_a_row_for_too_long_does_not_stop_the_controller(
    cluster: postgresql.Cluster, name: str, store: database.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres._BOUNDS, "lock", "50")
    await store.commit(commit("one"))
    with psycopg.connect(cluster.conninfo(name)) as other:
        other.execute("LOCK TABLE meta")
        with pytest.raises(errors.UnavailableError, match="lock timeout"):
            await store.commit(commit("two"))
    await store.commit(commit("three"))
    assert actions(store) == ["one", "three"]


async def test_a_controller_that_stands_still_in_a_transaction_lets_go_of_what_it_holds(
    cluster: postgresql.Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres._BOUNDS, "idle", "100")
    attempts: list[object] = []

    def stand_still(connection: sa.Connection) -> None:
        attempts.append(connection.execute(sa.text("LOCK TABLE meta")))
        if len(attempts) == 1:  # the wait is for the server's end of the transaction, which is what is shown
            cluster.execute("INSERT INTO meta VALUES ('other', '')", name)

    with contextlib.closing(database.Store(cluster.at(name), executor.InlineExecutor())) as store:
        await store.write(stand_still)
    assert len(attempts) == 2


async def test_what_is_committed_is_flushed_also_where_the_database_would_not(
    cluster: postgresql.Cluster, name: str
) -> None:
    cluster.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with contextlib.closing(database.Store(cluster.at(name), executor.InlineExecutor())) as store:
        assert await store.write(lambda connection: connection.scalar(sa.text("SHOW synchronous_commit"))) == "on"


async def test_a_transaction_leaves_nothing_in_its_session(store: database.Store) -> None:
    """So a pooler may give each transaction another session."""
    for number in range(20):
        await store.commit(commit(str(number)))

    def left(connection: sa.Connection) -> list[object]:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.rollback()
        told = ["SELECT count(*) FROM pg_prepared_statements", "SHOW statement_timeout", "SHOW lock_timeout"]
        return [raw.execute(each).fetchone()[0] for each in told]

    assert store.read(left) == [0, "0", "0"]


@pooling.needed
async def test_behind_a_pooler_that_gives_each_transaction_another_session_nothing_is_lost(
    cluster: postgresql.Cluster, name: str
) -> None:
    pid = sa.text("SELECT pg_backend_pid()")
    sessions = []
    with pooling.before(cluster) as port, contextlib.ExitStack() as opened:
        where = cluster.at(name, port=port)
        store = opened.enter_context(contextlib.closing(database.Store(where, executor.InlineExecutor())))
        other = opened.enter_context(psycopg.connect(where.url.reveal().replace("+psycopg", "")))
        for number in range(20):
            if number % 2:
                other.execute("SELECT 1")  # keeps a session to itself until it is over
            await store.commit(commit(str(number)))
            sessions.append(await store.write(lambda connection: connection.scalar(pid)))
            other.rollback()
        assert actions(store) == [str(number) for number in range(20)]
    assert len(set(sessions)) == pooling.SESSIONS


async def test_no_error_tells_the_password_of_the_address_or_what_a_statement_had_in_it(
    cluster: postgresql.Cluster, name: str, store: database.Store, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.execute("CREATE ROLE locked_out")
    told = []
    for rest in (f"127.0.0.1:1/{name}", f"127.0.0.1:{cluster.port}/nowhere", f"127.0.0.1:{cluster.port}/{name}?x=y"):
        for user in ("instar", "locked_out"):
            where = stores.PostgreSQL(secret.Secret(f"{stores.SCHEME}://{user}:{PASSWORD}@{rest}"), "shown")
            with pytest.raises((errors.UnavailableError, sa.exc.SQLAlchemyError)) as caught:
                database.Store(where, executor.InlineExecutor())
            told += [str(caught.value), repr(where)]
    node = {each.name: PASSWORD for each in tables.sessions.columns} | {"generation": 1}
    with pytest.raises(sa.exc.IntegrityError) as twice:
        await store.write(lambda connection: connection.execute(sa.insert(tables.sessions), [node, node]))
    assert PASSWORD not in "".join((*told, str(twice.value).partition("DETAIL")[0], caplog.text))


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, on a machine that may be slow."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  # another program says so
            await asyncio.sleep(0.01)
