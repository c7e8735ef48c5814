from __future__ import annotations

import pytest

from controller.core import errors, model
from controller.core.triggers import transitions
from tests.controller.core import scenario

pytestmark = pytest.mark.core

F = model.FiringState
ENDS = {F.SUCCEEDED, F.FAILED, F.DROPPED}


def firing(state: model.FiringState) -> model.Firing:
    return model.Firing(
        id=model.FiringId("t.1"),
        trigger_id=model.TriggerId("t"),
        trigger="tide",
        number=1,
        state=state,
        does=model.TriggerActionKind.UPGRADE,
        cause=model.Cause("ann fired it", actor="ann"),
        fired_at=scenario.START,
        reason=model.Reason("fired", "ann fired it"),
        held_until=scenario.START,
    )


def test_the_table_has_a_row_for_every_state_and_ends_where_nothing_follows() -> None:
    assert set(transitions.TRANSITIONS) == set(F)
    assert {state for state, row in transitions.TRANSITIONS.items() if not row} == ENDS


def test_every_state_can_be_reached_and_every_sign_leads_somewhere() -> None:
    reached = {F.HELD}
    for _ in F:
        reached |= {target for state in reached for target in transitions.TRANSITIONS[state].values()}
    assert reached == set(F)
    assert {sign for row in transitions.TRANSITIONS.values() for sign in row} == set(transitions.Sign)


@pytest.mark.parametrize("state", F)
@pytest.mark.parametrize("sign", transitions.Sign)
def test_what_the_table_does_not_have_is_refused(state: model.FiringState, sign: transitions.Sign) -> None:
    wanted = transitions.TRANSITIONS[state].get(sign)
    if wanted is not None:
        assert transitions.follow(firing(state), sign) is wanted
        return
    with pytest.raises(errors.IllegalEventError, match=f"firing t.1 is {state.value}") as refused:
        transitions.follow(firing(state), sign)
    assert (refused.value.code, refused.value.field, refused.value.value) == ("illegal_event", "firing", "t.1")
