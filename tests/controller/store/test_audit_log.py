"""The audit log in the store: it goes on with each transaction, over lives and failures; nothing is taken back."""

from __future__ import annotations

import functools
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from controller.core import errors, model
from controller.core.audit import chain, checking
from controller.store import audits, database, executor, reading, rows, tables
from tests.controller.store import test_migrations

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSERT = "INTO audit SELECT epoch, {position}, at, actor, action, subject, reason, result, {previous}, 'x' FROM audit"


def entry(action: str) -> chain.Entry:
    return chain.Entry(NOW, "ann", action, "r-1", "lunch")


def commit(*actions: str, **more: Any) -> rows.Commit:  # noqa: ANN401  # whatever a commit has
    return rows.Commit(at=NOW, audit=tuple(map(entry, actions)), **more)


def opened(path: Path | None) -> database.Store:
    return database.Store(path, executor.InlineExecutor())


def records(store: database.Store) -> list[chain.Record]:
    found, place = list[chain.Record](), chain.GENESIS.place
    while some := store.read(functools.partial(audits.following, place=place, limit=2)):
        found += some
        place = found[-1].head.place
    return found


def places(store: database.Store) -> list[str]:
    """Where something stands; the chain must be whole up to the head."""
    found = records(store)
    assert checking.check(found, head=store.audit_head()).findings == ()
    return [str(each.head.place) for each in found]


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A store that two lives have written to, closed."""
    for _ in range(2):
        store = opened(tmp_path / "store")
        await store.commit(commit("one", "two"))
        await store.commit(commit("three"))
        store.close()
    return tmp_path / "store"


async def test_each_life_has_an_epoch_that_seals_the_one_before(path: Path) -> None:
    store = opened(path)
    assert places(store) == ["1:0", "1:1", "1:2", "1:3", "2:0", "2:1", "2:2", "2:3"]
    await store.commit(commit("four"))
    assert places(store)[-2:] == ["3:0", "3:1"]
    second, third = (store.read(functools.partial(audits.epoch_of, number=number)) for number in (2, 3))
    assert second is not None
    assert third is not None
    assert (str(second.previous.place), str(third.previous.place)) == ("1:3", "2:3")
    store.close()


async def test_a_life_that_does_nothing_has_no_epoch_and_reads_the_head_that_is_there(path: Path) -> None:
    store = opened(path)
    await store.commit(rows.Commit(at=NOW))
    assert str(store.audit_head().place) == "2:3"
    store.close()
    empty = opened(None)
    assert empty.audit_head() == chain.GENESIS
    empty.close()


async def test_a_transaction_that_fails_leaves_no_row_and_the_next_one_goes_on_where_the_log_was(path: Path) -> None:
    store = opened(path)
    node = a_node()
    await store.commit(commit("first", nodes=(rows.NodeWrite(node),)))
    head = store.audit_head()
    for again in range(2):
        with pytest.raises(sa.exc.IntegrityError):
            await store.commit(commit(f"lost {again}", nodes=(rows.NodeWrite(node),)))
        assert store.audit_head() == head
    await store.commit(commit("second"))
    assert places(store)[-3:] == ["3:0", "3:1", "3:2"]
    done = store.read(lambda connection: reading.audit(connection, "r-1"))
    assert [each.action for each in done][-2:] == ["first", "second"]
    store.close()


async def test_a_first_transaction_that_fails_begins_no_epoch(path: Path) -> None:
    store = opened(path)
    node = a_node()
    await store.commit(rows.Commit(at=NOW, nodes=(rows.NodeWrite(node),)))
    with pytest.raises(sa.exc.IntegrityError):
        await store.commit(commit("lost", nodes=(rows.NodeWrite(node),)))
    assert str(store.audit_head().place) == "2:3"
    await store.commit(commit("kept"))
    assert places(store)[-2:] == ["3:0", "3:1"]
    store.close()


async def test_a_transaction_that_was_durable_though_it_failed_is_gone_on_from(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(path)
    await store.commit(commit("first"))
    settle = store._log.settle

    def fail() -> None:
        store._log.doubt()
        raise errors.UnavailableError("cannot tell", code="store_unavailable")

    monkeypatch.setattr(store._log, "settle", fail)
    with pytest.raises(errors.UnavailableError):
        await store.commit(commit("doubted"))
    monkeypatch.setattr(store._log, "settle", settle)
    await store.commit(commit("second"))
    assert places(store)[-4:] == ["3:0", "3:1", "3:2", "3:3"]
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit",
        "DELETE FROM audit WHERE epoch = 2 AND position = 3",
        "UPDATE audit SET reason = 'dinner'",
        "UPDATE OR REPLACE audit SET position = 2 WHERE position = 3",
        "DELETE FROM audit_epochs",
        "UPDATE audit_epochs SET started_at = ''",
        "INSERT OR REPLACE INTO audit_epochs SELECT * FROM audit_epochs",
        "INSERT INTO audit_epochs SELECT 7, started_at, 2, 3, hash, 'x' FROM audit_epochs WHERE number = 2",
        "INSERT OR REPLACE " + INSERT.format(position="position", previous="previous_hash"),
        "INSERT " + INSERT.format(position=4, previous="previous_hash") + " WHERE epoch = 2 AND position = 3",
        "INSERT " + INSERT.format(position=9, previous="hash") + " WHERE epoch = 2 AND position = 3",
        "INSERT " + INSERT.format(position=4, previous="hash") + " WHERE epoch = 1 AND position = 3",
        "INSERT " + INSERT.format(position=0, previous="hash") + " WHERE epoch = 2 AND position = 3",
    ],
)
def test_the_database_itself_lets_nobody_change_the_log(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        before = [*connection.execute("SELECT * FROM audit"), *connection.execute("SELECT * FROM audit_epochs")]
        with pytest.raises(sqlite3.IntegrityError, match=r"^an? audit|^audit "):
            connection.execute(statement)
        after = [*connection.execute("SELECT * FROM audit"), *connection.execute("SELECT * FROM audit_epochs")]
    assert after == before
    connection.close()


def test_a_row_that_goes_on_is_let_in(path: Path) -> None:
    """The guards refuse what is wrong, not everything."""
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT " + INSERT.format(position=4, previous="hash") + " WHERE epoch = 2 AND position = 3")
    connection.close()


async def test_a_store_in_memory_has_the_same_guards() -> None:
    store = opened(None)
    await store.commit(commit("one"))
    with pytest.raises(sa.exc.IntegrityError, match="never deleted"):
        await store.write(lambda connection: connection.execute(sa.delete(tables.audit)))
    store.close()


def test_the_migrations_make_the_guards_that_the_tables_name(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        made = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
    connection.close()
    assert made == {name: f"CREATE TRIGGER {name} {rule}" for name, rule in tables.AUDIT_GUARDS.items()}


@pytest.mark.parametrize(
    ("tampering", "expected"),
    [
        ("UPDATE audit SET reason = 'dinner' WHERE epoch = 1 AND position = 2", [("CHANGED", "1:2")]),
        ("DELETE FROM audit WHERE epoch = 1 AND position = 2", [("MISSING", "1:2")]),
        ("DELETE FROM audit WHERE epoch = 1 AND position > 1", [("MISSING", "1:2")]),
        ("DELETE FROM audit WHERE epoch = 2 AND position = 3", [("TRUNCATED", "2:2")]),
        ("DELETE FROM audit WHERE epoch = 1", [("MISSING", "1:1")]),
        ("DELETE FROM audit_epochs WHERE number = 1", [("MISSING", "1:0")]),
        ("UPDATE audit_epochs SET previous_position = 2 WHERE number = 2", [("INSERTED", "1:3"), ("CHANGED", "2:0")]),
    ],
)
def test_what_somebody_does_to_the_file_is_found(path: Path, tampering: str, expected: list[tuple[str, str]]) -> None:
    before = opened(path)
    head = before.audit_head()
    before.close()
    with sqlite3.connect(path) as connection:
        for name in tables.AUDIT_GUARDS:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(tampering)
    connection.close()
    store = opened(path)
    found = checking.check(records(store), head=head).findings
    assert [(each.fault.value, str(each.place)) for each in found] == expected
    store.close()


async def test_rows_of_an_earlier_program_become_the_first_epoch(tmp_path: Path) -> None:
    old = {"at": "2025-12-01T10:00:00.000000+00:00", "actor": "ann", "action": "node.cordon", "subject": "n1"}
    test_migrations._write_at(tmp_path / "store", "0007", "audit", {**old, "reason": "new disk"})
    with sqlite3.connect(tmp_path / "store") as connection:
        names = "at, actor, action, subject, reason"
        more = f"INSERT INTO audit ({names}) SELECT {names.replace('action', '?')} FROM audit LIMIT 1"  # noqa: S608  # ours
        for number in range(2_500):
            connection.execute(more, (str(number),))
    connection.close()
    store = opened(tmp_path / "store")
    assert len(places(store)) == 2_502
    first, second, *_ = store.read(lambda connection: reading.audit(connection, "n1"))
    at = datetime(2025, 12, 1, 10, tzinfo=UTC)
    assert first == chain.Entry(at, "ann", "node.cordon", "n1", "new disk", "done")
    assert second.action == "0"
    await store.commit(commit("four"))
    assert places(store)[-2:] == ["2:0", "2:1"]
    store.close()


async def test_a_store_of_an_earlier_program_without_rows_begins_with_its_first(tmp_path: Path) -> None:
    test_migrations._write_at(tmp_path / "store", "0007", "nodes", test_migrations._NODE)
    store = opened(tmp_path / "store")
    assert store.audit_head() == chain.GENESIS
    await store.commit(commit("one"))
    assert places(store) == ["1:0", "1:1"]
    store.close()


async def test_pages_go_back_from_the_newest_row_to_the_first(path: Path) -> None:
    store = opened(path)

    def page(before: chain.Place | None, subject: str = "") -> list[str]:
        found = store.read(lambda connection: audits.before(connection, before, subject, 2))
        return [str(each.head.place) for each in found]

    assert page(None) == ["2:3", "2:2"]
    assert page(chain.Place(2, 2)) == ["2:1", "1:3"]
    assert page(chain.Place(1, 1)) == []
    assert page(chain.Place(2, 2), "r-1") == ["2:1", "1:3"]
    assert page(None, "r-2") == []
    store.close()


async def test_a_head_is_passed_only_where_the_log_goes_through_it(path: Path) -> None:
    store = opened(path)
    heads = [each.head for each in records(store)]
    assert all(store.read(functools.partial(audits.passes, head=each)) for each in heads)
    assert store.read(lambda connection: audits.passes(connection, chain.GENESIS))
    wrong = [
        chain.Head(each.epoch, each.position, "a" * 64) for each in (*heads, chain.Head(9, 0, ""), chain.Head(9, 9, ""))
    ]
    assert not any(store.read(functools.partial(audits.passes, head=each)) for each in wrong)
    store.close()


def a_node() -> model.Node:
    return model.Node(
        id=model.NodeId("n1"),
        labels={},
        capabilities=frozenset(),
        agent_version="0.1.0",
        fence=0,
        is_connected=False,
        last_seen_at=NOW + timedelta(seconds=1),
        components={},
    )
