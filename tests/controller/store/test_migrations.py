"""Stores that an earlier program wrote: they open, and lack nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import alembic.command
import alembic.config
import rpds
import sqlalchemy as sa

from controller.config import stores
from controller.core import model
from controller.store import codec, database, executor, forms, migration, reading, rows

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_NODE: dict[str, Any] = {
    "node_id": "n1",
    "fence": 3,
    "agent_version": "0.1.0",
    "labels": codec.encode({"zone": "a"}, dict[str, str]),
    "capabilities": codec.encode(frozenset(), frozenset[str]),
    "components": codec.encode({}, dict[model.ComponentName, model.InstalledComponent]),
    "bad_digests": codec.encode({}, dict[model.Digest, str]),
}
_REQUEST = model.UpgradeRequest(model.ComponentName("web"), "1.1.0", model.Strategy.IMMEDIATE, name="up")


def _write_at(where: database.Where, revision: str, table: str, row: dict[str, Any]) -> None:
    """Make a store as the program of a revision had it, with one row in it."""
    engine = sa.create_engine(where.url.reveal() if isinstance(where, stores.PostgreSQL) else f"sqlite:///{where}")
    with engine.begin() as connection:
        config = alembic.config.Config()
        config.set_main_option("script_location", str(migration._SCRIPTS))
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, revision)
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)  # noqa: S608 a test's own words
    engine.dispose()


async def test_nodes_that_were_stored_before_there_were_conditions_are_read_and_have_none(bare: database.Where) -> None:
    _write_at(bare, "0001", "nodes", _NODE)
    store = database.Store(bare, executor.InlineExecutor())
    [found] = store.read(reading.snapshot).nodes
    assert found.conditions == ()
    drifted = replace(found, conditions=(model.Condition("drift", "web", "its files were changed", _NOW),))
    await store.commit(rows.Commit(at=_NOW, nodes=(rows.NodeWrite(drifted, replaces=found),)))
    assert store.read(reading.snapshot).nodes == (drifted,)
    store.close()


def test_nodes_of_an_earlier_program_have_the_labels_that_they_had_as_their_own(bare: database.Where) -> None:
    _write_at(bare, "0002", "nodes", _NODE)
    store = database.Store(bare, executor.InlineExecutor())
    [found] = store.read(reading.snapshot).nodes
    assert (found.labels, found.own_labels, found.set_labels) == ({"zone": "a"}, {"zone": "a"}, {})
    assert (found.cordoned_because, found.quarantined_because, found.offline_since) == ("", "", None)
    store.close()


def test_rollouts_of_an_earlier_program_are_found_by_their_component(bare: database.Where) -> None:
    row = {
        "rollout_id": "r-1",
        "name": "up",
        "state": "SUCCEEDED",
        "is_terminal": True,
        "revision": 7,
        "request": codec.encode(_REQUEST, model.UpgradeRequest),
        "plan": "",
        "head": "",
    }
    _write_at(bare, "0002", "rollouts", row)
    store = database.Store(bare, executor.InlineExecutor())

    def found(component: str, state: model.RolloutState) -> tuple[model.RolloutId, ...]:
        return store.read(lambda connection: reading.ended_rollout_ids(connection, component, {state}, 10))

    assert found("web", model.RolloutState.SUCCEEDED) == ("r-1",)
    assert found("we", model.RolloutState.SUCCEEDED) == ()
    assert found("web", model.RolloutState.FAILED) == ()
    store.close()


def test_rollouts_of_an_earlier_program_wait_for_no_approval(bare: database.Where) -> None:
    plan = model.Plan("f", (), ())
    kept = model.Rollout(
        model.RolloutId("r-1"), _REQUEST, plan, model.RolloutState.PENDING, "ann", _NOW, rpds.HashTrieMap()
    )
    row = {
        "rollout_id": "r-1",
        "name": "up",
        "state": "PENDING",
        "is_terminal": False,
        "revision": 0,
        "request": codec.encode(_REQUEST, model.UpgradeRequest, without=frozenset({"approval_deadline"})),
        "plan": codec.encode(plan, model.Plan),
        "head": codec.encode(kept, model.Rollout, without=forms.ELSEWHERE),
        "components": " web ",
    }
    _write_at(bare, "0003", "rollouts", row)
    store = database.Store(bare, executor.InlineExecutor())
    assert store.read(lambda connection: reading.rollout(connection, "up")) == kept
    assert store.read(lambda connection: reading.approvals(connection, model.ApprovalState, 10)) == ()
    store.close()
