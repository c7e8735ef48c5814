"""What a node that waits before a step is told, as its assignment and its own word have it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core import effects, model
from controller.engine import commands, ordering, stepping
from controller.engine import draft as drafts
from controller.engine import world as worlds
from controller.store import rows
from tests.controller.engine import fleet

NODE = model.NodeId("n1")
S, Step = model.OperationState, model.Step
Progress = tuple[model.OperationState, model.Step | None]


class Held:
    """A node that was given an operation, to be held before SWITCH."""

    def __init__(self) -> None:
        self.world = fleet.in_virtual_time(_given)
        [self.given] = self.world.assignments.values()
        self.put(assign=replace(self.given.assign, hold_before=Step.SWITCH))

    @property
    def assignment(self) -> rows.Assignment:
        return self.world.assignments[self.given.operation_id]

    def put(self, **changes: object) -> Held:
        changed = replace(self.assignment, **changes)  # type: ignore[arg-type]  # names and types are the test's
        self.world = self.world.with_assignment(changed)
        return self

    def says(self, state: model.OperationState, step: model.Step | None) -> Held:
        [command] = (each for each in self.commands() if isinstance(each, commands.AssignCommand))
        return self.put(status=fleet.in_virtual_time(lambda: _status(command, state, step)))

    def proceeds(self, step: model.Step, hold_before: model.Step | None = None) -> drafts.Draft:
        draft = drafts.Draft(self.world, fleet.EPOCH)
        lease = rows.Lease(self.given.rollout_id, self.given.epoch, "c")
        effect = effects.Proceed(self.given.operation_id, NODE, step, hold_before)
        stepping._perform(draft, self.given.rollout_id, lease, effect)
        self.world = draft.world
        return draft

    def commands(self) -> tuple[commands.Command, ...]:
        return ordering.outstanding(self.world, NODE)

    def words(self) -> list[tuple[model.Step, model.Step | None]]:
        """The holds that it is told to leave, each with the next one."""
        found = self.commands()
        for each in found:
            assert (each.operation_id, each.fence) == (self.given.operation_id, self.given.fence)
        return [(each.step, each.hold_before) for each in found if isinstance(each, commands.ProceedCommand)]

    def hold_asked(self) -> model.Step | None:
        """The hold that the assignment asks for now."""
        [command] = (each for each in self.commands() if isinstance(each, commands.AssignCommand))
        return command.hold_before


async def _given() -> worlds.World:
    controller = fleet.Controller(None)
    await fleet.upgraded_fleet(controller, nodes=1)
    await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
    world = controller.engine._desk.world
    await controller.stop()
    return world


async def _status(
    command: commands.AssignCommand, state: model.OperationState, step: model.Step | None
) -> model.OperationStatus:
    return fleet.status(command, state, step=step)


def test_an_assignment_asks_for_the_hold_that_the_core_wants() -> None:
    held = Held()
    assert (held.hold_asked(), held.words()) == (Step.SWITCH, [])
    assert held.says(S.HELD, Step.SWITCH).words() == []


def test_a_word_that_ends_a_hold_is_a_row_and_wakes_the_node() -> None:
    held = Held().says(S.HELD, Step.SWITCH)
    draft = held.proceeds(Step.SWITCH, Step.COMMIT)
    assert draft.assignments[held.given.operation_id].hold_before is Step.COMMIT
    assert draft.woken == {NODE}
    assert held.words() == [(Step.SWITCH, Step.COMMIT)]
    assert held.hold_asked() is Step.COMMIT


def test_the_same_word_again_writes_nothing_and_one_about_what_is_let_go_is_none() -> None:
    held = Held().says(S.HELD, Step.SWITCH)
    held.proceeds(Step.SWITCH, Step.COMMIT)
    assert held.proceeds(Step.SWITCH, Step.COMMIT).is_empty
    held.world = replace(held.world, assignments=held.world.assignments.discard(held.given.operation_id))
    assert held.proceeds(Step.SWITCH).is_empty


PAST_SWITCH: list[Progress] = [
    (S.RUNNING, Step.SWITCH),
    (S.RUNNING, Step.SOAK),
    (S.HELD, Step.COMMIT),
    (S.RUNNING, Step.COMMIT),
    (S.RUNNING, Step.ABORT),
]


@pytest.mark.parametrize(
    "progress", [(S.ACCEPTED, None), (S.RUNNING, Step.FETCH), (S.RUNNING, Step.PREPARE), (S.HELD, Step.SWITCH)]
)
def test_a_word_stands_until_the_node_is_past_its_hold(progress: Progress) -> None:
    held = Held().says(*progress)
    held.proceeds(Step.SWITCH, Step.COMMIT)
    assert held.words() == [(Step.SWITCH, Step.COMMIT)]


@pytest.mark.parametrize("progress", PAST_SWITCH)
def test_a_word_is_not_said_to_a_node_that_is_past_its_hold(progress: Progress) -> None:
    held = Held().says(S.HELD, Step.SWITCH)
    held.proceeds(Step.SWITCH, Step.COMMIT)
    assert held.says(*progress).words() == []


def test_a_node_behind_is_told_each_word_that_it_has_not_followed_in_their_order() -> None:
    held = Held().says(S.HELD, Step.SWITCH)
    held.proceeds(Step.SWITCH, Step.COMMIT)
    held.proceeds(Step.COMMIT)
    assert held.words() == [(Step.SWITCH, Step.COMMIT), (Step.COMMIT, None)]
    assert held.says(S.HELD, Step.COMMIT).words() == [(Step.COMMIT, None)]
    assert held.hold_asked() is None
    assert held.says(S.RUNNING, Step.COMMIT).words() == []


def test_a_node_that_has_said_nothing_is_told_by_its_assignment_alone() -> None:
    held = Held()
    held.proceeds(Step.SWITCH, Step.COMMIT)
    assert (held.hold_asked(), held.words()) == (Step.COMMIT, [])


def test_what_shall_be_given_up_is_not_told_to_go_on() -> None:
    held = Held().says(S.HELD, Step.SWITCH)
    held.proceeds(Step.SWITCH, Step.COMMIT)
    assert held.put(cancel_reason="cancelled").words() == []


def test_what_no_longer_holds_its_node_is_not_told_to_go_on() -> None:
    held = Held().says(S.HELD, Step.SWITCH)
    held.proceeds(Step.SWITCH, Step.COMMIT)
    assert held.put(is_open=False).words() == []
