import itertools
from collections.abc import Iterator

import pytest

from instar_handover import module_machine
from instar_handover.module_machine import Event, State
from tests import documents

PAIRS = list(itertools.product(State, Event))


@pytest.mark.parametrize("row", sorted(module_machine.TRANSITIONS, key=str))
def test_each_row_of_the_table_is_taken(row: tuple[State, Event]) -> None:
    assert module_machine.step(*row) is module_machine.TRANSITIONS[row]


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair not in module_machine.TRANSITIONS])
def test_an_event_without_a_row_raises(state: State, event: Event) -> None:
    with pytest.raises(module_machine.IllegalEventError, match=f"^cannot {event.value} while {state.value}"):
        module_machine.step(state, event)


@pytest.mark.parametrize(("suspended", "before"), [(State.SWAPPING, State.STAGED), (State.REVERTING, State.SWITCHED)])
def test_giving_up_leads_back_to_where_the_swap_began(suspended: State, before: State) -> None:
    assert module_machine.step(before, Event.SUSPEND) is suspended
    assert module_machine.step(suspended, Event.GIVE_UP) is before


def test_a_way_back_ends_where_the_way_there_began() -> None:
    state = State.STAGED
    for event in (Event.SUSPEND, Event.FLIP, Event.SUSPEND, Event.FLIP):
        state = module_machine.step(state, event)
    assert state is State.STAGED


def test_nothing_is_staged_while_an_old_generation_is_kept() -> None:
    with pytest.raises(module_machine.IllegalEventError):
        module_machine.step(State.SWITCHED, Event.STAGE)


def cell_diagram() -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    [*] --> {State.SERVING.value}"
    for (state, event), target in module_machine.TRANSITIONS.items():
        if target is not state:
            yield f"    {state.value} --> {target.value}: {event.value}"


def test_the_document_shows_the_machine_as_it_is(*, is_rewriting: bool) -> None:
    parts = {"cell diagram": cell_diagram}
    documents.check(documents.DOCS / "drivers" / "module.md", parts, is_rewriting=is_rewriting)
