"""The next state of a rollout while one step builds it.

A draft is mutable, and so cheap, and never leaves the step that made it: values go in, values come out. It keeps the
tally, and who is unavailable, in agreement with the changes; `invariants` counts again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rpds import HashTrieMap

from controller.core import asking, copying, effects, gate, model, progress

_GOES_BACK = frozenset({model.RolloutState.REVERTING, model.RolloutState.REVERTED, model.RolloutState.STUCK})
_GOES_ON = frozenset({model.RolloutState.RUNNING, model.RolloutState.PAUSED})
_P = progress.Place
_ALWAYS_OUT = frozenset({_P.HOLDING, _P.SETTLING})  # whatever the operation does meanwhile
_NOWHERE = model.Standing()
_finished = copying.replacing(
    model.Rollout, "progress_by", "changes", "tally", "standings", "domains", "cursors", "ready", "unwell"
)


@dataclass(slots=True)
class Draft:
    """A rollout in the making.

    Args:
        base: The rollout before the step.
        rollout: The rollout so far, but for its changes and what else stands beside it here.
        order: Where each planned change stands.
        is_going_back: True once touched nodes are taken back.
        has_moved: A change stands elsewhere, or what keeps others from beginning has changed: there may be something
            to decide, and something to begin.
        has_ended: A change has come to its end.
        progressed_at: When a node became healthy in this step; its deadline counts from there unless it is set anew.
        moved: By how much the fields of the tally have moved since it was last read.
        freed: Nodes of which a change has come to its end, and that may have others.
        changed: The changes that the step has touched, in order, some of them more than once.
        effects: What the step owes the world, in order.
    """

    base: model.Rollout
    rollout: model.Rollout
    order: model.Order
    changes: HashTrieMap[model.ChangeKey, model.Progress]
    standings: HashTrieMap[model.NodeId, model.Standing]
    domains: Mapping[str, int]
    cursors: Mapping[str, int]
    ready: Mapping[str, tuple[int, ...]]
    unwell: tuple[int, ...]
    known_tally: model.Tally
    is_going_back: bool
    has_moved: bool = False
    has_ended: bool = False
    progressed_at: datetime | None = None
    moved: dict[str, int] = field(default_factory=dict)
    freed: dict[model.NodeId, None] = field(default_factory=dict)
    changed: list[model.ChangeKey] = field(default_factory=list)
    effects: list[effects.Effect] = field(default_factory=list)

    @property
    def policy(self) -> model.Policy:
        """The numbers that were asked for."""
        return self.rollout.request.policy

    @property
    def is_giving_up(self) -> bool:
        """True while a rollout that will fail, or was cancelled, waits for what holds its nodes."""
        return bool(self.rollout.reason) and self.rollout.state in _GOES_ON

    @property
    def is_held_by_rules(self) -> bool:
        """Whether rules of the monitor keep it from going on; what goes back is kept by nothing."""
        return bool(self.rollout.rule_holds) and not self.is_going_back

    @property
    def is_together(self) -> bool:
        """True where the nodes of a wave go through their steps together."""
        return self.rollout.request.strategy is model.Strategy.BLUE_GREEN

    @property
    def tally(self) -> model.Tally:
        """Where the changes stand so far."""
        if self.moved:
            known = self.known_tally
            after = {name: getattr(known, name) + step for name, step in self.moved.items() if step}
            self.known_tally = copying.replace(known, **after) if after else known
            self.moved.clear()
        return self.known_tally

    @property
    def last_wave(self) -> int:
        """Number of the last wave; 0 where nothing is planned."""
        return len(self.rollout.plan.waves)

    @property
    def wave_size(self) -> int:
        """Changes of the wave that is out."""
        wave = self.rollout.wave
        if not wave:
            return 0
        joined = len(self.rollout.joined) if wave == self.last_wave else 0
        return len(self.rollout.plan.waves[wave - 1].changes) + joined

    @property
    def unassigned(self) -> int:
        """Changes of the wave that wait for an operation."""
        return self.wave_size - self.tally.assigned

    def clock(self, at: datetime) -> datetime:
        """Give the instant from which deadlines count; it stands still while the rollout is paused."""
        return self.rollout.paused_at or at

    # Finding changes.

    def key(self, number: int) -> model.ChangeKey:
        """Give the key of a change; those that joined follow the planned ones."""
        keys = self.order.keys
        if number < len(keys):
            return keys[number]
        change = self.rollout.joined[number - len(keys)]
        return model.ChangeKey(self.last_wave, change.node_id, change.component)

    def of(self, number: int) -> model.Progress:
        """Give how far a change is."""
        return self.changes[self.key(number)]

    def numbers_of(self, node_id: model.NodeId) -> tuple[int, ...]:
        """Give the numbers of a node's changes, ascending."""
        planned = self.order.of_node.get(node_id, ())
        if planned or not self.rollout.joined:
            return planned
        first = len(self.order.keys)
        return tuple(number for number, change in enumerate(self.rollout.joined, first) if change.node_id == node_id)

    def numbers_in(self, wave: int) -> Iterator[int]:
        """Go through the numbers of the changes of one wave, ascending."""
        planned = itertools.chain.from_iterable(self.order.lanes[wave - 1].values())
        joined = range(len(self.order.keys), len(self.order.keys) + len(self.rollout.joined))
        yield from sorted(planned)
        yield from joined if wave == self.last_wave else ()

    def all(self) -> Iterator[model.Progress]:
        """Go through all changes, in plan order: never in the order of a hash."""
        count = len(self.order.keys) + len(self.rollout.joined)
        return (self.of(number) for number in range(count))

    def begun(self) -> Iterator[model.Progress]:
        """Go through the changes that have had an operation, in plan order."""
        reached = max(self.rollout.reached, self.rollout.wave)
        seen = itertools.takewhile(lambda each: each.wave <= reached, self.all())
        return (each for each in seen if each.attempt or each.attempts_other)

    # Changing them.

    def put(self, after: model.Progress, at: datetime) -> None:
        """Replace one change and move what is counted with it."""
        key = after.key
        self.exchange(key, self.changes[key], after, at)

    def exchange(self, key: model.ChangeKey, before: model.Progress, after: model.Progress, at: datetime) -> None:
        """Replace one change whose key and whose state before are at hand."""
        self.changes = self.changes.insert(key, after)
        self.changed.append(key)
        was = progress.place(before, is_going_back=self.is_going_back)
        where = progress.place(after, is_going_back=self.is_going_back)
        if was is not where:
            self._move_between(was, where, after)
        if self.is_going_back or self.is_together:
            self._count_details(before, was, -1)
            self._count_details(after, where, 1)
            # In a revert a slot is free again once its node fell silent, though that still counts as holding.
            self.has_moved = self.has_moved or (self.is_going_back and before.state is not after.state)
        if was not in _ALWAYS_OUT or where not in _ALWAYS_OUT:
            self._compare_availability(before, after)
        if after.is_proven and progress.is_done(after) and not progress.is_done(before):
            self._make_progress(at)
        due_at = after.deadline_at
        if due_at is not None:
            self.advance_due(due_at if after.is_judgeable else progress.due_at(after, self.rollout.judge_from))

    def _move_between(self, was: progress.Place, where: progress.Place, after: model.Progress) -> None:
        self._count(was, after.wave, -1)
        self._count(where, after.wave, 1)
        # What settles is as much out as what holds a node; only what ends asks whether anything is held.
        is_settling = was is _P.HOLDING and where is _P.SETTLING
        self.has_moved = self.has_moved or not is_settling or self.is_giving_up or self.is_going_back
        if where.is_final:
            self.has_ended = True
            if len(self.numbers_of(after.change.node_id)) > 1:
                self.freed[after.change.node_id] = None

    def _make_progress(self, at: datetime) -> None:
        if not self.rollout.is_emergency:
            self.progressed_at = self.clock(at)

    def _count(self, where: progress.Place, wave: int, step: int) -> None:
        is_present = wave == self.rollout.wave
        if where is not _P.WAITING or self.is_going_back:
            self.move(where.value, step)
        elif is_present:
            self.move("assigned", -step)
        if is_present and where is _P.DONE:
            self.move("wave_done", step)
        elif is_present and where is _P.SKIPPED:
            self.move("wave_skipped", step)

    def _count_details(self, each: model.Progress, where: progress.Place, step: int) -> None:
        if self.is_together and each.state is model.OperationState.HELD and not each.is_skipped:
            self.move("held_at_commit" if each.step is model.Step.COMMIT else "held_at_switch", step)
        if self.is_going_back and each.is_reverting and (each.state in progress.HOLDS or where is _P.SETTLING):
            self.move("undoing", step)

    def move(self, name: str, step: int) -> None:
        """Move one field of the tally."""
        self.moved[name] = self.moved.get(name, 0) + step

    def recount(self) -> None:
        """Count every change anew; for a change of direction, and for nothing that happens often."""
        tally = self.tally
        self.known_tally = model.Tally(unavailable=tally.unavailable, removed=tally.removed, assigned=self.wave_size)
        for each in self.all():
            where = progress.place(each, is_going_back=self.is_going_back)
            self._count(where, each.wave, 1)
            self._count_details(each, where, 1)

    def recount_wave(self) -> None:
        """Count what stands in the wave that is out."""
        tally = self.tally
        self.known_tally = copying.replace(tally, assigned=self.wave_size, wave_done=0, wave_skipped=0)
        where = [progress.place(self.of(number), is_going_back=False) for number in self.numbers_in(self.rollout.wave)]
        self.move("assigned", -where.count(_P.WAITING))
        self.move("wave_done", where.count(_P.DONE))
        self.move("wave_skipped", where.count(_P.SKIPPED))

    # Who is available.

    def standing(self, node_id: model.NodeId) -> model.Standing:
        """Tell what stands against a node."""
        return self.standings.get(node_id, _NOWHERE)

    def stands_against(self, node_id: model.NodeId) -> bool:
        """Tell whether nothing may start on a node; a freeze does not keep what takes nodes back."""
        known = self.standings.get(node_id)
        return known is not None and bool(known.down or (known.frozen and not self.is_going_back))

    def is_unavailable(self, node_id: model.NodeId) -> bool:
        """Tell whether a node counts as unavailable: it is down or unwell, or an operation has made it so."""
        return self.standing(node_id).is_unavailable or self.is_out(node_id)

    def is_out(self, node_id: model.NodeId) -> bool:
        """Tell whether an operation has made a node unavailable, or may have."""
        return any(progress.is_out(self.of(number)) for number in self.numbers_of(node_id))

    def set_standing(self, node_id: model.NodeId, standing: model.Standing) -> None:
        """Note what stands against a node."""
        was = self.is_unavailable(node_id)
        if standing == _NOWHERE:
            self.standings = self.standings.discard(node_id)
        else:
            self.standings = self.standings.insert(node_id, standing)
        self._move_unavailable(node_id, int(self.is_unavailable(node_id)) - int(was))

    def _compare_availability(self, before: model.Progress, each: model.Progress) -> None:
        is_out, node_id = progress.is_out(each), each.change.node_id
        is_out_all_the_same = self.standing(node_id).is_unavailable or self._is_other_out(each)
        if is_out is not progress.is_out(before) and not is_out_all_the_same:
            self._move_unavailable(node_id, 1 if is_out else -1)

    def _is_other_out(self, each: model.Progress) -> bool:
        numbers = self.numbers_of(each.change.node_id)
        return len(numbers) > 1 and any(
            progress.is_out(self.of(number)) for number in numbers if self.key(number) != each.key
        )

    def _move_unavailable(self, node_id: model.NodeId, step: int) -> None:
        if not step:
            return
        self.move("unavailable", step)
        self.has_moved = True
        domain = self.domain_of(node_id)
        if domain:
            self.domains = {**self.domains, domain: self.domains.get(domain, 0) + step}

    def domain_of(self, node_id: model.NodeId) -> str:
        """Give the failure domain of a node that changes; empty for none."""
        if not self.policy.domain_label:
            return ""
        numbers = self.numbers_of(node_id)
        return self.of(numbers[0]).change.domain if numbers else ""

    # The rollout itself.

    def verdict(self) -> gate.Verdict:
        """Ask the gate about the wave that is out; before the first one nothing speaks against it."""
        rollout, tally = self.rollout, self.tally
        if not rollout.wave:
            return gate.Verdict(model.Gate.PROMOTE)
        size = self.wave_size
        may_be_empty = False
        if tally.wave_skipped and tally.wave_skipped == size:
            is_canary = rollout.plan.waves[rollout.wave - 1].is_canary
            may_be_empty = not is_canary and bool(tally.done or rollout.wave < self.last_wave)
        return gate.decide(tally, size - tally.assigned, self.policy, may_be_empty=may_be_empty)

    def begin(self, each: model.Progress, at: datetime) -> None:
        """Give a change its next operation, in the direction of the rollout."""
        patience = at + self.policy.unknown_deadline
        # Past this the node counts as silent, and a late beginning would surprise everybody.
        start_by = patience
        if self.rollout.window_until is not None and not self.is_going_back:
            start_by = min(patience, self.rollout.window_until)
        if each.is_reverting is not self.is_going_back:
            each = progress.again(each, is_reverting=self.is_going_back)
        after = progress.assigned(each, self.rollout.id, at=at, start_by=start_by, deadline_at=patience)
        self.put(after, at)
        self.effects.append(asking.assign(after, self.rollout.request))

    def advance_due(self, due_at: datetime | None) -> None:
        """Let the next sweep be no later than this."""
        known = self.rollout.due_at
        if due_at is not None and (known is None or due_at < known):
            self.set(due_at=due_at)

    def set(self, **fields: object) -> None:
        """Change fields of the rollout itself."""
        self.rollout = copying.replace(self.rollout, **fields)
        if "progress_by" in fields:
            self.progressed_at = None
        if "state" in fields:
            self.is_going_back = self.rollout.state in _GOES_BACK

    def finish(self) -> model.Rollout:
        """Give the state that the step leads to; the very same object where nothing changed."""
        if not self.changed and self._is_as_before():
            return self.base
        by = self.rollout.progress_by
        after = _finished(
            self.rollout,
            by if self.progressed_at is None else self.progressed_at + self.policy.progress_deadline,
            self.changes,
            self.tally,
            self.standings,
            self.domains,
            self.cursors,
            self.ready,
            self.unwell,
        )
        return self.base if not self.changed and after == self.base else after

    def _is_as_before(self) -> bool:
        base = self.base
        return self.rollout is base and (self.standings, self.cursors, self.ready, self.unwell) == (
            base.standings,
            base.cursors,
            base.ready,
            base.unwell,
        )


def open_on(rollout: model.Rollout) -> Draft:
    """Start a draft from a state."""
    return Draft(
        base=rollout,
        rollout=rollout,
        order=rollout.plan.order,
        changes=rollout.changes,
        standings=rollout.standings,
        domains=rollout.domains,
        cursors=rollout.cursors,
        ready=rollout.ready,
        unwell=rollout.unwell,
        known_tally=rollout.tally,
        is_going_back=rollout.state in _GOES_BACK,
    )
