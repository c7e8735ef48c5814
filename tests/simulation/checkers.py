"""What must hold after every event, told apart from the code that should make it hold.

The controller is checked at each commit (`ledger`), a node at each message to or from it and each second; the ends of
rollouts against the disks of the nodes; orders by the marks that they leave. A violation is a sentence with the instant
at which it was seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from agent import processes
from agent.core import transitions
from controller.core import deciding, errors, invariants, model, progress, versions
from controller.store import rows
from tests.simulation import host as hosts
from tests.simulation import ledger
from tests.simulation import loop as loops

DARK_SECONDS_MAX = 30.0  # without an instance that accepts, on a host whose agent and power are there
LATE_SECONDS_MAX = 10.0  # that what is due may be late
INSTANCES_MAX = 2  # of one component
# Actions whose audit row has the reason that the order was given for.
MARKED = frozenset(
    {f"rollout.{verb}" for verb in ("pause", "resume", "promote", "retry", "revert", "cancel")}
    | {"rollback.emergency", "freeze.add", "freeze.remove", "node.cordon", "node.quarantine", "node.remove"}
)
LIVING = frozenset(processes.InstanceState) - {processes.InstanceState.EXITED, processes.InstanceState.DRAINED}


@dataclass(slots=True)
class Seen:
    """What a checker remembers of one node."""

    fence: int = 0
    known: set[str] = field(default_factory=set)
    steps: dict[str, int] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    lit_at_seconds: dict[str, float] = field(default_factory=dict)


class Clock(Protocol):
    """The controller's clock, and when somebody last set it."""

    set_at_seconds: float

    def now(self) -> datetime: ...


