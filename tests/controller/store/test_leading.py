"""One controller writes to a database at a time: who leads, for how long, and what becomes of who led before."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from controller.config import stores
from controller.core import errors
from controller.core.audit import chain
from controller.store import database, executor, reading, rows, standing
from tests import postgresql

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOCKED = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
SHORT = timedelta(milliseconds=200)  # a lease that a test can wait for


def commit(action: str) -> rows.Commit:
    return rows.Commit(at=NOW, audit=(chain.Entry(NOW, "ann", action, "r-1", "lunch"),))


def actions(store: database.Store) -> list[str]:
    return [each.action for each in store.read(lambda connection: reading.audit(connection, "r-1"))]


def opened(where: stores.PostgreSQL) -> database.Store:
    return database.Store(where, executor.InlineExecutor())


@pytest.fixture
def there(cluster: postgresql.Cluster) -> stores.PostgreSQL:
    return cluster.make()


@pytest.fixture
def leader(there: stores.PostgreSQL) -> Iterator[database.Store]:
    with contextlib.closing(opened(there)) as store:
        yield store


def pass_time(there: stores.PostgreSQL) -> None:
    """Let the lease be over, as if the leader had not been heard of for long."""
    postgresql.execute(there, "UPDATE leadership SET expires_at = clock_timestamp() - interval '1 ms'")


async def test_who_led_before_writes_nothing_any_more_and_takes_nothing_from_who_leads(
    there: stores.PostgreSQL, leader: database.Store
) -> None:
    await leader.commit(commit("one"))
    pass_time(there)
    await leader.commit(commit("two"))  # nobody has asked for it: it leads on
    pass_time(there)
    other = opened(there)
    for _ in range(2):
        with pytest.raises(errors.UnavailableError) as caught:
            await leader.commit(commit("late"))
        assert (caught.value.code, caught.value.is_retryable) == ("lease_lost", True)
    leader.close()
    with pytest.raises(errors.RefusedError) as refused:
        opened(there)
    assert refused.value.code == "store_in_use"
    await other.commit(commit("three"))
    assert actions(other) == ["one", "two", "three"]
    other.close()
    opened(there).close()


async def test_a_takeover_waits_for_what_is_being_written_and_then_comes_too_early(there: stores.PostgreSQL) -> None:
    writing, is_over = threading.Event(), threading.Event()
    leader = database.Store(there, executor.WriterThread())

    def write(connection: sa.Connection) -> None:
        connection.execute(sa.text("INSERT INTO meta VALUES ('written', '')"))
        writing.set()
        is_over.wait()

    pass_time(there)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        async with asyncio.TaskGroup() as group:
            group.create_task(leader.write(write))
            await asyncio.to_thread(writing.wait)
            taking = threads.submit(opened, there)
            await until(there, LOCKED)
            is_over.set()
        with pytest.raises(errors.RefusedError) as refused:
            taking.result()
    assert refused.value.code == "store_in_use"
    await leader.commit(commit("one"))
    leader.close()


async def until(there: stores.PostgreSQL, question: str) -> None:
    """Wait until a question has an answer."""
    async with asyncio.timeout(60):
        while not postgresql.execute(there, question):  # noqa: ASYNC110  # another program says so
            await asyncio.sleep(0.01)


async def test_a_leader_that_has_nothing_to_write_leads_on(there: stores.PostgreSQL) -> None:
    leader = database.Store(replace(there, lease=SHORT), executor.WriterThread())
    [begun] = led(there)
    async with standing.leading(leader):
        for _ in range(2):
            postgresql.execute(there, "UPDATE leadership SET expires_at = to_timestamp(0)")
            await until(there, "SELECT 1 FROM leadership WHERE expires_at > to_timestamp(0)")
    assert led(there) == [begun]
    leader.close()


def led(there: stores.PostgreSQL) -> list[tuple[object, ...]]:
    return postgresql.execute(there, "SELECT term, owner FROM leadership")


async def test_a_leader_is_told_that_another_has_taken_over_though_it_writes_nothing(there: stores.PostgreSQL) -> None:
    leader = database.Store(replace(there, lease=SHORT), executor.WriterThread())
    ended: list[str] = []

    async def lead() -> None:
        async with asyncio.timeout(30), standing.leading(leader):
            postgresql.execute(there, "UPDATE leadership SET term = term + 1")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.append("the block")

    with pytest.raises(errors.UnavailableError) as caught:
        await lead()
    assert (caught.value.code, ended) == ("lease_lost", ["the block"])
    leader.close()


async def test_what_is_wrong_in_the_block_of_a_leader_is_raised_as_it_is(leader: database.Store) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with standing.leading(leader):
            raise KeyError("mine")


async def test_who_stands_by_leads_once_the_leader_has_closed(
    there: stores.PostgreSQL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(standing, "STAND_BY_SECONDS", 0.01)
    leader = opened(there)
    await leader.commit(commit("one"))
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        waiting = group.create_task(standing.opened(there))
        while "stands by" not in caplog.text:  # noqa: ASYNC110  # the log says so
            await asyncio.sleep(0.01)
        assert not waiting.done()
        leader.close()
        other = await waiting
    await other.commit(commit("two"))
    assert actions(other) == ["one", "two"]
    other.close()


async def test_tables_of_an_earlier_program_are_changed_only_by_who_leads(
    there: stores.PostgreSQL, leader: database.Store
) -> None:
    """So a newer program may stand by while an older one leads."""
    postgresql.execute(there, "UPDATE alembic_version SET version_num = '0009'")
    with pytest.raises(errors.RefusedError) as refused:
        opened(there)
    assert refused.value.code == "store_in_use"
    assert postgresql.execute(there, "SELECT version_num FROM alembic_version") == [("0009",)]
    await leader.commit(commit("one"))


async def test_who_is_too_old_for_the_tables_does_not_stand_by(
    there: stores.PostgreSQL, leader: database.Store
) -> None:
    postgresql.execute(there, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(errors.RefusedError) as refused:
        await standing.opened(there)
    assert refused.value.code == "store_too_new"
    await leader.commit(commit("one"))


async def test_who_has_led_waits_for_a_database_that_is_away_and_who_starts_does_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    nowhere = postgresql.address("127.0.0.1:1/nowhere")
    with pytest.raises(errors.UnavailableError) as caught:
        await standing.opened(nowhere)
    assert caught.value.code == "store_unavailable"
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        waiting = group.create_task(standing.opened(nowhere, is_patient=True))
        while "stands by" not in caplog.text:  # noqa: ASYNC110  # the log says so
            await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()
