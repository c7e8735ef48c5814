"""The audit log in the store: it goes on with each transaction, over lives and failures; nothing is taken back."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from controller.core import errors, model
from controller.core.audit import chain, checking
from controller.store import audits, database, executor, guards, reading, rows, tables
from tests import postgresql
from tests.controller.store import test_migrations

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSERT = "INTO audit SELECT epoch, {position}, at, actor, action, subject, reason, result, {previous}, 'x' FROM audit"


def entry(action: str) -> chain.Entry:
    return chain.Entry(NOW, "ann", action, "r-1", "lunch")


def commit(*actions: str, **more: Any) -> rows.Commit:  # noqa: ANN401  # whatever a commit has
    return rows.Commit(at=NOW, audit=tuple(map(entry, actions)), **more)


def opened(where: database.Where) -> database.Store:
    return database.Store(where, executor.InlineExecutor())


def records(store: database.Store, limit: int = 2) -> list[chain.Record]:
    found, place = list[chain.Record](), chain.GENESIS.place
    while some := store.read(functools.partial(audits.following, place=place, limit=limit)):
        found += some
        place = found[-1].head.place
    return found


def places(store: database.Store) -> list[str]:
    """Where something stands; the chain must be whole up to the head."""
    found = records(store)
    assert checking.check(found, head=store.audit_head()).findings == ()
    return [str(each.head.place) for each in found]


@pytest.fixture
async def told(where: database.Where) -> database.Where:
    """A store that two lives have written to, closed."""
    for _ in range(2):
        store = opened(where)
        await store.commit(commit("one", "two"))
        await store.commit(commit("three"))
        store.close()
    return where


async def test_each_life_has_an_epoch_that_seals_the_one_before(told: database.Where) -> None:
    store = opened(told)
    assert places(store) == ["1:0", "1:1", "1:2", "1:3", "2:0", "2:1", "2:2", "2:3"]
    await store.commit(commit("four"))
    assert places(store)[-2:] == ["3:0", "3:1"]
    second, third = (store.read(functools.partial(audits.epoch_of, number=number)) for number in (2, 3))
    assert second is not None
    assert third is not None
    assert (str(second.previous.place), str(third.previous.place)) == ("1:3", "2:3")
    store.close()


async def test_a_life_that_does_nothing_has_no_epoch_and_reads_the_head_that_is_there(told: database.Where) -> None:
    store = opened(told)
    await store.commit(rows.Commit(at=NOW))
    assert str(store.audit_head().place) == "2:3"
    store.close()
    empty = opened(None)
    assert empty.audit_head() == chain.GENESIS
    empty.close()


async def test_a_transaction_that_fails_leaves_no_row_and_the_next_one_goes_on_where_the_log_was(
    told: database.Where,
) -> None:
    store = opened(told)
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


async def test_a_first_transaction_that_fails_begins_no_epoch(told: database.Where) -> None:
    store = opened(told)
    node = a_node()
    await store.commit(rows.Commit(at=NOW, nodes=(rows.NodeWrite(node),)))
    with pytest.raises(sa.exc.IntegrityError):
        await store.commit(commit("lost", nodes=(rows.NodeWrite(node),)))
    assert str(store.audit_head().place) == "2:3"
    await store.commit(commit("kept"))
    assert places(store)[-2:] == ["3:0", "3:1"]
    store.close()


async def test_a_transaction_that_was_durable_though_it_failed_is_gone_on_from(
    told: database.Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(told)
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


REFUSED = [
    "DELETE FROM audit",
    "DELETE FROM audit WHERE epoch = 2 AND position = 3",
    "UPDATE audit SET reason = 'dinner'",
    "DELETE FROM audit_epochs",
    "UPDATE audit_epochs SET started_at = ''",
    "INSERT INTO audit_epochs SELECT 7, started_at, 2, 3, hash, 'x' FROM audit_epochs WHERE number = 2",
    "INSERT " + INSERT.format(position=4, previous="previous_hash") + " WHERE epoch = 2 AND position = 3",
    "INSERT " + INSERT.format(position=9, previous="hash") + " WHERE epoch = 2 AND position = 3",
    "INSERT " + INSERT.format(position=4, previous="hash") + " WHERE epoch = 1 AND position = 3",
    "INSERT " + INSERT.format(position=0, previous="hash") + " WHERE epoch = 2 AND position = 3",
]
REFUSED_BY_SQLITE = [
    "UPDATE OR REPLACE audit SET position = 2 WHERE position = 3",
    "INSERT OR REPLACE INTO audit_epochs SELECT * FROM audit_epochs",
    "INSERT OR REPLACE " + INSERT.format(position="position", previous="previous_hash"),
]
REFUSED_BY_POSTGRESQL = [
    "TRUNCATE audit",
    "TRUNCATE audit_epochs CASCADE",
    "INSERT INTO audit_epochs SELECT * FROM audit_epochs ON CONFLICT (number) DO UPDATE SET hash = 'x'",
    "MERGE INTO audit USING audit_epochs ON audit.epoch = number WHEN MATCHED THEN DELETE",
    "INSERT "
    + INSERT.format(position="position", previous="previous_hash")
    + " ON CONFLICT (epoch, position) DO UPDATE SET reason = 'dinner'",
]


async def test_the_database_itself_lets_nobody_change_the_log(told: database.Where) -> None:
    own = REFUSED_BY_SQLITE if isinstance(told, Path) else REFUSED_BY_POSTGRESQL
    before = kept(told)
    for statement in (*REFUSED, *own):
        with pytest.raises(sa.exc.IntegrityError, match=r"(an? )?audit"):
            postgresql.execute(told, statement)
        assert kept(told) == before, statement


def kept(where: database.Where) -> list[tuple[Any, ...]]:
    """All that stands in the log."""
    tables = (f"SELECT * FROM {each} ORDER BY 1, 2" for each in ("audit", "audit_epochs"))  # noqa: S608  # ours
    return [row for each in tables for row in postgresql.execute(where, each)]


async def test_a_row_that_goes_on_is_let_in(told: database.Where) -> None:
    """The guards refuse what is wrong, not everything."""
    goes_on = "INSERT " + INSERT.format(position=4, previous="hash") + " WHERE epoch = 2 AND position = 3"
    postgresql.execute(told, goes_on)


async def test_a_store_in_memory_has_the_same_guards() -> None:
    store = opened(None)
    await store.commit(commit("one"))
    with pytest.raises(sa.exc.IntegrityError, match="never deleted"):
        await store.write(lambda connection: connection.execute(sa.delete(tables.audit)))
    store.close()


async def test_the_migrations_make_the_guards_that_are_named(told: database.Where) -> None:
    if isinstance(told, Path):
        made = dict(postgresql.execute(told, "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
        assert made == {name: f"CREATE TRIGGER {name} {rule}" for name, rule in guards.AUDIT_GUARDS.items()}
        return
    made = dict(postgresql.execute(told, "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal"))
    assert made == dict.fromkeys(guards.POSTGRESQL_GUARDS, "O")
    functions = postgresql.execute(told, "SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'audit%%'")
    assert dict(functions) == guards.POSTGRESQL_FUNCTIONS


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
async def test_what_somebody_does_to_the_tables_is_found(
    told: database.Where, tampering: str, expected: list[tuple[str, str]]
) -> None:
    before = opened(told)
    head = before.audit_head()
    before.close()
    is_file = isinstance(told, Path)
    named = guards.AUDIT_GUARDS if is_file else guards.POSTGRESQL_GUARDS
    of = (
        ("" if is_file else f" ON {'audit_epochs' if 'audit_epochs' in rule else 'audit'}") for rule in named.values()
    )
    postgresql.execute(told, *(f"DROP TRIGGER {name}{table}" for name, table in zip(named, of, strict=True)), tampering)
    store = opened(told)
    found = checking.check(records(store), head=head).findings
    assert [(each.fault.value, str(each.place)) for each in found] == expected
    store.close()


async def test_rows_of_an_earlier_program_become_the_first_epoch(bare: database.Where) -> None:
    old = {"at": "2025-12-01T10:00:00.000000+00:00", "actor": "ann", "action": "node.cordon", "subject": "n1"}
    test_migrations._write_at(bare, "0007", "audit", {**old, "reason": "new disk"})
    others = ", ".join(f"('{old['at']}', 'ann', '{number}', 'n1', 'new disk')" for number in range(2_500))
    postgresql.execute(bare, f"INSERT INTO audit (at, actor, action, subject, reason) VALUES {others}")  # noqa: S608  # ours
    store = opened(bare)
    assert checking.check(whole := records(store, limit=1_000), head=store.audit_head()).findings == ()
    assert len(whole) == 2_502
    first, second, *_ = store.read(lambda connection: reading.audit(connection, "n1"))
    at = datetime(2025, 12, 1, 10, tzinfo=UTC)
    assert first == chain.Entry(at, "ann", "node.cordon", "n1", "new disk", "done")
    assert second.action == "0"
    await store.commit(commit("four"))
    assert str(store.audit_head().place) == "2:1"
    store.close()


async def test_a_store_of_an_earlier_program_without_rows_begins_with_its_first(bare: database.Where) -> None:
    test_migrations._write_at(bare, "0007", "nodes", test_migrations._NODE)
    store = opened(bare)
    assert store.audit_head() == chain.GENESIS
    await store.commit(commit("one"))
    assert places(store) == ["1:0", "1:1"]
    store.close()


async def test_a_text_with_nul_in_it_harms_nobody_and_what_is_hashed_is_what_is_stored(where: database.Where) -> None:
    store = opened(where)
    odd = chain.Entry(NOW, "a\0nn", "act", "r\0-1", "\0")
    await store.commit(rows.Commit(at=NOW, audit=(odd, entry("two")), nodes=(rows.NodeWrite(a_node()),)))
    assert places(store) == ["1:0", "1:1", "1:2"]
    assert len(store.read(lambda connection: reading.audit(connection, "r\N{REPLACEMENT CHARACTER}-1"))) == 1
    store.close()


async def test_pages_go_back_from_the_newest_row_to_the_first(told: database.Where) -> None:
    store = opened(told)

    def page(before: chain.Place | None, subject: str = "") -> list[str]:
        found = store.read(lambda connection: audits.before(connection, before, subject, 2))
        return [str(each.head.place) for each in found]

    assert page(None) == ["2:3", "2:2"]
    assert page(chain.Place(2, 2)) == ["2:1", "1:3"]
    assert page(chain.Place(1, 1)) == []
    assert page(chain.Place(2, 2), "r-1") == ["2:1", "1:3"]
    assert page(None, "r-2") == []
    store.close()


async def test_a_head_is_passed_only_where_the_log_goes_through_it(told: database.Where) -> None:
    store = opened(told)
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
