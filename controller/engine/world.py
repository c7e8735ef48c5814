"""What the engine knows and has stored: one immutable value, replaced whole when a transaction is durable.

Rules kept: nothing here is ahead of the store; maps are persistent, so that a draft of the next world costs what it
changes. Left out: what only lives as long as a session (`presence`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import rpds

from controller.core import model
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
        claims: Which rollout a node belongs to, while it is not at its end.
        assignments: Those that hold a node or of which more is to come.
        assigned: The same by node, oldest fence first.
        steps: What was told of those.
    """

    nodes: rpds.HashTrieMap[model.NodeId, model.Node]
    sessions: rpds.HashTrieMap[model.NodeId, rows.Session]
    releases: rpds.HashTrieMap[ReleaseKey, model.Release]
    rollouts: rpds.HashTrieMap[model.RolloutId, model.Rollout]
    leases: rpds.HashTrieMap[model.RolloutId, rows.Lease]
    claims: rpds.HashTrieMap[model.NodeId, model.RolloutId]
    assignments: rpds.HashTrieMap[model.OperationId, rows.Assignment]
    assigned: rpds.HashTrieMap[model.NodeId, tuple[model.OperationId, ...]]
    steps: rpds.HashTrieMap[model.OperationId, rpds.HashTrieMap[int, model.StepRecord]]

    def with_rollout(self, rollout: model.Rollout, lease: rows.Lease) -> World:
        """Put a rollout in; one that is at its end goes, and lets its nodes go."""
        if rollout.state.is_terminal:
            if rollout.id not in self.rollouts:
                return self
            return replace(
                self,
                rollouts=self.rollouts.discard(rollout.id),
                leases=self.leases.discard(rollout.id),
                claims=_discard(self.claims, (change.node_id for change in planned(rollout))),
            )
        if rollout.id in self.rollouts:
            return replace(self, rollouts=self.rollouts.insert(rollout.id, rollout))
        return replace(
            self,
            rollouts=self.rollouts.insert(rollout.id, rollout),
            leases=self.leases.insert(rollout.id, lease),
            claims=self.claims.update({change.node_id: rollout.id for change in planned(rollout)}),
        )

    def with_assignment(self, assignment: rows.Assignment) -> World:
        """Put an assignment in; a settled one goes, with what was told of it."""
        operation_id, node_id = assignment.operation_id, assignment.node_id
        others = tuple(each for each in self.assigned.get(node_id, ()) if each != operation_id)
        if assignment.is_settled:
            return replace(
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
        return replace(self, assignments=self.assignments.insert(operation_id, assignment), assigned=assigned)

    def with_step(self, step: model.StepRecord) -> World:
        """Put a step of an unsettled operation in."""
        told = self.steps.get(step.operation_id, rpds.HashTrieMap())
        return replace(self, steps=self.steps.insert(step.operation_id, told.insert(step.index, step)))

    def of_node(self, node_id: model.NodeId) -> tuple[rows.Assignment, ...]:
        """Return the unsettled assignments of a node, oldest fence first."""
        return tuple(self.assignments[each] for each in self.assigned.get(node_id, ()))

    def told(self, operation_id: model.OperationId) -> tuple[model.StepRecord, ...]:
        """Return the steps of an unsettled operation, in order."""
        told = self.steps.get(operation_id)
        return () if told is None else tuple(told[index] for index in sorted(told))


def from_snapshot(snapshot: reading.Snapshot, owner: str) -> World:
    """Make the world that a store holds; rollouts under somebody else's lease are left to them."""
    world = World(
        nodes=rpds.HashTrieMap((node.id, node) for node in snapshot.nodes),
        sessions=rpds.HashTrieMap((session.node_id, session) for session in snapshot.sessions),
        releases=rpds.HashTrieMap(((each.component, each.version), each) for each in snapshot.releases),
        rollouts=rpds.HashTrieMap(),
        leases=rpds.HashTrieMap(),
        claims=rpds.HashTrieMap(),
        assignments=rpds.HashTrieMap(),
        assigned=rpds.HashTrieMap(),
        steps=rpds.HashTrieMap(),
    )
    for rollout, lease in snapshot.rollouts:
        if lease.owner == owner:
            world = world.with_rollout(rollout, lease)
    for assignment in snapshot.assignments:
        world = world.with_assignment(assignment)
    for step in snapshot.steps:
        world = world.with_step(step)
    return world


def planned(rollout: model.Rollout) -> Iterable[model.Change]:
    """Yield every change of a rollout, as planned."""
    return (change for wave in rollout.plan.waves for change in wave.changes)


def _discard(values: rpds.HashTrieMap[Key, Value], keys: Iterable[Key]) -> rpds.HashTrieMap[Key, Value]:
    for key in keys:
        values = values.discard(key)
    return values