class Checkers:
    """The checkers of one run, and what they found."""

    def __init__(self, loop: loops.VirtualLoop, fleet: Mapping[str, hosts.Host]) -> None:
        self.violations: list[str] = []
        self.events = 0
        self.ledger = ledger.Ledger()
        self.clock: Clock
        self._asleep_at_seconds = 0.0
        self._loop = loop
        self._fleet = fleet
        self._seen = {node_id: Seen() for node_id in fleet}
        self._assigned: dict[str, dict[str, rows.Assignment]] = {node_id: {} for node_id in fleet}
        self._marks: Counter[str] = Counter()
        self._refused: set[str] = set()

    def _found(self, sentence: str) -> None:
        at = f"{self._loop.time():.3f} s: {sentence}"
        if not any(known.endswith(sentence) for known in self.violations):
            self.violations.append(at)

    def committed(self, commit: rows.Commit) -> None:
        """Check what the controller has just made durable."""
        self.events += 1
        ended = [each.rollout for each in commit.rollouts if self._has_just_ended(each.rollout)]
        for sentence in self.ledger.take(commit):
            self._found(sentence)
        for write in commit.rollouts:
            for sentence in invariants.violations(write.rollout):
                self._found(f"{write.rollout.id}: {sentence}")
        for rollout in ended:
            for sentence in self._against_end(rollout):
                self._found(f"{rollout.id}: {sentence}")
        for assignment in commit.assignments:
            self._check_assignment(assignment)
        for node_id in commit.removed_nodes:
            self._assigned[node_id].clear()  # it comes back as a new one, with the fence that it has seen
        self._note_marks(commit)

    def nobody_dies(self, dead: Iterable[str]) -> None:
        """Check that no background task of a living controller has died."""
        for each in dead:
            self._found(f"nothing dies in the background: {each}")

    def time_goes_on(self, up_since_seconds: float | None) -> None:
        """Check that no emergency outlasts its limit while a controller is up and its clock goes on."""
        if up_since_seconds is None:
            self._asleep_at_seconds = self._loop.time()
            return
        since_seconds = max(up_since_seconds, self.clock.set_at_seconds, self._asleep_at_seconds)
        if self._loop.time() - since_seconds < LATE_SECONDS_MAX:
            return
        now = self.clock.now() - hosts.seconds(LATE_SECONDS_MAX)
        for rollout in self.ledger.rollouts.values():
            until = deciding.progress_by(rollout)
            is_over = until is not None and until < now
            if rollout.is_emergency and rollout.state is model.RolloutState.REVERTING and is_over:
                self._found(f"{rollout.id}: an emergency is over within its limit: it goes on past {until}")

    # Orders.

    def _note_marks(self, commit: rows.Commit) -> None:
        named = [each.rollout.request.name for each in commit.rollouts if each.replaces is None]
        for mark in (*named, *(each.reason for each in commit.audit if each.action in MARKED)):
            self._marks[mark] += 1
            if mark in self._refused:
                self._found(f"G11 what is refused changes nothing: {mark} has left a mark")

    def refused(self, mark: str, error: errors.InstarError) -> None:
        """Check that an order which was refused has changed nothing, and was refused in due form."""
        if not (error.code and str(error).startswith("cannot")):
            self._found(f"G11 a refusal says what it is: {mark} was refused by {error!r}")
        if error.blame is not errors.Blame.CALLER:
            return  # nobody knows whether it was done
        self._refused.add(mark)
        if self._marks[mark]:
            self._found(f"G11 what is refused changes nothing: {mark} has left a mark")

    def granted(self, mark: str, *, is_marked: bool) -> None:
        """Check that an order which was granted was done, once."""
        if is_marked and self._marks[mark] != 1:
            self._found(f"what is granted is done once: {mark} has left {self._marks[mark]} marks")

    def _check_assignment(self, assignment: rows.Assignment) -> None:
        known = self._assigned[assignment.node_id]
        fences = [each.fence for each in known.values() if each.operation_id != assignment.operation_id]
        if assignment.operation_id not in known and any(fence >= assignment.fence for fence in fences):
            self._found(f"G4 a fence is raised by each assignment: {assignment.operation_id} has {assignment.fence}")
        known[assignment.operation_id] = assignment
        holding = [each.operation_id for each in known.values() if each.is_open]
        if len(holding) > 1:
            self._found(f"G4 one operation holds a node: {sorted(holding)} hold {assignment.node_id}")

    def _has_just_ended(self, rollout: model.Rollout) -> bool:
        before = self.ledger.rollouts.get(rollout.id)
        return rollout.state.is_terminal and (before is None or not before.state.is_terminal)

    def _against_end(self, rollout: model.Rollout) -> Iterator[str]:
        """Compare the end of a rollout with the disks of its nodes (G7)."""
        by_place: dict[tuple[str, str], list[model.Progress]] = {}
        for _, each in sorted(rollout.changes.items(), key=lambda item: (item[0].wave, item[0].node_id)):
            if not (each.is_skipped or each.reason == "node_removed"):
                by_place.setdefault((each.change.node_id, each.change.component), []).append(each)
        for (node_id, component), hops in by_place.items():
            pointers = self._fleet[node_id].disk.pointers(component)
            current = pointers.current if pointers else ""
            if rollout.state is model.RolloutState.SUCCEEDED and progress.is_done(hops[-1]):
                if current != hops[-1].change.to_digest:
                    yield f"G7 success is true on the node: {node_id} runs {current or 'nothing'}"
            elif rollout.state in ENDS_BACK:
                yield from _against_return(rollout, hops, current)

    def node(self, node_id: str) -> None:
        """Check one node."""
        self.events += 1
        host, seen = self._fleet[node_id], self._seen[node_id]
        pointers = host.disk.components()
        for name, at in pointers.items():
            if not (host.disk.has_release(at.current) and host.disk.has_release(at.permanent)):
                self._found(f"G1 both versions of {name} are whole: {node_id} lacks one")
            if at.current not in self.ledger.planned.get((model.NodeId(node_id), model.ComponentName(name)), ()):
                self._found(f"no digest runs that no plan named: {node_id} runs {at.current}")
            self._check_instances(host, seen, name)
        for sentence in self._against_requirements({name: at.current for name, at in pointers.items()}):
            self._found(f"at no time does a component lack what it requires: {sentence} on {node_id}")
        if host.agent is not None:
            self._check_agent(host, seen)

    def _against_requirements(self, running: Mapping[str, str]) -> Iterator[str]:
        known = {name: self.ledger.releases[digest] for name, digest in running.items()}
        for release in known.values():
            for each in release.requirements:
                found = known.get(each.component)
                if found is None or not versions.matches(found.version, each.versions):
                    has = found.version if found else "nothing"
                    yield f"{release.component} {release.version} has {has} of {each.component} {each.versions}"

    def _check_instances(self, host: hosts.Host, seen: Seen, component: str) -> None:
        instances = (each for each in host.machine.instances.values() if each.component == component)
        living = [each for each in instances if each.state in LIVING]
        if len(living) > INSTANCES_MAX:
            self._found(f"at most two instances live: {host.node_id} has {len(living)} of {component}")
        is_lit = any(each.state is processes.InstanceState.ACTIVE for each in living)
        if is_lit or not host.is_up or host.agent is None:
            seen.lit_at_seconds[component] = self._loop.time()
        elif self._loop.time() - seen.lit_at_seconds.setdefault(component, self._loop.time()) > DARK_SECONDS_MAX:
            self._found(f"G1 a node brings its component up: nothing accepts for {component} on {host.node_id}")

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


ENDS_BACK = frozenset({model.RolloutState.REVERTED, model.RolloutState.STUCK})


def _against_return(rollout: model.Rollout, hops: list[model.Progress], current: str) -> Iterator[str]:
    """Say where a node is not back on its verified point that is said to be, or is not and nobody says why."""
    first = hops[0]
    node_id = first.change.node_id
    if first.is_touched and progress.place(first, is_going_back=True) is progress.Place.DONE:
        if current != first.change.from_digest:
            yield f"what is back is back on the node: {node_id} runs {current or 'nothing'}"
    elif first.is_touched and not any(each.reason or each.message for each in hops) and rollout.reason != "revert_late":
        yield f"what is not back is explained: {node_id} runs {current or 'nothing'}"
