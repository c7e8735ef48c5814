"""What the controller has promised, told from its commits alone: its journal stepped again, and the world as written.

Rules kept: each step is judged by the core's own invariants on the state before it; the journal leads to what is
stored; nothing is assigned but what a step asked for, and nothing to a node that is frozen, cordoned or not trusted;
nobody gets a node that another rollout has, and nobody is overtaken in the queue; no way leads past a barrier. Left
out: what becomes of it on the nodes (`checkers`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from controller.core import effects, errors, events, invariants, model, selector, versions, windows
from controller.core import rollout as rollouts
from controller.store import rows

S = model.RolloutState
KNOWN_WITHIN = timedelta(seconds=1)  # a freeze is known to every rollout this long after it has begun
_LIVE = frozenset({S.RUNNING, S.PAUSED, S.REVERTING})


class Ledger:
    """The controller as its commits tell of it."""

    def __init__(self) -> None:
        self.rollouts: dict[model.RolloutId, model.Rollout] = {}
        self.releases: dict[str, model.Release] = {}
        self.freezes: dict[model.FreezeId, model.Freeze] = {}
        self.planned: dict[tuple[model.NodeId, model.ComponentName], set[str]] = {}
        self._nodes: dict[model.NodeId, model.Node] = {}
        self._barriers: dict[model.ComponentName, tuple[model.Barrier, ...]] = {}
        self._assigned: set[model.OperationId] = set()

    def take(self, commit: rows.Commit) -> Iterator[str]:
        """Take a commit, and name every promise that it breaks."""
        self.releases.update({each.digest: each for each in commit.releases})
        asked: dict[model.OperationId, effects.Assign] = {}
        for write in commit.rollouts:
            yield from self._replay(write, commit, asked)
        yield from self._queue(commit)
        yield from self._assignments(commit, asked)
        yield from self._lift(commit)
        self._barriers.update({each.component: each.barriers for each in commit.declarations})
        for node_id in commit.removed_nodes:
            self._nodes.pop(node_id, None)
        self._nodes.update({each.node.id: each.node for each in commit.nodes})
        self.rollouts.update({each.rollout.id: each.rollout for each in commit.rollouts})
        yield from self._claims(commit)

    # The journal.

    def _replay(
        self, write: rows.RolloutWrite, commit: rows.Commit, asked: dict[model.OperationId, effects.Assign]
    ) -> Iterator[str]:
        stored = write.rollout
        state = self.rollouts.get(stored.id)
        if state is None:
            state = rollouts.create(stored.id, stored.request, stored.plan, actor=stored.actor, at=stored.created_at)
            yield from self._plan(stored)
        happened = [each for each in commit.occurrences if each.rollout_id == stored.id]
        for each in happened:
            before = replace(state, message="") if state.state is S.PENDING else state
            try:
                decision = rollouts.step(before, each.event)
            except errors.InstarError as error:
                yield f"the journal can be played again: {stored.id} refuses {type(each.event).__name__}: {error}"
                return
            state = replace(decision.rollout, revision=each.revision)
            yield from (f"{stored.id}: {sentence}" for sentence in invariants.missteps(before, decision))
            yield from (f"{stored.id}: {sentence}" for sentence in _judge(before, decision, each.event))
            asked.update({one.operation_id: one for one in decision.effects if isinstance(one, effects.Assign)})
        if happened and stored.state is not S.PENDING and state != stored:
            yield f"the journal leads to what is stored: {stored.id} differs at revision {stored.revision}"
        if write.is_replanned:
            yield from self._plan(stored)
        for change in stored.joined:
            self._note_planned(change)

    def _plan(self, rollout: model.Rollout) -> Iterator[str]:
        """Note what a plan leads nodes to; no way leads past a barrier."""
        for wave in rollout.plan.waves:
            for change in wave.changes:
                self._note_planned(change)
                passed = [
                    each.version for each in self._barriers.get(change.component, ()) if _is_between(each, change)
                ]
                if passed:
                    yield f"no way leads past a barrier: {rollout.id} leads {change.node_id} past {passed}"

    def _note_planned(self, change: model.Change) -> None:
        known = self.planned.setdefault((change.node_id, change.component), set())
        known |= {change.from_digest, change.to_digest}

    # Who is next, and who has what.

    def _queue(self, commit: rows.Commit) -> Iterator[str]:
        begun = {each.rollout_id for each in commit.occurrences if isinstance(each.event, events.Began)}
        after = {each.rollout.id: each.rollout for each in commit.rollouts}
        waiting = [
            each
            for each in self.rollouts.values()
            if each.state is S.PENDING and after.get(each.id, each).state is S.PENDING
        ]
        for rollout_id in sorted(begun):
            first = after[rollout_id]
            for other in waiting:
                if _rank(other) < _rank(first) and _nodes(other) & _nodes(first):
                    yield f"nobody is overtaken: {rollout_id} began before {other.id}, which waits for the same nodes"

    def _claims(self, commit: rows.Commit) -> Iterator[str]:
        if not any(each.rollout.state in _LIVE for each in commit.rollouts):
            return
        owners: dict[model.NodeId, model.RolloutId] = {}
        for rollout in self.rollouts.values():
            for node_id in sorted(_nodes(rollout)) if rollout.state in _LIVE else ():
                other = owners.setdefault(node_id, rollout.id)
                if other != rollout.id:
                    yield f"a node is in one unfinished rollout at a time: {node_id} is in {other} and {rollout.id}"

    # What is given to nodes.

    def _assignments(self, commit: rows.Commit, asked: dict[model.OperationId, effects.Assign]) -> Iterator[str]:
        given = {each.operation_id: each for each in commit.assignments}
        for operation_id in asked.keys() - given.keys() - self._assigned:
            yield f"what a step asks for is given: {operation_id} is not"
        for operation_id, assignment in given.items():
            if operation_id in self._assigned:
                continue
            self._assigned.add(operation_id)
            if operation_id not in asked:
                yield f"nothing is given that no step has asked for: {operation_id} is"
            elif not asked[operation_id].is_reverting:
                yield from self._against(assignment, commit)

    def _against(self, assignment: rows.Assignment, commit: rows.Commit) -> Iterator[str]:
        """Say what stood against a change both before the commit and after it."""
        node_id = assignment.node_id
        now = {each.node.id: each.node for each in commit.nodes}
        both = [each[node_id] for each in (self._nodes, now) if node_id in each]
        if all(each.cordoned_because for each in both):
            yield f"nothing starts on a cordoned node: {assignment.operation_id}"
        if all(each.quarantined_because for each in both):
            yield f"nothing starts on a node that is not trusted: {assignment.operation_id}"
        frozen = [each.id for each in self._covering(both[-1], commit.at) if each.id not in commit.lifted]
        if frozen:
            yield f"nothing starts through a freeze: {assignment.operation_id} in {frozen[0]}"

    def _covering(self, node: model.Node, at: datetime) -> Iterator[model.Freeze]:
        for each in self.freezes.values():
            is_known = each.since + KNOWN_WITHIN <= at and (each.until is None or at < each.until)
            if is_known and selector.parse(each.selector).matches(node.labels):
                yield each

    def _lift(self, commit: rows.Commit) -> Iterator[str]:
        removed = {each.subject for each in commit.audit if each.action == "freeze.remove"}
        for freeze_id in commit.lifted:
            freeze = self.freezes.pop(freeze_id, None)
            if freeze is not None and freeze.is_emergency and freeze_id not in removed:
                yield f"only people lift the lock of an emergency: {freeze_id} is gone"
        self.freezes.update({each.id: each for each in commit.freezes})
        for each in commit.audit:
            if each.action == "rollback.emergency" and each.subject not in self.freezes:
                yield f"an emergency locks: no freeze {each.subject} came with it"


def _judge(before: model.Rollout, decision: rollouts.Decision, event: events.Event) -> Iterator[str]:
    """Judge what the core's invariants cannot see, for they do not know the event."""
    after = decision.rollout
    if isinstance(event, events.Resumed) and before.paused_at is not None:
        length = event.at - before.paused_at
        if after.stopped_for - before.stopped_for != length:
            yield f"a pause stops every clock: {length} went by, and {after.stopped_for - before.stopped_for} is noted"
        if after.wave == before.wave and after.bake_until == before.bake_until is not None:
            yield "a pause stops every clock: a bake went on"
        moved = None if before.deadline_at is None else before.deadline_at + length
        if after.state is S.RUNNING and not after.reason and after.deadline_at != moved:
            yield f"a pause stops every clock: the deadline is {after.deadline_at} and not {moved}"
    begun = [each for each in decision.effects if isinstance(each, effects.Assign) and not each.is_reverting]
    if begun and isinstance(event, events.CancelRequested):
        yield f"a cancel starts nothing more: {begun[0].operation_id} began"
    if begun and not windows.is_open(after.request.policy.windows, event.at, for_=timedelta()):
        yield f"nothing starts outside its window: {begun[0].operation_id} began"


def _is_between(barrier: model.Barrier, change: model.Change) -> bool:
    if change.kind is not model.ChangeKind.UPGRADE:
        return False
    is_above = versions.is_lower(change.from_version, barrier.version)
    return is_above and versions.is_lower(barrier.version, change.to_version)


def _rank(rollout: model.Rollout) -> tuple[int, datetime, str]:
    return -rollout.request.priority, rollout.created_at, rollout.id


def _nodes(rollout: model.Rollout) -> set[model.NodeId]:
    """Give the nodes that a rollout changes; of one that was removed nothing is wanted any more."""
    return {each.change.node_id for each in rollout.changes.values() if each.reason != "node_removed"}
