"""What must hold after every event, told apart from the code that should make it hold.

The controller is checked at each commit, a node at each message to or from it and each second; the ends of rollouts
against the disks of the nodes. A violation is a sentence with the instant at which it was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent import processes
from agent.core import transitions
from controller.core import invariants, model
from controller.store import rows
from tests.simulation import host as hosts
from tests.simulation import loop as loops

DARK_SECONDS_MAX = 30.0  # without an instance that accepts, on a host whose agent and power are there
INSTANCES_MAX = 2  # of one component
LIVING = frozenset(processes.InstanceState) - {processes.InstanceState.EXITED, processes.InstanceState.DRAINED}


@dataclass(slots=True)
class Seen:
    """What a checker remembers of one node."""

    fence: int = 0
    known: set[str] = field(default_factory=set)
    steps: dict[str, int] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    lit_at_seconds: float = 0.0


class Checkers:
    """The checkers of one run, and what they found."""

    def __init__(self, loop: loops.VirtualLoop, fleet: Mapping[str, hosts.Host]) -> None:
        self.violations: list[str] = []
        self.events = 0
        self._loop = loop
        self._fleet = fleet
        self._seen = {node_id: Seen() for node_id in fleet}
        self._assigned: dict[str, dict[str, rows.Assignment]] = {node_id: {} for node_id in fleet}

    def _found(self, sentence: str) -> None:
        at = f"{self._loop.time():.3f} s: {sentence}"
        if not any(known.endswith(sentence) for known in self.violations):
            self.violations.append(at)

    def committed(self, commit: rows.Commit) -> None:
        """Check what the controller has just made durable."""
        self.events += 1
        for write in commit.rollouts:
            for sentence in invariants.violations(write.rollout):
                self._found(f"{write.rollout.id}: {sentence}")
            if write.rollout.state.is_terminal:
                self._check_end(write.rollout)
        for assignment in commit.assignments:
            self._check_assignment(assignment)

    def _check_assignment(self, assignment: rows.Assignment) -> None:
        known = self._assigned[assignment.node_id]
        fences = [each.fence for each in known.values() if each.operation_id != assignment.operation_id]
        if assignment.operation_id not in known and any(fence >= assignment.fence for fence in fences):
            self._found(f"G4 a fence is raised by each assignment: {assignment.operation_id} has {assignment.fence}")
        known[assignment.operation_id] = assignment
        holding = [each.operation_id for each in known.values() if each.is_open]
        if len(holding) > 1:
            self._found(f"G4 one operation holds a node: {sorted(holding)} hold {assignment.node_id}")

    def _check_end(self, rollout: model.Rollout) -> None:
        """Compare the end of a rollout with the disks of its nodes (G7)."""
        is_strict = rollout.request.policy.max_failures == 0
        for _, each in sorted(rollout.changes.items(), key=lambda item: (item[0].wave, item[0].node_id)):
            pointers = self._fleet[each.change.node_id].disk.pointers(each.change.component)
            current = pointers.current if pointers else ""
            if rollout.state is model.RolloutState.SUCCEEDED and is_strict and current != each.change.to_digest:
                self._found(f"G7 success is true on the node: {each.change.node_id} runs {current or 'nothing'}")
            if rollout.state is model.RolloutState.REVERTED and current != each.change.from_digest:
                self._found(f"a revert covers every node: {each.change.node_id} runs {current or 'nothing'}")

    def node(self, node_id: str) -> None:
        """Check one node."""
        self.events += 1
        host, seen = self._fleet[node_id], self._seen[node_id]
        pointers = host.disk.components()
        for name, at in pointers.items():
            if not (host.disk.has_release(at.current) and host.disk.has_release(at.permanent)):
                self._found(f"G1 both versions of {name} are whole: {node_id} lacks one")
        self._check_instances(host, seen, is_installed=bool(pointers))
        if host.agent is not None:
            self._check_agent(host, seen)

    def _check_instances(self, host: hosts.Host, seen: Seen, *, is_installed: bool) -> None:
        living = [each for each in host.machine.instances.values() if each.state in LIVING]
        if len(living) > INSTANCES_MAX:
            self._found(f"at most two instances live: {host.node_id} has {len(living)}")
        is_lit = any(each.state is processes.InstanceState.ACTIVE for each in living)
        if is_lit or not is_installed or not host.is_up or host.agent is None:
            seen.lit_at_seconds = self._loop.time()
        elif self._loop.time() - seen.lit_at_seconds > DARK_SECONDS_MAX:
            self._found(f"G1 a node brings its component up: nothing accepts on {host.node_id}")

    def _check_agent(self, host: hosts.Host, seen: Seen) -> None:
        operations = host.agent._operations if host.agent else None
        if operations is None:
            return
        holders = [
            state.assignment.operation_id
            for state in operations.unfinished
            if state.phase is not transitions.Phase.SETTLING
        ]
        if len(holders) > 1:
            self._found(f"G4 one operation at a time: {host.node_id} works on {holders}")
        if operations.highest_fence < seen.fence:
            self._found(f"G4 a fence never falls: {host.node_id} went from {seen.fence} to {operations.highest_fence}")
        seen.fence = max(seen.fence, operations.highest_fence)
        unfinished = {state.assignment.operation_id for state in operations.unfinished}
        for operation_id in sorted(unfinished & seen.over):
            self._found(f"G4 nothing is carried out twice: {operation_id} began again on {host.node_id}")
        for state in operations.unfinished:
            operation_id = state.assignment.operation_id
            if state.steps_ended < seen.steps.get(operation_id, 0):
                self._found(f"G4 nothing is carried out twice: {operation_id} began anew on {host.node_id}")
            seen.steps[operation_id] = state.steps_ended
        seen.over |= seen.known - unfinished
        seen.known |= unfinished
