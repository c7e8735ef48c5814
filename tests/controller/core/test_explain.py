from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import explain, model
from tests import datadriven
from tests.controller.core import explaining, scenario

pytestmark = pytest.mark.core

TESTDATA = Path(__file__).parents[2] / "testdata" / "explain"


@pytest.mark.parametrize("path", sorted(TESTDATA.glob("*.txt")), ids=lambda path: path.stem)
def test_an_explanation_says_what_the_scenario_says(path: Path, *, is_rewriting: bool) -> None:
    datadriven.run(path, explaining.Explaining().handle, is_rewriting=is_rewriting)


CODES = frozenset({"done", "under_way", "not_yet", "not_done", "unknown", "not_selected"})
HEADS = frozenset({*(state.value.lower() for state in model.RolloutState), "giving_up"})
AT = scenario.START + timedelta(minutes=5)
instants = st.none() | st.just(AT)


@st.composite
def changes(draw: st.DrawFn) -> model.Progress:
    """One change of node a or b, in any combination of what may be known of it."""
    change = model.Change(
        node_id=model.NodeId(draw(st.sampled_from("ab"))),
        component=model.ComponentName("web"),
        kind=draw(st.sampled_from(model.ChangeKind)),
        method=model.Method.HOT_SWAP,
        from_version="1.0.0",
        from_digest=scenario.digest("web 1.0.0"),
        to_version="1.1.0",
        to_digest=scenario.digest("web 1.1.0"),
        no_way_back=draw(st.sampled_from(["", "the state was migrated"])),
    )
    state = draw(st.none() | st.sampled_from(model.OperationState))
    is_left, is_skipped = draw(st.booleans()), draw(st.booleans())
    reason = draw(st.sampled_from(["", "because"]))
    return model.Progress(
        change=change,
        wave=draw(st.integers(1, 2)),
        attempt=draw(st.integers(1, 3)) if state else 0,
        is_reverting=state is not None and draw(st.booleans()),
        state=state,
        step=draw(st.none() | st.sampled_from(model.Step)),
        fault=draw(st.none() | st.sampled_from(model.Fault)) if state else None,
        reason=reason or ("left" if is_left or is_skipped else ""),
        message=draw(st.sampled_from(["", "a sentence"])),
        committed_at=draw(instants),
        ended_at=draw(instants),
        deadline_at=draw(instants),
        is_touched=draw(st.booleans()),
        is_proven=draw(st.booleans()),
        is_left=is_left,
        is_skipped=is_skipped,
    )


@st.composite
def rollouts(draw: st.DrawFn) -> model.Rollout:
    made = draw(st.lists(changes(), min_size=1, max_size=4, unique_by=lambda each: each.key))
    state = draw(st.sampled_from(model.RolloutState))
    reason = draw(st.sampled_from(["", "version_failed"]))
    last = max(each.wave for each in made)
    wave = 0 if state is model.RolloutState.PENDING else draw(st.integers(1, last))
    return replace(
        explaining.rollout(made, state=state, wave=wave),
        reason=reason,
        message=reason and "the version failed on 1 node",
        paused_at=AT if state is model.RolloutState.PAUSED else None,
        paused_because="ann paused it: the load is high",
    )


@given(rollouts(), st.sampled_from("abc"), st.booleans())
def test_every_node_of_every_rollout_has_a_chain_that_can_be_read(
    state: model.Rollout,
    name: str,
    is_down: bool,  # noqa: FBT001 # hypothesis fills it in
) -> None:
    standing = model.Standing(down="offline" if is_down else "")
    chain = explain.node_in(state, model.NodeId(name), standing, AT)
    assert chain[0].code in CODES
    assert_readable(chain)
    assert explain.node_in(state, model.NodeId(name), standing, AT) == chain


@given(rollouts())
def test_every_rollout_has_a_chain_that_begins_with_its_state(state: model.Rollout) -> None:
    chain = explain.rollout(state, AT)
    assert chain[0].code in HEADS
    assert_readable(chain)


@given(st.lists(rollouts(), max_size=3), st.booleans())
def test_a_node_is_explained_whatever_is_known_of_it(known: list[model.Rollout], is_connected: bool) -> None:  # noqa: FBT001 # hypothesis fills it in
    node = replace(scenario.node("a"), is_connected=is_connected)
    assert_readable(explain.node(node, known, (), AT))


def assert_readable(chain: tuple[model.Reason, ...]) -> None:
    """No link is empty, none shows what is a value and no word, and none is there twice in a row."""
    for each in chain:
        assert each.code == each.code.lower() != ""
        assert each.message
        assert not {"None", "{", "}"} & set(each.message.split())
    assert all(first.message != second.message for first, second in itertools.pairwise(chain))


def test_a_node_with_too_many_series_is_told_of_them_and_of_nothing_else_that_is_wrong_but_harmless() -> None:
    shown = tuple(model.Condition(code, "web", "too many", AT) for code in (model.METRICS_CAPPED, "disk_low"))
    each = replace(scenario.node("a"), conditions=shown)
    told = explain.node(each, (), (), AT)
    assert [reason.code for reason in told] == ["free", "metrics_capped"]
    assert told[-1].since == AT
