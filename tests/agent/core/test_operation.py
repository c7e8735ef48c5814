"""The operation machine, told as stories."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agent.core import effects, events, machine, model, operation, transitions
from tests.agent.core import stories
from tests.agent.core.stories import Story

pytestmark = pytest.mark.core
VERSION, INFRASTRUCTURE, COMMAND = model.Fault.VERSION, model.Fault.INFRASTRUCTURE, model.Fault.COMMAND
RUNNING, HELD = model.OperationState.RUNNING, model.OperationState.HELD
Step = model.Step


def test_an_upgrade_that_goes_well_runs_through_every_step_and_becomes_permanent() -> None:
    assert Story().status.state is model.OperationState.ACCEPTED
    story = Story().soaks()
    assert (story.phase, story.status.state, story.effects) == ("SOAK", RUNNING, [])
    story.seconds += 5
    assert story.is_seen().effects == ["COMMIT"]
    assert story.succeeds(Step.COMMIT).effects == ["DRAIN"]
    assert story.status.state is model.OperationState.COMMITTED
    story.succeeds(Step.DRAIN)
    assert story.is_seen(healthy_for=10).effects == ["BAKE"]
    story.succeeds(Step.BAKE)
    assert (story.phase, story.status.state) == ("PERMANENT", model.OperationState.PERMANENT)
    assert story.status.fault is None
    assert [record.step for record in story.records] == [
        *stories.STEPS_UNTIL_SOAK,
        Step.SOAK,
        Step.COMMIT,
        Step.DRAIN,
        Step.BAKE,
    ]
    assert [record.index for record in story.records] == list(range(1, 12))
    assert all(record.is_success for record in story.records)


def test_each_step_asks_for_the_next_one_only() -> None:
    story = Story().begins()
    for step in stories.STEPS_UNTIL_SOAK:
        assert story.effects == [step.value]
        assert story.status.step is step
        story.succeeds(step)


def test_a_record_spans_its_step_and_carries_its_evidence() -> None:
    story = Story().begins()
    story.seconds = 3
    story.succeeds(Step.FETCH, {"fetched_bytes": "7"})
    [record] = story.records
    assert (record.started_at, record.ended_at) == (stories.EPOCH, stories.at(3).wall)
    assert record.evidence == {"fetched_bytes": "7"}


def test_a_bake_may_pass_before_the_drain_has_ended() -> None:
    story = Story().commits().is_seen(healthy_for=10).succeeds(Step.BAKE)
    assert (story.phase, story.status.state) == ("SETTLING", model.OperationState.PERMANENT)
    assert story.succeeds(Step.DRAIN).phase == "PERMANENT"


def test_a_bake_waits_until_the_version_was_healthy_for_long_enough() -> None:
    story = Story().commits()
    assert story.is_seen(healthy_for=9.9).effects == []
    assert story.is_seen(model.Health.UNKNOWN, healthy_for=99).effects == []
    assert story.is_seen(healthy_for=10).effects == ["BAKE"]
    assert story.is_seen(healthy_for=11).effects == []


@pytest.mark.parametrize("step", [*stories.STEPS_UNTIL_SOAK])
def test_a_step_that_fails_leads_back_and_its_fault_is_told(step: model.Step) -> None:
    story = Story().reaches(step).fails(step, VERSION, "crashed")
    assert (story.phase, story.effects) == ("ABORTING", ["ABORT"])
    assert not story.records[-1].is_success
    assert story.records[-1].evidence["reason"] == "crashed"
    story.succeeds(Step.ABORT)
    assert story.status.state is model.OperationState.ABORTED
    assert (story.status.fault, story.status.reason) == (VERSION, "crashed")
    assert story.records[-1].step is Step.ABORT


@pytest.mark.parametrize(
    ("step", "phase"), [(Step.ABORT, "ABORTING"), (Step.COMMIT, "COMMIT"), (Step.DRAIN, "SETTLING")]
)
def test_what_may_not_be_given_up_is_tried_again_after_a_while(step: model.Step, phase: str) -> None:
    story = Story().soaks()
    if step is Step.ABORT:
        story.is_cancelled()
    else:
        story.seconds += 5
        story.is_seen()
    if step is Step.DRAIN:
        story.succeeds(Step.COMMIT)
    story.fails(step)
    assert story.phase == phase
    assert story.last.effects == (effects.Perform(step, machine.RETRY_SECONDS),)


def test_a_pointer_that_does_not_move_is_tried_again() -> None:
    story = Story().commits().is_seen(healthy_for=10).fails(Step.BAKE)
    assert story.last.effects == (effects.MakePermanent(machine.RETRY_SECONDS),)
    assert story.succeeds(Step.BAKE).status.state is model.OperationState.PERMANENT


def test_a_soak_ends_neither_early_nor_while_health_is_unknown() -> None:
    story = Story().soaks()
    story.seconds = 4.9
    assert story.is_seen().phase == "SOAK"
    story.seconds = 5
    assert story.is_seen(model.Health.UNKNOWN).phase == "SOAK"
    assert story.is_seen().phase == "COMMIT"


def test_a_version_that_gets_unhealthy_in_the_soak_is_undone() -> None:
    story = Story().soaks().is_seen(model.Health.UNHEALTHY)
    assert story.phase == "ABORTING"
    assert (story.status.fault, story.status.reason) == (VERSION, "health_probe_failed")


def test_a_soak_without_enough_requests_proves_nothing_and_is_undone() -> None:
    story = Story().soaks()
    story.seconds = 5
    story.is_seen(served=9)
    assert (story.phase, story.status.fault, story.status.reason) == (
        "ABORTING",
        model.Fault.INFRASTRUCTURE,
        "soak_requests_too_few",
    )


@pytest.mark.parametrize("hold", [Step.SWITCH, Step.COMMIT])
def test_a_held_operation_waits_for_the_controllers_word(hold: model.Step) -> None:
    story = Story(hold_before=hold).is_held_before(hold)
    assert (story.status.state, story.status.step, story.effects) == (HELD, hold, [])
    assert story.proceeds(hold).effects == [hold.value]
    assert story.proceeds(hold).effects == []


def test_the_word_that_ends_one_hold_names_the_next_and_said_again_changes_nothing() -> None:
    story = Story(hold_before=Step.SWITCH).is_held_before(Step.SWITCH)
    assert story.proceeds(Step.SWITCH, Step.COMMIT).effects == ["SWITCH"]
    assert (story.status.state, story.status.step) == (RUNNING, Step.SWITCH)
    story.proceeds(Step.SWITCH, Step.COMMIT).succeeds(Step.SWITCH)
    story.seconds += 5
    story.is_seen()
    assert (story.status.state, story.status.step, story.effects) == (HELD, Step.COMMIT, [])
    before = story.state
    assert story.proceeds(Step.SWITCH, None).state == before
    assert story.proceeds(Step.COMMIT).effects == ["COMMIT"]


@pytest.mark.parametrize(
    ("hold", "following"), [(Step.SWITCH, Step.SWITCH), (Step.COMMIT, Step.COMMIT), (Step.COMMIT, Step.SWITCH)]
)
@pytest.mark.parametrize("kind", [model.ChangeKind.UPGRADE, model.ChangeKind.START])
def test_a_word_that_names_a_next_hold_which_is_not_next_changes_nothing(
    kind: model.ChangeKind, hold: Step, following: Step
) -> None:
    to_digest = stories.NEW if kind is model.ChangeKind.UPGRADE else ""
    story = Story(kind=kind, to_digest=to_digest, hold_before=hold).begins()
    before = story.state
    assert story.proceeds(hold, following).state == before


def test_a_word_about_a_hold_that_does_not_stand_leaves_the_operation_where_it_waits() -> None:
    story = Story(hold_before=Step.SWITCH).is_held_before(Step.SWITCH)
    before = story.state
    assert story.proceeds(Step.COMMIT).state == before
    unheld = Story().reaches(Step.PREPARE).proceeds(Step.SWITCH, Step.COMMIT)
    assert unheld.state.assignment.hold_before is None


@pytest.mark.parametrize("step", [None, *stories.STEPS_UNTIL_SOAK[:-1]])
def test_a_word_that_comes_before_its_hold_is_remembered(step: model.Step | None) -> None:
    story = Story(hold_before=Step.SWITCH)
    if step is not None:
        story.reaches(step)
    phase = story.phase
    story.proceeds(Step.SWITCH, Step.COMMIT)
    assert (story.phase, story.effects, story.state.assignment.hold_before) == (phase, [], Step.COMMIT)
    if step is Step.PREPARE:
        assert story.succeeds(step).effects == ["SWITCH"]


@pytest.mark.parametrize("step", [Step.SWITCH, Step.SOAK])
def test_a_commit_that_is_let_go_early_is_not_held(step: model.Step) -> None:
    story = Story(hold_before=Step.COMMIT).reaches(step).proceeds(Step.COMMIT)
    if step is Step.SWITCH:
        story.succeeds(step)
    story.seconds = 5
    assert story.is_seen().effects == ["COMMIT"]


def test_a_word_that_comes_when_all_is_decided_changes_nothing() -> None:
    for story in (
        Story(hold_before=Step.COMMIT).soaks().is_cancelled(),
        Story(hold_before=Step.COMMIT).soaks().is_recovered(events.KeeperDecision.COMMITTED),
        Story(hold_before=Step.SWITCH).is_cancelled().succeeds(Step.ABORT),
    ):
        before = story.state
        assert before.assignment.hold_before is not None
        assert story.proceeds(before.assignment.hold_before).state == before
        assert story.effects == []


@pytest.mark.parametrize("hold", [Step.SWITCH, Step.COMMIT])
def test_whatever_becomes_of_a_held_operation_before_its_commit_is_undone(hold: model.Step) -> None:
    def held() -> Story:
        story = Story(hold_before=Step.SWITCH).is_held_before(Step.SWITCH)
        if hold is Step.COMMIT:
            story.proceeds(Step.SWITCH, Step.COMMIT).succeeds(Step.SWITCH)
            story.seconds += 5
            story.is_seen()
        assert story.status.step is hold
        return story

    assert held().is_cancelled().effects == ["ABORT"]
    assert held().is_lost().effects == ["ABORT"]
    assert held().is_recovered().effects == ["ABORT"]
    assert held().passes(60).effects == ["ABORT"]


def test_an_agent_that_replaced_itself_in_the_switch_still_waits_where_it_was_told_to() -> None:
    story = Story(hold_before=Step.SWITCH).is_held_before(Step.SWITCH).proceeds(Step.SWITCH, Step.COMMIT)
    story.is_recovered(events.KeeperDecision.ON_TRIAL)
    assert story.phase == "SOAK"
    story.seconds += 5
    story.is_seen()
    assert (story.status.state, story.status.step) == (HELD, Step.COMMIT)
    assert story.proceeds(Step.COMMIT).effects == ["COMMIT"]


def test_a_hold_that_nobody_ends_is_undone_at_the_deadline() -> None:
    story = Story(hold_before=Step.SWITCH).reaches(Step.SWITCH)
    assert story.passes(59.9).phase == "HELD_BEFORE_SWITCH"
    story.passes(0.1)
    assert (story.phase, story.status.fault, story.status.reason) == ("ABORTING", COMMAND, "hold_expired")


def test_a_version_that_gets_unhealthy_while_held_before_commit_is_undone() -> None:
    story = Story(hold_before=Step.COMMIT).soaks()
    story.seconds = 5
    assert story.is_seen().is_seen().phase == "HELD_BEFORE_COMMIT"
    assert story.is_seen(model.Health.UNHEALTHY).phase == "ABORTING"


def test_the_deadline_ends_what_has_not_reached_commit() -> None:
    story = Story().begins().passes(59)
    assert story.phase == "FETCH"
    assert operation.next_deadline(story.state) == 60
    story.passes(1)
    assert (story.status.fault, story.status.reason) == (INFRASTRUCTURE, "deadline_passed")


def test_no_deadline_ends_a_commit_that_is_being_decided() -> None:
    story = Story().soaks()
    story.seconds = 5
    assert story.is_seen().passes(1000).phase == "COMMIT"
    assert operation.next_deadline(story.state) is None


@pytest.mark.parametrize("step", [*stories.STEPS_UNTIL_SOAK, Step.SOAK])
def test_a_cancel_before_commit_leads_back(step: model.Step) -> None:
    story = Story().reaches(step).is_cancelled()
    assert (story.phase, story.status.fault, story.status.reason) == ("ABORTING", COMMAND, "cancelled")


def test_a_cancel_of_what_is_being_undone_neither_begins_that_anew_nor_takes_the_fault_from_the_version() -> None:
    story = Story().soaks().is_lost()
    before = story.state
    story.is_cancelled().is_cancelled()
    assert (story.state, story.effects) == (before, [])
    assert (story.status.fault, story.status.reason) == (VERSION, "instance_died")


def test_a_cancel_after_commit_comes_too_late() -> None:
    story = Story().commits()
    before = story.state
    assert story.is_cancelled().state == before


@pytest.mark.parametrize("step", [Step.PREPARE, Step.SWITCH, Step.SOAK])
def test_a_new_instance_that_dies_before_commit_is_the_versions_fault(step: model.Step) -> None:
    story = Story().reaches(step).is_lost()
    assert (story.phase, story.status.fault, story.status.reason) == ("ABORTING", VERSION, "instance_died")


def test_the_loss_of_the_instance_changes_nothing_once_it_is_being_undone_or_decided() -> None:
    assert Story().soaks().is_cancelled().is_lost().phase == "ABORTING"
    story = Story().soaks()
    story.seconds = 5
    assert story.is_seen().is_lost().phase == "COMMIT"


def test_a_keeper_that_went_back_ends_the_commit() -> None:
    story = Story().soaks()
    story.seconds = 5
    story.is_seen().happens(events.RolledBack(story.now(), VERSION, "rolled_back", "the instance ended"))
    assert (story.phase, story.status.reason, story.effects) == ("ABORTING", "rolled_back", ["ABORT"])
    story.happens(events.RolledBack(story.now(), VERSION, "rolled_back", "told twice"))
    assert story.effects == []


@pytest.mark.parametrize("is_drained", [False, True])
def test_a_bake_that_fails_stays_committed_with_the_versions_fault(*, is_drained: bool) -> None:
    story = Story().commits()
    if is_drained:
        story.succeeds(Step.DRAIN)
    story.is_seen(model.Health.UNHEALTHY)
    assert (story.status.state, story.status.fault) == (model.OperationState.COMMITTED, VERSION)
    if not is_drained:
        assert story.phase == "SETTLING"
        story.succeeds(Step.DRAIN)
    assert (story.phase, story.status.state) == ("UNWELL", model.OperationState.COMMITTED)
    assert [record.is_success for record in story.records if record.step is Step.BAKE] == [False]


def test_a_version_that_dies_in_the_bake_is_bad_and_one_that_dies_after_it_is_not() -> None:
    assert Story().commits().is_lost().status.reason == "instance_died"
    story = Story().commits().is_seen(healthy_for=10).is_lost()
    assert story.status.fault is None


def test_a_version_that_is_not_healthy_for_long_enough_in_time_is_bad() -> None:
    story = Story().commits().succeeds(Step.DRAIN).passes(99)
    assert story.phase == "SETTLING"
    story.passes(1)
    assert (story.phase, story.status.reason) == ("UNWELL", "healthy_deadline_passed")


def test_a_later_operation_takes_over_what_still_settles() -> None:
    story = Story().commits().is_superseded()
    assert (story.phase, story.status.state) == ("SUPERSEDED", model.OperationState.COMMITTED)
    baked = Story().commits().is_seen(healthy_for=10).succeeds(Step.BAKE).is_superseded()
    assert baked.status.state is model.OperationState.PERMANENT


def test_a_removal_checks_commits_and_drains_and_needs_no_bake() -> None:
    story = Story(kind=model.ChangeKind.REMOVE, to_digest="", to_version="").begins()
    assert story.effects == ["PREFLIGHT"]
    assert story.succeeds(Step.PREFLIGHT).effects == ["COMMIT"]
    assert story.succeeds(Step.COMMIT).effects == ["DRAIN"]
    assert story.passes(1000).is_lost().status.fault is None
    story.succeeds(Step.DRAIN)
    assert (story.phase, story.status.state) == ("PERMANENT", model.OperationState.PERMANENT)


@pytest.mark.parametrize("kind", [model.ChangeKind.REMOVE, model.ChangeKind.STOP])
@pytest.mark.parametrize("hold", [Step.SWITCH, Step.COMMIT])
def test_what_ends_has_no_switch_and_its_commit_waits_for_either_hold(hold: model.Step, kind: model.ChangeKind) -> None:
    story = Story(kind=kind, to_digest="", hold_before=hold).begins().succeeds(Step.PREFLIGHT)
    assert (story.status.state, story.status.step) == (HELD, hold)
    assert story.proceeds(hold).effects == ["COMMIT"]


@pytest.mark.parametrize("kind", [model.ChangeKind.REMOVE, model.ChangeKind.STOP])
def test_what_ends_waits_through_both_holds_before_anything_ends(kind: model.ChangeKind) -> None:
    story = Story(kind=kind, to_digest="", hold_before=Step.SWITCH).begins().succeeds(Step.PREFLIGHT)
    story.proceeds(Step.SWITCH, Step.COMMIT)
    assert (story.status.state, story.status.step, story.effects) == (HELD, Step.COMMIT, [])
    assert story.proceeds(Step.SWITCH, Step.COMMIT).effects == []
    assert story.proceeds(Step.COMMIT).effects == ["COMMIT"]
    early = Story(kind=kind, to_digest="", hold_before=Step.SWITCH).begins().proceeds(Step.SWITCH, Step.COMMIT)
    assert early.succeeds(Step.PREFLIGHT).status.step is Step.COMMIT


def test_a_stop_is_decided_before_anything_ends_and_needs_no_bake() -> None:
    story = Story(kind=model.ChangeKind.STOP, to_digest="").begins().succeeds(Step.PREFLIGHT)
    assert story.effects == ["COMMIT"]
    assert story.succeeds(Step.COMMIT).effects == ["DRAIN"]
    assert story.succeeds(Step.DRAIN).status.state is model.OperationState.PERMANENT
    assert [record.step for record in story.records] == [Step.PREFLIGHT, Step.COMMIT, Step.DRAIN]


def test_a_start_brings_up_what_is_there_and_is_committed_and_baked() -> None:
    story = Story(kind=model.ChangeKind.START, to_digest="").begins()
    for step in (Step.PREFLIGHT, Step.SWITCH, Step.COMMIT):
        assert story.effects == [step.value]
        story.succeeds(step)
    story.succeeds(Step.DRAIN)
    assert story.status.state is model.OperationState.COMMITTED
    assert story.is_seen(healthy_for=10).succeeds(Step.BAKE).status.state is model.OperationState.PERMANENT


def test_a_start_that_fails_leaves_the_component_stopped_and_says_whose_fault_it_is() -> None:
    story = Story(kind=model.ChangeKind.START, to_digest="").begins().succeeds(Step.PREFLIGHT)
    story.fails(Step.SWITCH, VERSION, "crashed_at_start").succeeds(Step.ABORT)
    assert (story.status.state, story.status.reason) == (model.OperationState.ABORTED, "crashed_at_start")


@pytest.mark.parametrize("hold", [Step.SWITCH, Step.COMMIT])
def test_a_held_start_waits_where_it_was_told_to(hold: model.Step) -> None:
    story = Story(kind=model.ChangeKind.START, hold_before=hold).begins().succeeds(Step.PREFLIGHT)
    if hold is Step.COMMIT:
        story.succeeds(Step.SWITCH)
    assert (story.status.state, story.status.step) == (HELD, hold)
    assert story.proceeds(hold).effects == [hold.value]


def test_a_restart_goes_the_way_of_an_upgrade_without_fetching_anything() -> None:
    story = Story(kind=model.ChangeKind.RESTART, to_digest="").begins()
    for step in stories.STEPS_UNTIL_SOAK[3:]:
        assert story.effects == [step.value]
        story.succeeds(step)
    assert story.phase == "SOAK"
    story.seconds = 5
    assert story.is_seen().effects == ["COMMIT"]


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        (model.ChangeKind.INSTALL, "", stories.NEW),
        (model.ChangeKind.UPGRADE, stories.OLD, stories.NEW),
        (model.ChangeKind.REMOVE, stories.OLD, ""),
        (model.ChangeKind.START, "", stories.OLD),
        (model.ChangeKind.STOP, stories.OLD, ""),
        (model.ChangeKind.RESTART, stories.OLD, stories.OLD),
    ],
)
def test_each_kind_of_change_has_its_two_sides(kind: model.ChangeKind, old: str, new: str) -> None:
    from_digest = "" if kind is model.ChangeKind.INSTALL else stories.OLD
    changing = kind in {model.ChangeKind.INSTALL, model.ChangeKind.UPGRADE}
    told = stories.assignment(kind=kind, from_digest=from_digest, to_digest=stories.NEW if changing else "")
    assert (told.old_digest, told.new_digest) == (old, new)


def test_a_version_that_flaps_is_bad_in_the_soak_and_in_the_bake() -> None:
    story = Story().soaks().flaps()
    assert (story.phase, story.status.fault, story.status.reason) == ("ABORTING", VERSION, "flapping")
    story = Story().commits().flaps()
    assert (story.status.state, story.status.reason) == (model.OperationState.COMMITTED, "flapping")


def test_an_agent_that_finds_itself_on_trial_has_been_switched_to() -> None:
    story = Story().reaches(Step.SWITCH).is_recovered(events.KeeperDecision.ON_TRIAL)
    assert (story.phase, story.effects, story.records[-1].is_success) == ("SOAK", [], True)
    early = Story().reaches(Step.PREPARE).is_recovered(events.KeeperDecision.ON_TRIAL)
    assert early.phase == "ABORTING"


@pytest.mark.parametrize("step", [*stories.STEPS_UNTIL_SOAK, Step.SOAK])
def test_an_agent_killed_before_commit_goes_back_and_it_is_nobodys_fault(step: model.Step) -> None:
    story = Story().reaches(step).is_recovered()
    assert (story.phase, story.effects) == ("ABORTING", ["ABORT"])
    assert (story.status.fault, story.status.reason) == (INFRASTRUCTURE, "agent_restarted")


def test_what_the_keeper_decided_meanwhile_outranks_the_journal() -> None:
    died = Story().soaks().is_recovered(events.KeeperDecision.ROLLED_BACK_INSTANCE_DIED)
    assert (died.status.fault, died.status.reason) == (VERSION, "instance_died")
    away = Story().soaks().is_recovered(events.KeeperDecision.ROLLED_BACK_AGENT_AWAY)
    assert away.status.fault is INFRASTRUCTURE
    torn = Story().soaks().is_recovered(events.KeeperDecision.COMMITTED)
    assert (torn.phase, torn.effects) == ("COMMIT", ["COMMIT"])


def test_an_agent_killed_in_commit_or_abort_asks_again() -> None:
    story = Story().soaks()
    story.seconds = 5
    assert story.is_seen().is_recovered().effects == ["COMMIT"]
    assert Story().soaks().is_cancelled().is_recovered().effects == ["ABORT"]


def test_an_agent_killed_after_commit_takes_its_obligations_up_again_with_a_new_deadline() -> None:
    story = Story().commits()
    story.seconds = 500
    assert story.is_recovered().effects == ["DRAIN"]
    assert operation.next_deadline(story.state) == 600
    baking = Story().commits().succeeds(Step.DRAIN).is_seen(healthy_for=10)
    assert baking.is_recovered().effects == ["BAKE"]


@pytest.mark.parametrize(
    "event",
    [
        events.Began(stories.at(1)),
        events.Succeeded(stories.at(1), Step.FETCH),
        events.Succeeded(stories.at(1), Step.DRAIN),
        events.Superseded(stories.at(1)),
    ],
)
def test_an_illegal_event_raises_and_changes_nothing(event: events.Event) -> None:
    story = Story().soaks()
    before = story.state
    with pytest.raises(machine.IllegalEventError, match="cannot"):
        story.happens(event)
    assert story.state == before


def test_a_step_that_does_not_run_cannot_end() -> None:
    story = Story().begins()
    for event in (
        events.Succeeded(stories.at(1), Step.VERIFY),
        events.Failed(stories.at(1), Step.VERIFY, VERSION, "x", "cannot"),
    ):
        with pytest.raises(machine.IllegalEventError, match="cannot end step VERIFY"):
            story.happens(event)
    settled = Story().commits().succeeds(Step.DRAIN)
    with pytest.raises(machine.IllegalEventError, match="cannot end step DRAIN"):
        settled.succeeds(Step.DRAIN)


def test_the_table_is_the_law_even_for_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story().begins()
    fetch = {**transitions.TRANSITIONS[transitions.Phase.FETCH], events.Succeeded: ()}
    changed = {**transitions.TRANSITIONS, transitions.Phase.FETCH: fetch}
    monkeypatch.setattr(transitions, "TRANSITIONS", changed)
    with pytest.raises(machine.IllegalEventError, match="cannot go from FETCH to VERIFY"):
        story.succeeds(Step.FETCH)


def test_every_phase_stands_in_the_tables() -> None:
    phases = set(transitions.Phase)
    assert set(transitions.TRANSITIONS) == phases
    assert set(transitions.STATE_OF) == phases
    reached = {to for targets in transitions.TRANSITIONS.values() for tos in targets.values() for to in tos}
    # An operation begins accepted or refused.
    assert reached == phases - {transitions.Phase.ACCEPTED, transitions.Phase.REFUSED}


def test_time_changes_nothing_of_what_has_ended() -> None:
    assert operation.next_deadline(Story().soaks().is_cancelled().succeeds(Step.ABORT).state) is None
    assert operation.next_deadline(Story().state) is None
    assert Story(deadline=timedelta(seconds=7)).state.deadline_seconds == 7


def test_what_is_refused_has_ended_and_says_why() -> None:
    at = events.Moment(5.0, stories.EPOCH)
    refused = operation.refuse(stories.assignment(), at, "node_busy", "cannot begin: the node is held")
    told = operation.status(refused.state)
    assert (told.state, told.fault, told.reason) == (model.OperationState.REFUSED, COMMAND, "node_busy")
    assert (refused.effects, refused.records) == ((), ())
