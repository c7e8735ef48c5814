"""What the engine knows and has stored: one immutable value, replaced whole when a transaction is durable.

Rules kept: nothing here is ahead of the store; maps are persistent, so that a draft of the next world costs what it
changes. Beside it stands whether a node is connected, which no store has. Left out: what else only lives as long as a
session (`presence`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import rpds

from controller.core import copying, feedback, model, statistics
from controller.core.monitoring import board as boards
from controller.engine import ways
from controller.store import reading, rows

Key = TypeVar("Key")
Value = TypeVar("Value")

ReleaseKey = tuple[model.ComponentName, str]


@dataclass(frozen=True, slots=True)
class World:
    """Everything durable that the engine acts upon.

    Args:
        rollouts: Those that are not at their end.
        leases: Those that this controller holds; it steps no other rollout.
        claims: Which rollout a node belongs to, from its begin to its end.
        concerned: Rollouts whose plan names a node, also as one that only counts, oldest first.
        assignments: Those that hold a node or of which more is to come.
        assigned: The same by node, oldest fence first.
        steps: What was told of those.
        declared: The ways between releases, as people declared them.
        blocks: Versions that nobody may go to.
        graph: The ways with the blocks on them.
        freezes: Those in force and to come.
        memory: What past operations teach.
        totals: What came of them.
        refused: Requests that were refused.
        board: How the rules of the monitor stand; None where nobody has looked since the world was read.
        triggers: By their names.
        statuses: What each of them remembers.
        signalled: Names of triggers whose condition holds on a node or has not cleared, by node.
    """

    nodes: rpds.HashTrieMap[model.NodeId, model.Node]
    sessions: rpds.HashTrieMap[model.NodeId, rows.Session]
    releases: rpds.HashTrieMap[ReleaseKey, model.Release]
    rollouts: rpds.HashTrieMap[model.RolloutId, model.Rollout]
    leases: rpds.HashTrieMap[model.RolloutId, rows.Lease]
    claims: rpds.HashTrieMap[model.NodeId, model.RolloutId]
    concerned: rpds.HashTrieMap[model.NodeId, tuple[model.RolloutId, ...]]
    assignments: rpds.HashTrieMap[model.OperationId, rows.Assignment]
    assigned: rpds.HashTrieMap[model.NodeId, tuple[model.OperationId, ...]]
    steps: rpds.HashTrieMap[model.OperationId, rpds.HashTrieMap[int, model.StepRecord]]
    declared: model.VersionGraph
    blocks: rpds.HashTrieMap[ReleaseKey, rows.Block]
    graph: model.VersionGraph
    freezes: rpds.HashTrieMap[model.FreezeId, model.Freeze]
    memory: feedback.Memory
    totals: statistics.Totals
    refused: int
    board: boards.Board | None = None
    triggers: rpds.HashTrieMap[str, model.Trigger] = field(default_factory=rpds.HashTrieMap)
    statuses: rpds.HashTrieMap[str, model.TriggerStatus] = field(default_factory=rpds.HashTrieMap)
    signalled: rpds.HashTrieMap[model.NodeId, frozenset[str]] = field(default_factory=rpds.HashTrieMap)

    def with_rollout(self, rollout: model.Rollout, lease: rows.Lease) -> World:
        """Put a rollout in; one that is at its end goes, and lets its nodes go."""
        before = self.rollouts.get(rollout.id)
        if rollout.state.is_terminal:
            return self if before is None else self._without(before)
        world = self if before is None or before.plan is rollout.plan else self._without(before)
        after = copying.replace(
            world,
            rollouts=world.rollouts.insert(rollout.id, rollout),
            leases=world.leases.insert(rollout.id, lease),
        )
        known = world.rollouts.get(rollout.id)
        return _claiming(after if known is not None else _concerning(after, rollout), known, rollout)

    def _without(self, rollout: model.Rollout) -> World:
        concerned = self.concerned
        for node_id in population(rollout):
            others = tuple(each for each in concerned.get(node_id, ()) if each != rollout.id)
            concerned = concerned.insert(node_id, others) if others else concerned.discard(node_id)
        claims = self.claims
        for change in planned(rollout):
            # A node that was removed and came back may belong to another rollout by now.
            if claims.get(change.node_id) == rollout.id:
                claims = claims.discard(change.node_id)
        return copying.replace(
            self,
            rollouts=self.rollouts.discard(rollout.id),
            leases=self.leases.discard(rollout.id),
            claims=claims,
            concerned=concerned,
        )

    def without_node(self, node_id: model.NodeId) -> World:
        """Take a node out; what is left of it is its latest session, so that the next one has another number."""
        return copying.replace(
            self,
            nodes=self.nodes.discard(node_id),
            claims=self.claims.discard(node_id),
            concerned=self.concerned.discard(node_id),
        )

    def with_graph(
        self,
        *,
        declared: model.VersionGraph | None = None,
        blocks: rpds.HashTrieMap[ReleaseKey, rows.Block] | None = None,
    ) -> World:
        """Put in what is declared of the ways, or what closes them."""
        known = self.declared if declared is None else declared
        closed = self.blocks if blocks is None else blocks
        return copying.replace(self, declared=known, blocks=closed, graph=ways.blocked(known, closed.values()))

    def with_assignment(self, assignment: rows.Assignment) -> World:
        """Put an assignment in; a settled one goes, with what was told of it."""
        operation_id, node_id = assignment.operation_id, assignment.node_id
        others = tuple(each for each in self.assigned.get(node_id, ()) if each != operation_id)
        if assignment.is_settled:
            return copying.replace(
                self,
                assignments=self.assignments.discard(operation_id),
                assigned=self.assigned.insert(node_id, others) if others else self.assigned.discard(node_id),
                steps=self.steps.discard(operation_id),
            )
        assigned = (
            self.assigned
            if operation_id in self.assignments
            else self.assigned.insert(node_id, (*others, operation_id))
        )
        return copying.replace(self, assignments=self.assignments.insert(operation_id, assignment), assigned=assigned)

    def with_step(self, step: model.StepRecord) -> World:
        """Put a step of an unsettled operation in."""
        told = self.steps.get(step.operation_id, rpds.HashTrieMap())
        return copying.replace(self, steps=self.steps.insert(step.operation_id, told.insert(step.index, step)))

    def with_trigger(
        self, trigger: model.Trigger, status: model.TriggerStatus, changed: Iterable[model.NodeId | None]
    ) -> World:
        """Put a trigger in, with what it remembers; the signals that came or went are named."""
        known, signalled = self.triggers, self.signalled
        for node_id in changed:
            if node_id is not None:
                signalled = _signalling(signalled, trigger.name, node_id, is_there=node_id in status.signals)
        return copying.replace(
            self,
            triggers=known if known.get(trigger.name) is trigger else known.insert(trigger.name, trigger),
            statuses=self.statuses.insert(trigger.name, status),
            signalled=signalled,
        )

    def without_trigger(self, name: str) -> World:
        """Take a trigger out, which has no signals any more."""
        return copying.replace(self, triggers=self.triggers.discard(name), statuses=self.statuses.discard(name))

    def of_node(self, node_id: model.NodeId) -> tuple[rows.Assignment, ...]:
        """Return the unsettled assignments of a node, oldest fence first."""
        return tuple(self.assignments[each] for each in self.assigned.get(node_id, ()))

    def told(self, operation_id: model.OperationId) -> tuple[model.StepRecord, ...]:
        """Return the steps of an unsettled operation, in order."""
        told = self.steps.get(operation_id)
        return () if told is None else tuple(told[index] for index in sorted(told))


def from_snapshot(snapshot: reading.Snapshot, owner: str, connected: Collection[model.NodeId] = frozenset()) -> World:
    """Make the world that a store holds; rollouts under somebody else's lease are left to them.

    Args:
        snapshot: What is stored.
        owner: Whose rollouts these are.
        connected: Nodes that have a live session, which no store knows.
    """
    blocks = rpds.HashTrieMap(((each.component, each.version), each) for each in snapshot.blocks)
    world = World(
        nodes=rpds.HashTrieMap((node.id, _met(node, connected)) for node in snapshot.nodes),
        sessions=rpds.HashTrieMap((session.node_id, session) for session in snapshot.sessions),
        releases=rpds.HashTrieMap(((each.component, each.version), each) for each in snapshot.releases),
        rollouts=rpds.HashTrieMap(),
        leases=rpds.HashTrieMap(),
        claims=rpds.HashTrieMap(),
        concerned=rpds.HashTrieMap(),
        assignments=rpds.HashTrieMap(),
        assigned=rpds.HashTrieMap(),
        steps=rpds.HashTrieMap(),
        declared=snapshot.graph,
        blocks=blocks,
        graph=ways.blocked(snapshot.graph, blocks.values()),
        freezes=rpds.HashTrieMap((each.id, each) for each in snapshot.freezes),
        memory=functools.reduce(feedback.record, snapshot.outcomes, feedback.Memory()),
        totals=snapshot.totals,
        refused=snapshot.refused,
    )
    for rollout, lease in snapshot.rollouts:
        if lease.owner == owner:
            world = world.with_rollout(rollout, lease)
    for row in snapshot.triggers:
        world = world.with_trigger(row.trigger, row.status, row.status.signals)
    for assignment in snapshot.assignments:
        world = world.with_assignment(assignment)
    for step in snapshot.steps:
        world = world.with_step(step)
    return world


def _signalling(
    signalled: rpds.HashTrieMap[model.NodeId, frozenset[str]], name: str, node_id: model.NodeId, *, is_there: bool
) -> rpds.HashTrieMap[model.NodeId, frozenset[str]]:
    before = signalled.get(node_id, frozenset())
    after = before | {name} if is_there else before - {name}
    return signalled.insert(node_id, after) if after else signalled.discard(node_id)


def _concerning(world: World, rollout: model.Rollout) -> World:
    concerned = world.concerned
    for node_id in population(rollout):
        concerned = concerned.insert(node_id, (*concerned.get(node_id, ()), rollout.id))
    return copying.replace(world, concerned=concerned)


def _claiming(world: World, before: model.Rollout | None, after: model.Rollout) -> World:
    """Let a rollout that has begun have its nodes; one that waits has none yet."""
    if after.state is model.RolloutState.PENDING:
        return world
    if before is None or before.state is model.RolloutState.PENDING:
        claims = world.claims.update({change.node_id: after.id for change in planned(after)})
        return copying.replace(world, claims=claims)
    if before.joined is after.joined:
        return world
    new = after.joined[len(before.joined) :]
    claims = world.claims.update({change.node_id: after.id for change in new})
    concerned = world.concerned
    for node_id in dict.fromkeys(change.node_id for change in new):
        concerned = concerned.insert(node_id, (*concerned.get(node_id, ()), after.id))
    return copying.replace(world, claims=claims, concerned=concerned)


def _met(node: model.Node, connected: Collection[model.NodeId]) -> model.Node:
    return copying.replace(node, is_connected=True) if node.id in connected else node


def planned(rollout: model.Rollout) -> Iterable[model.Change]:
    """Yield every change of a rollout, as planned, and those of nodes that joined it."""
    return itertools.chain((change for wave in rollout.plan.waves for change in wave.changes), rollout.joined)


def population(rollout: model.Rollout) -> Iterable[model.NodeId]:
    """Yield each node that a rollout is about once: those that change, and those that only count."""
    plan = rollout.plan
    others = (*plan.unchanged, *(each.node_id for each in plan.excluded))
    return dict.fromkeys(itertools.chain((change.node_id for change in planned(rollout)), others))
