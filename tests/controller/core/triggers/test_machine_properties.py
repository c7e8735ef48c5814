"""What no sequence of events may bring about in a trigger, and what every sequence must lead to.

``INSTAR_EXAMPLES`` says how many lives are looked at.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings, stateful
from hypothesis import strategies as st

from controller.core import errors, model, windows
from controller.core.triggers import events, explaining, machine, raising, signals
from tests.controller.core import scenario
from tests.controller.core.triggers import definitions, lives
from tests.controller.core.triggers.lives import HOUR, MINUTE, SECOND

pytestmark = pytest.mark.core

EXAMPLES = int(os.environ.get("INSTAR_EXAMPLES", "100"))
TICKS_MAX = 100  # at one instant, or for each open firing until all are at their ends
SPANS = (SECOND, 10 * SECOND, 30 * SECOND, 61 * SECOND, 5 * MINUTE, 10 * MINUTE, 59 * MINUTE, HOUR, 5 * HOUR, 25 * HOUR)
F, P, A = model.FiringState, model.ConflictPolicy, model.ApprovalState

spans = st.sampled_from(SPANS)
people = st.sampled_from(lives.PEOPLE)
bools = st.booleans()
looks = st.sampled_from((True, True, True, False, False, None))
guard_changes = st.fixed_dictionaries(
    {
        "cooldown": st.sampled_from((timedelta(0), MINUTE, 10 * MINUTE)),
        "firings_per_hour_max": st.sampled_from((1, 2, 100)),
        "concurrency": st.sampled_from(P),
        "approval": st.sampled_from(lives.APPROVALS),
        "held_max": st.sampled_from((MINUTE, HOUR, 24 * HOUR)),
        "windows": st.sampled_from(lives.WINDOWS),
    }
)


class Witness:
    """Remembers every firing, and what the contract counts, by the true time."""

    def __init__(self) -> None:
        self.firings: dict[int, model.Firing] = {}
        self.releases: list[timedelta] = []
        self.failures: list[timedelta] = []
        self.begun: Counter[int] = Counter()
        self.decisions: Counter[int] = Counter()

    def see(self, taken: lives.Taken, passed: timedelta) -> None:
        if is_failure(taken):
            self.failures.append(passed)
        for each in sorted(taken.decision.firings, key=lambda one: one.number):
            self._see_firing(taken, self.firings.get(each.number), each, passed)
        for each in taken.decision.acts:
            self._see_act(taken, each)

    def _see_firing(
        self, taken: lives.Taken, before: model.Firing | None, after: model.Firing, passed: timedelta
    ) -> None:
        assert after != before, "what is told of has changed"
        assert before is None or before.is_open, "what is at its end stays there"
        assert before is not None or after.number == len(self.firings) + 1, "no number is left out"
        if before is not None and after.state is F.DROPPED:
            # The word that it failed may come at the instant of the occasion that takes its place.
            has_failed = isinstance(taken.event, events.ActFailed) and taken.event.firing_id == before.id
            assert has_failed or not is_under_way(before), "what has begun is not dropped"
        if after.released_at is not None and (before is None or before.released_at is None):
            self._see_release(taken, passed)
        self.firings[after.number] = after

    def _see_release(self, taken: lives.Taken, passed: timedelta) -> None:
        known = taken.trigger.guards
        for earlier in (*self.releases, *self.failures):
            assert passed - earlier >= known.cooldown, "the cooldown is over"
        assert sum(passed - each < HOUR for each in self.releases) < known.firings_per_hour_max, "the cap holds"
        assert not taken.around.frozen_because, "nothing is released in a freeze"
        self.releases.append(passed)

    def _see_act(self, taken: lives.Taken, firing: model.Firing) -> None:
        self.begun[firing.number] += 1
        assert self.begun[firing.number] == firing.attempts <= 3
        assert firing.state is F.ACTING
        assert firing.does is not model.TriggerActionKind.NOTIFY
        assert taken.trigger.is_enabled
        assert not taken.around.frozen_because
        assert windows.opens_at(taken.trigger.guards.windows, taken.at) == taken.at
        is_asked = taken.trigger.guards.approval is not None
        assert not is_asked or (firing.approval is not None and firing.approval.state is A.APPROVED)


def is_failure(taken: lives.Taken) -> bool:
    match taken.event:
        case events.ActFailed():
            return True
        case events.EvaluationFailed():
            return taken.trigger.is_enabled
        case events.RolloutEnded(firing_id=firing_id):
            return any(each.id == firing_id and each.state is F.FAILED for each in taken.decision.firings)
        case _:
            return False


def is_under_way(firing: model.Firing) -> bool:
    """Tell whether somebody was asked to act, and has not said that it failed; or a rollout runs."""
    return firing.state is F.RUNNING or (firing.state is F.ACTING and firing.next_try_at is None)


def without_sights(status: model.TriggerStatus) -> tuple[object, ...]:
    """Give what is remembered, but for when nodes were last seen."""
    known = {node: replace(each, seen_at=each.since) for node, each in status.signals.items()}
    return known, replace(status, signals=type(status.signals)())


class Lives(stateful.RuleBasedStateMachine):
    @stateful.initialize(
        when=st.sampled_from(lives.WHEN),
        action=st.sampled_from(lives.DOES),
        changes=guard_changes,
        is_enabled=st.sampled_from((True, True, True, False)),
    )
    def begin(
        self, when: model.When, action: model.TriggerAction, changes: dict[str, object], *, is_enabled: bool
    ) -> None:
        trigger = lives.guarded(definitions.trigger(when, action), **changes)
        self.life = lives.Life(replace(trigger, is_enabled=is_enabled))
        self.witness = Witness()
        self.has_superseded = trigger.guards.concurrency is P.SUPERSEDE
        self.somebody_fires_it("ann")

    # What may happen.

    @stateful.rule(span=spans)
    def time_passes(self, span: timedelta) -> None:
        """With ticks where they are asked for."""
        until = self.life.passed + span
        for _ in range(TICKS_MAX):
            due_at = machine.next_deadline(self.life.trigger, self.life.status, self.life.around)
            if due_at is None or self.life.passed + (due_at - self.life.at) > until:
                break
            before = self.life.status
            self.life.passed += max(timedelta(0), due_at - self.life.at)
            self._feed(events.Tick(self.life.at))
            assert self.life.status != before, "a deadline is one at which something changes"
        else:
            assert isinstance(self.life.trigger.when, model.Schedule), "only a schedule is due again and again"
        self.life.passed = max(until, self.life.passed)

    @stateful.rule(span=spans)
    def nobody_looks_for_a_while(self, span: timedelta) -> None:
        self.life.passed += span
        self._feed(events.Tick(self.life.at))

    @stateful.rule(span=spans)
    def the_clock_is_set_back(self, span: timedelta) -> None:
        self.life.set_back += span
        self._feed(events.Tick(self.life.at))

    @stateful.rule(span=spans, later=spans)
    def the_clock_is_set_back_unseen(self, span: timedelta, later: timedelta) -> None:
        self.life.set_back += span
        self.life.passed += later

    @stateful.rule()
    def the_controller_starts_again(self) -> None:
        self.life.restart()

    @stateful.precondition(lambda self: isinstance(self.life.trigger.when, model.Threshold))
    @stateful.rule(seen=st.lists(st.tuples(st.sampled_from(lives.NODES), looks), min_size=1, max_size=12))
    def heartbeats_come(self, seen: list[tuple[model.NodeId, bool | None]]) -> None:
        for node_id, is_met in seen:
            self.life.passed += 5 * SECOND
            is_quiet = machine.is_quiet(self.life.status, node_id, is_met=is_met)
            before = self.life.status
            self._feed(events.Seen(self.life.at, node_id, is_met, None if is_met is None else not is_met))
            assert not is_quiet or self.life.status.signals == before.signals, "what is quiet changes nothing"

    @stateful.rule(node_id=st.sampled_from((None, *lives.NODES)), is_met=looks)
    def the_monitor_looks(self, node_id: model.NodeId | None, *, is_met: bool | None) -> None:
        self._feed(events.Looked(self.life.at, node_id, is_met))

    @stateful.rule(node_id=st.sampled_from(lives.NODES))
    def a_node_is_removed(self, node_id: model.NodeId) -> None:
        self._feed(events.Gone(self.life.at, node_id))

    @stateful.rule(later=st.sampled_from((timedelta(0), *SPANS[:4])))
    def an_event_comes(self, later: timedelta) -> None:
        self.life.passed += later
        self._feed(events.Arrived(self.life.at, model.ReceivedEvent("ci", "e", "build.done")))

    @stateful.rule(version=st.sampled_from(lives.VERSIONS))
    def a_version_is_available(self, version: str) -> None:
        self._feed(events.Moved(self.life.at, version))

    @stateful.rule(actor=people)
    def somebody_fires_it(self, actor: str) -> None:
        event = events.FiredByHand(self.life.at, actor, "")
        found = self._explained()
        if not self.life.trigger.is_enabled:
            self._refused(event)
            return
        self._feed(event)
        is_released = self.witness.firings[self.life.status.number].released_at is not None
        is_free = all(each.is_open for each in found.guards if each.name != "approval")
        assert is_released is is_free, "the guards stand as they are said to"

    @stateful.precondition(lambda self: self.life.status.open)
    @stateful.rule()
    def somebody_waits_for_the_next_chance(self) -> None:
        self._feed(events.Tick(self.life.at))  # else the clock may have been set back, and nobody knows
        if not self.life.status.open:
            return
        first, chance_at = self.life.status.open[0], self._explained().next_chance_at
        if chance_at is None or is_under_way(first) or chance_at >= first.held_until:
            return
        self.life.passed += chance_at - self.life.at
        self._feed(events.Tick(chance_at))
        after = self.witness.firings[first.number]
        assert (after.released_at, after.state) != (first.released_at, F.HELD), (
            "it is the chance that it was said to be"
        )

    @stateful.precondition(lambda self: self.life.status.open)
    @stateful.rule(data=st.data(), actor=people, is_approved=bools)
    def somebody_decides(self, data: st.DataObject, actor: str, *, is_approved: bool) -> None:
        self._decide(data.draw(st.sampled_from(self.life.status.open)), actor, is_approved=is_approved)

    @stateful.precondition(
        lambda self: bool(self.life.status.open) and self.life.status.open[0].state is F.APPROVAL_AWAITED
    )
    @stateful.rule(actor=people, is_in_time=st.sampled_from((True, True, False)))
    def somebody_approves_it_or_comes_just_too_late(self, actor: str, *, is_in_time: bool) -> None:
        firing = self.life.status.open[0]
        if firing.approval is not None and not is_in_time and firing.approval.expires_at > self.life.at:
            self.life.passed += firing.approval.expires_at - self.life.at
        self._decide(firing, actor, is_approved=True)

    @stateful.precondition(lambda self: bool(machine.outstanding(self.life.status)))
    @stateful.rule(times=st.integers(1, 4))
    def an_action_fails_again_and_again(self, times: int) -> None:
        for _ in range(times):
            for each in machine.outstanding(self.life.status):
                self._feed(events.ActFailed(self.life.at, each.id, "no_plan", "cannot plan", is_retryable=True))
            self.time_passes(span=5 * MINUTE)

    def _decide(self, firing: model.Firing, actor: str, *, is_approved: bool) -> None:
        event = events.Decided(self.life.at, firing.id, actor, "", is_approved=is_approved)
        approval, guard = firing.approval, self.life.trigger.guards.approval
        is_own = approval is not None and actor == approval.requester and (guard is None or guard.by_another)
        is_late = approval is not None and self.life.at >= approval.expires_at
        if firing.state is not F.APPROVAL_AWAITED or is_late or (is_approved and is_own):
            self._refused(event)
            return
        self._feed(event)
        self.witness.decisions[firing.number] += 1
        assert self.witness.decisions[firing.number] == 1, "an approval is used once"

    @stateful.precondition(lambda self: self.life.status.open)
    @stateful.rule(data=st.data(), result=st.sampled_from(("rollout", "nothing", "failed", "failed for good")))
    def somebody_says_what_became_of_an_action(self, data: st.DataObject, result: str) -> None:
        firing = data.draw(st.sampled_from(self.life.status.open))
        at, rollout_id = self.life.at, model.RolloutId("r") if result == "rollout" else None
        event: events.Event = events.Acted(at, firing.id, rollout_id, result)
        if result.startswith("failed"):
            event = events.ActFailed(at, firing.id, "no_plan", "cannot plan", is_retryable=result == "failed")
        if firing in machine.outstanding(self.life.status):
            self._feed(event)
        else:
            self._refused(event)

    @stateful.precondition(lambda self: self.life.status.open)
    @stateful.rule(data=st.data(), state=st.sampled_from(sorted(model.words.TERMINAL_ROLLOUT_STATES, key=str)))
    def a_rollout_ends(self, data: st.DataObject, state: model.RolloutState) -> None:
        firing = data.draw(st.sampled_from(self.life.status.open))
        event = events.RolloutEnded(self.life.at, firing.id, state, "it is over")
        if firing.state is F.RUNNING:
            self._feed(event)
        else:
            self._refused(event)

    @stateful.rule()
    def an_evaluation_fails(self) -> None:
        self._feed(events.EvaluationFailed(self.life.at, "cost_exceeded", "it costs too much"))

    @stateful.rule(is_lifted=bools)
    def a_freeze_comes_or_goes(self, *, is_lifted: bool) -> None:
        around = self.life.around
        self.life.around = type(around)() if is_lifted else type(around)("freeze f holds it")
        self._feed(events.Tick(self.life.at))

    @stateful.rule(changes=guard_changes)
    def its_guards_are_changed(self, changes: dict[str, object]) -> None:
        self._edit(lives.guarded(self.life.trigger, **changes))

    @stateful.rule(concurrency=st.sampled_from(P))
    def what_becomes_of_several_is_changed(self, concurrency: model.ConflictPolicy) -> None:
        self._edit(lives.guarded(self.life.trigger, concurrency=concurrency))

    @stateful.rule(when=st.sampled_from(lives.WHEN))
    def it_gets_another_occasion(self, when: model.When) -> None:
        self._edit(replace(self.life.trigger, when=when))

    @stateful.rule(action=st.sampled_from(lives.DOES))
    def it_gets_another_action(self, action: model.TriggerAction) -> None:
        self._edit(replace(self.life.trigger, action=action))

    @stateful.rule(is_enabled=st.sampled_from((True, True, False)))
    def it_is_enabled_or_disabled(self, *, is_enabled: bool) -> None:
        self._edit(replace(self.life.trigger, is_enabled=is_enabled))

    # What is done about it.

    def _explained(self) -> explaining.Explanation:
        return explaining.explain(self.life.trigger, self.life.status, self.life.around, self.life.at)

    def _feed(self, event: events.Event) -> None:
        taken = self.life.step(event)
        self.witness.see(taken, self.life.passed)
        new = taken.decision.status.number - taken.before.number
        assert taken.wanted is None or new == taken.wanted, "each occasion is one firing"
        if isinstance(self.life.trigger.when, model.Threshold | model.Degradation):
            is_edge = taken.decision.status.is_raised and not taken.before.is_raised
            assert new == is_edge + isinstance(event, events.FiredByHand), "a condition fires when it begins"
        for each in taken.decision.status.open:
            assert each.state is not F.HELD or self.life.at < each.held_until, "nothing is held for longer than it may"
            is_asked = each.state is F.APPROVAL_AWAITED
            assert not is_asked or (each.approval is not None and self.life.at < each.approval.expires_at)
            assert each.next_try_at is None or each.next_try_at <= self.life.at + MINUTE, (
                "no attempt waits for the past"
            )

    def _refused(self, event: events.Event) -> None:
        with pytest.raises((errors.IllegalEventError, errors.RefusedError)):
            self.life.step(event)

    def _edit(self, after: model.Trigger) -> None:
        before = self.life.trigger
        if machine.outstanding(self.life.status) and before.action != after.action:
            with pytest.raises(errors.UnavailableError):
                self.life.edit(after)
            return
        after = replace(after, revision=before.revision + 1, changed_at=self.life.at)
        self.witness.see(self.life.edit(after), self.life.passed)
        self.has_superseded |= after.guards.concurrency is P.SUPERSEDE
        is_other = before.when != after.when or before.action != after.action
        if is_other or not after.is_enabled:
            assert all(map(is_under_way, self.life.status.open)), "what has not begun is dropped with what it was for"

    @stateful.invariant()
    def no_firing_is_lost_and_none_is_there_twice(self) -> None:
        status, known = self.life.status, self.witness.firings
        assert status.number == len(known)
        assert [each.number for each in status.open] == sorted(each.number for each in known.values() if each.is_open)
        assert all(known[each.number] == each for each in status.open)
        assert len(status.open) <= raising.QUEUE_MAX
        assert {each.id for each in known.values()} == {f"t.{number}" for number in known}

    @stateful.invariant()
    def one_is_acted_upon_at_a_time(self) -> None:
        opened = self.life.status.open
        assert sum(each.state is F.ACTING for each in opened) <= 1
        assert self.has_superseded or sum(each.released_at is not None for each in opened) <= 1

    @stateful.invariant()
    def what_ended_says_what_came_of_it(self) -> None:
        for each in self.witness.firings.values():
            assert each.is_open is (each.state not in (F.SUCCEEDED, F.FAILED, F.DROPPED))
            assert each.is_open or each.next_try_at is None
            assert each.released_at is not None or each.state in (F.HELD, F.DROPPED), "nothing passes unreleased"
            waits = each.approval is not None and each.approval.state is A.WAITING
            assert waits is (each.state is F.APPROVAL_AWAITED)
            assert each.rollout_id is None or each.state in (F.RUNNING, F.SUCCEEDED, F.FAILED)
            assert each.does is not model.TriggerActionKind.NOTIFY or not each.attempts

    @stateful.invariant()
    def the_count_of_raised_nodes_is_true(self) -> None:
        status, when = self.life.status, self.life.trigger.when
        raised = sum(each.raised_at is not None for each in status.signals.values())
        assert status.raised == raised
        assert status.is_raised is (raised >= (when.nodes_min if isinstance(when, model.Threshold) else 1))

    @stateful.invariant()
    def what_is_stored_is_what_is_remembered(self) -> None:
        assert without_sights(self.life.store.read()) == without_sights(self.life.status)

    def teardown(self) -> None:
        """Whatever has happened, every firing comes to its end once what it waits for comes."""
        if not hasattr(self, "life"):
            return
        self.life.around = type(self.life.around)()
        self._edit(lives.guarded(self.life.trigger, approval=None))
        self._feed(events.Tick(self.life.at))
        if not isinstance(self.life.trigger.when, model.Schedule):
            for _ in range(TICKS_MAX * raising.QUEUE_MAX):
                if not self._goes_on():
                    break
            assert not self.life.status.open

    def _goes_on(self) -> bool:
        status, at = self.life.status, self.life.at
        if machine.outstanding(status):
            self._feed(events.Acted(at, machine.outstanding(status)[0].id, None, "done"))
            return True
        running = next((each for each in status.open if each.state is F.RUNNING), None)
        if running is not None:
            self._feed(events.RolloutEnded(at, running.id, model.RolloutState.SUCCEEDED, "it is over"))
            return True
        due_at = machine.next_deadline(self.life.trigger, status, self.life.around)
        if due_at is not None:
            self.life.passed += max(timedelta(0), due_at - at)
            self._feed(events.Tick(self.life.at))
        return due_at is not None


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=EXAMPLES, stateful_step_count=40)


WHEN = st.builds(
    lambda pending, keep: model.Threshold("c", pending_for=10 * pending * SECOND, keep_firing_for=10 * keep * SECOND),
    st.integers(0, 8),
    st.integers(0, 4),
)
SIGHTS = st.lists(st.tuples(st.integers(1, 8), st.sampled_from((True, True, True, False, None))), max_size=40)


@settings(max_examples=2 * EXAMPLES)
@given(WHEN, SIGHTS)
def test_a_node_is_raised_once_the_condition_was_seen_for_long_enough_and_until_it_was_over_for_long_enough(
    when: model.Threshold, sights: list[tuple[int, bool | None]]
) -> None:
    at, signal = scenario.START, None
    is_raised, since, seen_at = False, None, at
    for tens, is_met in sights:
        at += 10 * tens * SECOND
        signal = signals.seen(
            when, signal, events.Seen(at, lives.NODES[0], is_met, None if is_met is None else not is_met)
        )
        is_unbroken = at - seen_at <= MINUTE
        counts = is_met is (not is_raised)
        since = (since if since is not None and is_unbroken else at) if counts else None
        if since is not None and at - since >= (when.keep_firing_for if is_raised else when.pending_for):
            is_raised, since = not is_raised, None
        seen_at = at
        assert (signal is not None and signal.raised_at is not None) is is_raised
