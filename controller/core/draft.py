"""The next state of a rollout while one step builds it.

A draft is mutable, and so cheap, and never leaves the step that made it: values go in, values come out. It keeps the
tally in agreement with the changes; `invariants` counts again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import cast

from rpds import HashTrieMap

from controller.core import effects, gate, model, progress

_GOES_BACK = frozenset({model.RolloutState.REVERTING, model.RolloutState.REVERTED, model.RolloutState.STUCK})


@dataclass(slots=True)
class Draft:
    """A rollout in the making.

    Args:
        base: The rollout before the step.
        rollout: The rollout so far, but for its changes and its tally.
        counts: The tally so far, by the names of its fields.
        changed: The changes that the step has touched, in order.
        effects: What the step owes the world, in order.
    """

    base: model.Rollout
    rollout: model.Rollout
    changes: HashTrieMap[model.ChangeKey, model.Progress]
    counts: dict[str, int]
    changed: dict[model.ChangeKey, None] = field(default_factory=dict)
    effects: list[effects.Effect] = field(default_factory=list)

    @property
    def policy(self) -> model.Policy:
        """The numbers that were asked for."""
        return self.rollout.request.policy

    @property
    def is_going_back(self) -> bool:
        """True once touched nodes are taken back."""
        return self.rollout.state in _GOES_BACK

    @property
    def is_giving_up(self) -> bool:
        """True while a rollout that will fail waits for what holds its nodes."""
        return self.rollout.state is model.RolloutState.RUNNING and bool(self.rollout.reason)

    @property
    def wave_changes(self) -> tuple[model.Change, ...]:
        """The changes of the wave that is out."""
        return self.rollout.plan.waves[self.rollout.wave - 1].changes if self.rollout.wave else ()

    @property
    def unassigned(self) -> int:
        """Changes of the wave that have not had an operation yet."""
        return len(self.wave_changes) - self.counts["assigned"]

    @property
    def slots(self) -> int:
        """Operations that may begin now."""
        bound = self.policy.max_parallel or len(self.changes)
        return bound - self.counts["holding"] - self.counts["settling"]

    def verdict(self) -> gate.Verdict:
        """Ask the gate about the wave that is out; before the first one nothing speaks against it."""
        if not self.rollout.wave:
            return gate.Verdict(model.Gate.PROMOTE)
        return gate.decide(model.Tally(**self.counts), self.unassigned, self.policy)

    def begun(self) -> Iterator[model.Progress]:
        """Go through the changes that have had an operation, in plan order: never in the order of a hash."""
        for wave in self.rollout.plan.waves[: self.rollout.wave]:
            for change in wave.changes:
                at = self.changes[model.ChangeKey(wave.index, change.node_id, change.component)]
                if at.attempt:
                    yield at

    def put(self, after: model.Progress, at: datetime) -> None:
        """Replace one change and move the tally with it."""
        key = after.key
        before = self.changes[key]
        self.changes = self.changes.insert(key, after)
        self.changed[key] = None
        self._count(before, -1)
        self._count(after, 1)
        self._note_progress(before, after, at)
        self.advance_due(progress.due_at(after, self.rollout.judge_from))

    def _count(self, each: model.Progress, step: int) -> None:
        where = progress.place(each, is_going_back=self.is_going_back)
        if where is progress.Place.WAITING:
            return
        self.counts[where.value] += step
        if where is progress.Place.DONE and each.wave == self.rollout.wave:
            self.counts["wave_done"] += step

    def _note_progress(self, before: model.Progress, after: model.Progress, at: datetime) -> None:
        if progress.is_done(after) and not progress.is_done(before):
            self.set(progress_by=at + self.policy.progress_deadline)

    def begin(self, each: model.Progress, at: datetime) -> None:
        """Give a change its next operation."""
        after = progress.assigned(each, self.rollout.id, self.policy, at, is_reverting=self.is_going_back)
        self.put(after, at)
        self.effects.append(assign(after, self.policy))

    def recount(self) -> None:
        """Count every change anew; for a change of direction, and for nothing that happens often."""
        self.counts = dict.fromkeys(self.counts, 0) | {"assigned": self.counts["assigned"]}
        for each in self.begun():
            self._count(each, 1)

    def advance_due(self, due_at: datetime | None) -> None:
        """Let the next sweep be no later than this."""
        known = self.rollout.due_at
        if due_at is not None and (known is None or due_at < known):
            self.set(due_at=due_at)

    def set(self, **fields: object) -> None:
        """Change fields of the rollout itself."""
        self.rollout = replace(self.rollout, **fields)  # type: ignore[arg-type] # names and types are the callers'

    def finish(self) -> model.Rollout:
        """Give the state that the step leads to; the very same object where nothing changed."""
        tally = self.rollout.tally
        if self.changed or self.counts != _counts(tally):
            return replace(self.rollout, changes=self.changes, tally=model.Tally(**self.counts))
        return self.base if self.rollout == self.base else self.rollout


def open_on(rollout: model.Rollout) -> Draft:
    """Start a draft from a state."""
    return Draft(base=rollout, rollout=rollout, changes=rollout.changes, counts=_counts(rollout.tally))


def _counts(tally: model.Tally) -> dict[str, int]:
    return {
        "holding": tally.holding,
        "settling": tally.settling,
        "retrying": tally.retrying,
        "done": tally.done,
        "version_failed": tally.version_failed,
        "infrastructure_failed": tally.infrastructure_failed,
        "assigned": tally.assigned,
        "wave_done": tally.wave_done,
    }


def assign(each: model.Progress, policy: model.Policy) -> effects.Assign:
    """Say what a node is asked, for a change that has an operation."""
    assigned_at = cast("datetime", each.assigned_at)
    return effects.Assign(
        operation_id=cast("model.OperationId", each.operation_id),
        change=progress.wanted(each),
        attempt=each.attempt,
        is_reverting=each.is_reverting,
        wave=each.wave,
        policy=policy,
        # Past this the node counts as silent, and a late beginning would surprise everybody.
        start_by=assigned_at + policy.unknown_deadline,
        deadline=policy.healthy_deadline,
    )


def is_cancellable(each: model.Progress) -> bool:
    """Tell whether a change has an operation that may still be given up."""
    is_out = each.state in progress.HOLDS or each.state is model.OperationState.UNKNOWN
    return is_out and not each.is_reverting and not each.is_touched


def cancel(each: model.Progress, reason: str) -> effects.Cancel:
    """Say that an operation shall be given up."""
    return effects.Cancel(cast("model.OperationId", each.operation_id), each.change.node_id, reason)
