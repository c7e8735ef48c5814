import itertools

import pytest

from instar_handover import machine

PAIRS = list(itertools.product(machine.State, machine.Event))


@pytest.mark.parametrize(("state", "event"), sorted(machine.TRANSITIONS, key=str))
def test_repeating_a_word_that_was_obeyed_is_success_and_changes_nothing(
    state: machine.State, event: machine.Event
) -> None:
    after = machine.step(state, event)
    if event not in (machine.Event.READY, machine.Event.EMPTIED):  # observations of its own, each made once
        assert machine.step(after, event) is after


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair not in machine.TRANSITIONS])
def test_an_event_without_a_row_raises(state: machine.State, event: machine.Event) -> None:
    with pytest.raises(machine.IllegalEventError, match=f"^cannot {event.value} while {state.value}"):
        machine.step(state, event)


def test_a_late_activate_does_not_undo_a_pause() -> None:
    with pytest.raises(machine.IllegalEventError):
        machine.step(machine.State.PAUSED, machine.Event.ACTIVATE)


def test_every_state_but_drained_can_be_drained_and_drained_is_the_end() -> None:
    for state in machine.State:
        reached = machine.step(state, machine.Event.DRAIN)
        assert reached in (machine.State.DRAINING, machine.State.DRAINED)
    assert {event for state, event in machine.TRANSITIONS if state is machine.State.DRAINED} == {machine.Event.DRAIN}
