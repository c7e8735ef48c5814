"""What operators declare and decide, and what operations came to: kept over a restart."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import rpds
import sqlalchemy as sa

from controller.core import model, statistics
from controller.store import database, executor, reading, rows

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_WEB, _DB = model.ComponentName("web"), model.ComponentName("db")


class Kept:
    """A store that is closed and opened before each look."""

    def __init__(self, where: database.Where) -> None:
        self._where = where
        self._store = database.Store(where, executor.InlineExecutor())

    async def write(self, **parts: object) -> reading.Snapshot:
        await self._store.commit(rows.Commit(at=_NOW, **parts))  # type: ignore[arg-type]  # names and types are the test's
        self._store.close()
        self._store = database.Store(self._where, executor.InlineExecutor())
        return self._store.read(reading.snapshot)

    def close(self) -> None:
        self._store.close()


@pytest.fixture
def kept(where: database.Where) -> Kept:
    return Kept(where)


def _node(**changes: object) -> model.Node:
    plain = model.Node(
        model.NodeId("n1"), {}, frozenset(), "0.1.0", 1, is_connected=False, last_seen_at=None, components={}
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # names and types are the test's


async def test_what_was_decided_of_a_node_is_kept(kept: Kept) -> None:
    node = _node(
        labels={"zone": "b"},
        own_labels={"zone": "a", "rack": "7"},
        set_labels={"zone": "b", "rack": ""},
        cordoned_because="disk",
        quarantined_because="odd",
        offline_since=_NOW,
    )
    assert (await kept.write(nodes=(rows.NodeWrite(node),))).nodes == (node,)
    kept.close()


async def test_of_nodes_that_are_written_together_each_keeps_what_does_not_differ(kept: Kept) -> None:
    known = [_node(id=model.NodeId(f"n{number}"), labels={"zone": "a"}, cordoned_because="disk") for number in range(4)]
    await kept.write(nodes=tuple(map(rows.NodeWrite, known)))
    after = [
        replace(known[0], fence=2),
        replace(known[1], fence=7),
        replace(known[2], labels={}, cordoned_because="", offline_since=_NOW),
        replace(known[3], conditions=(model.Condition("drift", "web", "its files were changed", _NOW),)),
    ]
    writes = map(rows.NodeWrite, after, known)
    assert sorted((await kept.write(nodes=tuple(writes))).nodes, key=lambda each: each.id) == after
    kept.close()


async def test_only_what_differs_of_a_node_is_written(kept: Kept) -> None:
    known = _node(labels={"zone": "a"}, agent_version="0.1.0")
    await kept.write(nodes=(rows.NodeWrite(known),))
    unwritten = replace(known, labels={"zone": "b"})  # as if the row said something else
    [found] = (await kept.write(nodes=(rows.NodeWrite(replace(unwritten, agent_version="0.2.0"), unwritten),))).nodes
    assert (found.labels, found.agent_version) == ({"zone": "a"}, "0.2.0")
    kept.close()


async def test_a_removed_node_goes_and_may_come_back_in_the_same_transaction(kept: Kept) -> None:
    old, new = _node(cordoned_because="disk"), _node()
    await kept.write(nodes=(rows.NodeWrite(old),))
    found = await kept.write(removed_nodes=(old.id,), nodes=(rows.NodeWrite(new),))
    assert found.nodes == (new,)
    assert (await kept.write(removed_nodes=(old.id,))).nodes == ()
    kept.close()


async def test_a_declaration_takes_the_place_of_the_one_before_for_its_component_alone(kept: Kept) -> None:
    edges = tuple(
        model.Edge(_WEB, "", version, cost=cost) for version, cost in (("1.1.0", 3), ("1.0.0", 2), ("1.2.0", 1))
    )
    barrier = model.Barrier(_WEB, "1.1.0", timedelta(hours=1))
    other = model.Edge(_DB, ">=1.0.0", "2.0.0", methods=frozenset({model.Method.RESTART}), condition="node.connected")
    await kept.write(declarations=(rows.Declaration(_WEB, edges, (barrier,)), rows.Declaration(_DB, (other,), ())))
    found = await kept.write()
    assert (found.graph.edges, found.graph.barriers) == ((other, *edges), (barrier,))
    found = await kept.write(declarations=(rows.Declaration(_WEB, edges[:1], ()),))
    assert (found.graph.edges, found.graph.barriers) == ((other, edges[0]), ())
    kept.close()


async def test_channels_move_blocks_are_lifted_and_freezes_end(kept: Kept) -> None:
    stable = model.Channel(_WEB, "stable", "1.0.0", _NOW, "ann")
    block = rows.Block(_WEB, "1.1.0", "it leaks", "ann", _NOW)
    freeze = model.Freeze(model.FreezeId("f-1"), "zone=a", _NOW, None, "audit", "ann", is_emergency=True)
    found = await kept.write(channels=(stable,), blocks=(block,), freezes=(freeze,))
    assert (found.graph.channels, found.blocks, found.freezes) == ((stable,), (block,), (freeze,))
    moved = replace(stable, version="1.1.0")
    found = await kept.write(channels=(moved,), unblocked=((_WEB, "1.1.0"),), lifted=(freeze.id,))
    assert (found.graph.channels, found.blocks, found.freezes) == ((moved,), (), ())
    kept.close()


async def test_an_outcome_is_stored_once_and_the_totals_are_the_last_ones(kept: Kept) -> None:
    first = model.Outcome(
        model.OperationId("o2"),
        model.NodeId("n1"),
        _WEB,
        "1.0.0",
        "1.1.0",
        model.Method.HOT_SWAP,
        "",
        is_success=True,
        is_version_fault=False,
        duration=timedelta(seconds=9),
        at=_NOW,
    )
    earlier = replace(first, operation_id=model.OperationId("o1"), at=_NOW - timedelta(seconds=1))
    await kept.write(outcomes=(first, earlier), totals=statistics.Totals(completed=1), refused=2)
    found = await kept.write(outcomes=(replace(first, is_success=False),))
    assert found.outcomes == (earlier, first)
    assert (found.totals, found.refused) == (statistics.Totals(completed=1), 2)
    kept.close()


def _rollout(revision: int, plan: model.Plan) -> model.Rollout:
    changes = (model.Progress(change, wave.index) for wave in plan.waves for change in wave.changes)
    return model.Rollout(
        id=model.RolloutId("r"),
        request=model.UpgradeRequest(_WEB, "1.1.0", model.Strategy.IMMEDIATE, also=(model.Target(_DB, "2.0.0"),)),
        plan=plan,
        state=model.RolloutState.PENDING,
        actor="ann",
        created_at=_NOW,
        changes=rpds.HashTrieMap({each.key: each for each in changes}),
        revision=revision,
    )


def _plan(*nodes: str) -> model.Plan:
    digest = model.Digest("sha256:a")
    changes = tuple(
        model.Change(
            model.NodeId(node),
            _WEB,
            model.ChangeKind.INSTALL,
            model.Method.RESTART,
            "",
            model.Digest(""),
            "1.1.0",
            digest,
        )
        for node in nodes
    )
    return model.Plan(" ".join(nodes), (model.Wave(1, is_canary=False, changes=changes),), ())


async def test_a_rollout_that_was_planned_anew_has_the_changes_of_its_new_plan_alone(kept: Kept) -> None:
    lease = rows.Lease(model.RolloutId("r"), 1, "c")
    old, new = _rollout(0, _plan("n1", "n2")), _rollout(1, _plan("n2", "n3"))
    await kept.write(rollouts=(rows.RolloutWrite(old, None, lease, tuple(old.changes)),))
    found = await kept.write(rollouts=(rows.RolloutWrite(new, 0, lease, (), is_replanned=True),))
    assert found.rollouts == ((new, lease),)
    kept.close()


async def test_a_change_that_a_rollout_no_longer_has_goes_with_its_row(kept: Kept) -> None:
    lease = rows.Lease(model.RolloutId("r"), 1, "c")
    old = _rollout(0, _plan("n1", "n2"))
    key = next(each for each in old.changes if each.node_id == "n1")
    new = replace(old, revision=1, changes=old.changes.discard(key))
    await kept.write(rollouts=(rows.RolloutWrite(old, None, lease, tuple(old.changes)),))
    found = await kept.write(rollouts=(rows.RolloutWrite(new, 0, lease, (key,)),))
    assert [set(each.changes) for each, _ in found.rollouts] == [set(new.changes)]
    kept.close()


def _ended(connection: sa.Connection, component: str, states: set[model.RolloutState]) -> tuple[model.RolloutId, ...]:
    return reading.ended_rollout_ids(connection, component, states, 1)


async def test_what_stands_against_nodes_of_a_rollout_is_kept_row_by_row(kept: Kept) -> None:
    lease, ill, well = rows.Lease(model.RolloutId("r"), 1, "c"), model.NodeId("n1"), model.NodeId("n2")
    old = replace(_rollout(0, _plan()), standings=rpds.HashTrieMap({ill: model.Standing(down="ill")}))
    await kept.write(rollouts=(rows.RolloutWrite(old, None, lease, (), (ill,)),))
    found = await kept.write(rollouts=(rows.RolloutWrite(replace(old, revision=1), 0, lease, ()),))
    assert [each.standings for each, _ in found.rollouts] == [old.standings]
    frozen = rpds.HashTrieMap({well: model.Standing(frozen="audit")})
    new = replace(old, revision=2, standings=frozen)
    found = await kept.write(rollouts=(rows.RolloutWrite(new, 1, lease, (), (ill, well)),))
    assert [each.standings for each, _ in found.rollouts] == [frozen]
    kept.close()


async def test_an_approval_is_kept_with_its_rollout_and_changes_only_with_a_decision(kept: Kept) -> None:
    lease, until = rows.Lease(model.RolloutId("r"), 1, "c"), _NOW + timedelta(hours=1)
    asked = model.Approval(lease.rollout_id, "up", "web 1.1.0", "f", "ann", _NOW, until)
    old = replace(_rollout(0, _plan()), approval=asked)
    await kept.write(rollouts=(rows.RolloutWrite(old, None, lease, ()),))
    given = replace(asked, state=model.ApprovalState.APPROVED, decider="bob", decided_at=_NOW)
    # What a step did not decide is not written.
    found = await kept.write(rollouts=(rows.RolloutWrite(replace(old, revision=1, approval=given), 0, lease, ()),))
    assert [each.approval for each, _ in found.rollouts] == [asked]
    new = replace(old, revision=2, approval=given)
    found = await kept.write(rollouts=(rows.RolloutWrite(new, 1, lease, (), is_decided=True),))
    assert [each for each, _ in found.rollouts] == [new]
    plain = rows.Lease(model.RolloutId("q"), 1, "c")
    await kept.write(rollouts=(rows.RolloutWrite(replace(_rollout(0, _plan()), id=plain.rollout_id), None, plain, ()),))
    everything = frozenset(model.ApprovalState)
    assert kept._store.read(lambda each: reading.approvals(each, everything, 10)) == (given,)
    assert kept._store.read(lambda each: reading.approvals(each, {asked.state}, 10)) == ()
    kept.close()


async def test_a_rollout_is_found_by_each_component_and_by_each_node_of_it(kept: Kept) -> None:
    lease = rows.Lease(model.RolloutId("r"), 1, "c")
    ended = replace(_rollout(0, _plan("n1")), state=model.RolloutState.FAILED)
    await kept.write(rollouts=(rows.RolloutWrite(ended, None, lease, tuple(ended.changes)),))
    store, failed = kept._store, {model.RolloutState.FAILED}
    for component in (_WEB, _DB):
        found = store.read(functools.partial(_ended, component=component, states=failed))
        assert found == ("r",)
    assert store.read(lambda each: reading.latest_rollout_of(each, model.NodeId("n1"))) == ended
    assert store.read(lambda each: reading.latest_rollout_of(each, model.NodeId("n2"))) is None
    kept.close()
