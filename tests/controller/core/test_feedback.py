from __future__ import annotations

import functools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import feedback, model

pytestmark = pytest.mark.core

START = datetime(2026, 1, 1, tzinfo=UTC)
WEB = model.ComponentName("web")
SWAP, RESTART = model.Method.HOT_SWAP, model.Method.RESTART
SUCCESS, AT_FAULT, OTHERWISE = (True, False), (False, True), (False, False)


def outcome(
    how: tuple[bool, bool] = SUCCESS,
    seconds: float = 10,
    *,
    from_version: str = "1.0.0",
    to_version: str = "1.1.0",
    method: model.Method = SWAP,
    node_class: str = "",
) -> model.Outcome:
    return model.Outcome(
        operation_id=model.OperationId("r1/1/n1/web/forward/1"),
        node_id=model.NodeId("n1"),
        component=WEB,
        from_version=from_version,
        to_version=to_version,
        method=method,
        node_class=node_class,
        is_success=how[0],
        is_version_fault=how[1],
        duration=timedelta(seconds=seconds),
        at=START,
    )


def told(outcomes: Iterable[model.Outcome]) -> feedback.Memory:
    return functools.reduce(feedback.record, outcomes, feedback.Memory())


def advice(memory: feedback.Memory, node_class: str = "") -> feedback.Advice:
    return feedback.advice(memory, WEB, "1.0.0", "1.1.0", SWAP, node_class)


def expectation(memory: feedback.Memory, node_class: str = "") -> feedback.Expectation | None:
    return feedback.expectation(memory, WEB, "1.0.0", "1.1.0", SWAP, node_class)


outcomes = st.builds(
    outcome,
    st.sampled_from([SUCCESS, AT_FAULT, OTHERWISE]),
    st.integers(1, 100),
    from_version=st.sampled_from(["1.0.0", "0.9.0"]),
    to_version=st.sampled_from(["1.1.0", "1.2.0"]),
    method=st.sampled_from(model.Method),
    node_class=st.sampled_from(["", "small"]),
)


def test_without_an_outcome_little_is_advised_and_it_is_said() -> None:
    found = advice(feedback.Memory())
    assert (found.chance, found.wave_nodes, found.expectation) == (0.5, 1, None)
    assert found.chance_low == pytest.approx(0.0061558, abs=1e-6)
    assert found.why == (
        "0 where 5 are needed of web from 1.0.0 to 1.1.0 by HOT_SWAP on nodes without a class; "
        "0 where 5 are needed of web to 1.1.0 by HOT_SWAP; "
        "0 where 5 are needed of web by HOT_SWAP; "
        "so this is little more than a guess: 0 of 0 succeeded of web by HOT_SWAP"
    )


def test_successes_and_faults_of_the_version_make_the_chance() -> None:
    found = advice(told([outcome()] * 20))
    assert (found.successes, found.version_failures) == (20, 0)
    assert found.chance == pytest.approx(20.5 / 21)
    assert found.chance_low == pytest.approx(0.9095235734, abs=1e-9)
    assert found.wave_nodes == 11
    assert found.why == "20 of 20 succeeded of web from 1.0.0 to 1.1.0 by HOT_SWAP on nodes without a class"
    worse = advice(told([outcome()] * 20 + [outcome(AT_FAULT)]))
    assert worse.version_failures == 1
    assert worse.chance_low < found.chance_low
    assert worse.wave_nodes < found.wave_nodes


def test_other_failures_count_for_nothing_and_are_numbered() -> None:
    before, after = told([outcome()] * 5), told([outcome()] * 5 + [outcome(OTHERWISE, 900)] * 7)
    assert (advice(after).chance, advice(after).chance_low) == (advice(before).chance, advice(before).chance_low)
    assert advice(after).other_failures == 7
    assert advice(after).why.endswith("without a class, 7 failed by no fault of the version")
    assert expectation(after) == expectation(before)


def test_a_kind_that_knows_too_little_is_answered_from_a_wider_one() -> None:
    close = [outcome(node_class="small")] * 4
    same_target = told([*close, outcome(AT_FAULT, from_version="0.9.0")])
    assert advice(same_target, "small").why == (
        "4 where 5 are needed of web from 1.0.0 to 1.1.0 by HOT_SWAP on nodes of class small; "
        "4 of 5 succeeded of web to 1.1.0 by HOT_SWAP"
    )
    same_method = told([*close, outcome(AT_FAULT, to_version="1.2.0")])
    assert advice(same_method, "small").why.endswith("4 of 5 succeeded of web by HOT_SWAP")
    other_method = told([*close, outcome(method=RESTART)])
    assert "little more than a guess: 4 of 4" in advice(other_method, "small").why
    enough = told([*close, outcome(node_class="small"), outcome(AT_FAULT)])
    assert advice(enough, "small").version_failures == 0


def test_durations_are_those_of_successes_by_rank() -> None:
    made = told(outcome(seconds=seconds) for seconds in range(100, 0, -1))
    found = expectation(made)
    assert found is not None
    assert (found.median, found.p95, found.count) == (timedelta(seconds=50), timedelta(seconds=95), 100)
    assert found.why == ("the latest 100 successes of web from 1.0.0 to 1.1.0 by HOT_SWAP on nodes without a class")
    assert advice(made).expectation == found


def test_four_durations_are_too_few_and_five_of_a_wider_kind_are_taken() -> None:
    four = told([outcome(seconds=7)] * 4 + [outcome(AT_FAULT, 1)] * 9)
    assert expectation(four) is None
    found = expectation(feedback.record(four, outcome(seconds=9, node_class="small")))
    assert found is not None
    assert (found.median, found.p95, found.count) == (timedelta(seconds=7), timedelta(seconds=9), 5)
    assert found.why == (
        "4 where 5 are needed of web from 1.0.0 to 1.1.0 by HOT_SWAP on nodes without a class; "
        "the latest 5 successes of web to 1.1.0 by HOT_SWAP"
    )


def test_only_the_latest_durations_are_kept() -> None:
    old, new = [outcome(seconds=1000)] * 10, [outcome(seconds=1)] * feedback.DURATIONS_MAX
    found = expectation(told(old + new))
    assert found is not None
    assert (found.p95, found.count) == (timedelta(seconds=1), feedback.DURATIONS_MAX)
    last_old = expectation(told(old + new[1:]))
    assert last_old is not None
    assert last_old.count == feedback.DURATIONS_MAX
    assert advice(told(old + new)).successes == len(old) + len(new)


@pytest.mark.parametrize(
    ("swaps", "restarts", "expected"),
    [
        ((30, 0), (10, 20), SWAP),
        ((10, 20), (30, 0), RESTART),
        ((30, 0), (29, 1), None),
        ((5, 0), (4, 1), None),
    ],
)
def test_a_method_did_better_only_where_the_bounds_are_apart(
    swaps: tuple[int, int], restarts: tuple[int, int], expected: model.Method | None
) -> None:
    made = [outcome()] * swaps[0] + [outcome(AT_FAULT)] * swaps[1]
    made += [outcome(method=RESTART)] * restarts[0] + [outcome(AT_FAULT, method=RESTART)] * restarts[1]
    found = feedback.methods(told(made), WEB, "1.0.0", "1.1.0", "")
    assert found.method is expected
    assert f"{swaps[0]} of {sum(swaps)} succeeded of web from 1.0.0 to 1.1.0 by HOT_SWAP" in found.why
    assert f"{restarts[0]} of {sum(restarts)} succeeded of web from 1.0.0 to 1.1.0 by RESTART" in found.why


def test_methods_are_compared_where_both_are_known() -> None:
    made = [outcome()] * 30 + [outcome(AT_FAULT, method=RESTART)] * 4
    assert feedback.methods(told(made), WEB, "1.0.0", "1.1.0", "") == feedback.MethodAdvice(
        None, "not 5 outcomes of each method are known of web"
    )
    wider = told([*made, outcome(AT_FAULT, method=RESTART, to_version="1.2.0")])
    found = feedback.methods(wider, WEB, "1.0.0", "1.1.0", "")
    assert found.method is SWAP
    assert found.why == "30 of 30 succeeded of web by HOT_SWAP; 0 of 5 succeeded of web by RESTART"


def test_what_was_told_of_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "KINDS_MAX", 8)
    monkeypatch.setattr(feedback, "_KINDS_KEPT", 6)
    made = told(outcome(from_version=f"0.{minor}.0") for minor in range(7))
    # Seven exact kinds and the two wider ones are one too many.
    assert len(made.records) == 6
    exact = {kind.from_version for kind in made.records if kind.from_version is not None}
    assert exact == {"0.3.0", "0.4.0", "0.5.0", "0.6.0"}
    assert advice(made).successes == 7
    again = feedback.record(made, outcome(from_version="0.3.0"))
    full = functools.reduce(feedback.record, (outcome(from_version=f"2.{n}.0") for n in range(3)), again)
    assert {kind.from_version for kind in full.records} == {None, "0.3.0", "2.0.0", "2.1.0", "2.2.0"}


@given(st.lists(outcomes, max_size=30))
def test_every_outcome_is_counted_once_in_each_of_three_kinds(made: list[model.Outcome]) -> None:
    memory = told(made)
    counted = sum(each.trials + each.other_failures for each in memory.records.values())
    assert counted == 3 * len(made)
    assert memory.told == len(made)
    assert sum(len(each.durations) for each in memory.records.values()) == 3 * sum(each.is_success for each in made)


@given(st.lists(outcomes, max_size=30))
def test_the_chance_lies_above_its_lower_bound_and_more_is_never_advised_than_it_allows(
    made: list[model.Outcome],
) -> None:
    found = advice(told(made))
    assert 0 < found.chance_low < 1
    assert found.wave_nodes == 1 or found.wave_nodes * (1 - found.chance_low) < 1 + 1e-9


@given(st.lists(outcomes, max_size=30), outcomes)
def test_what_is_told_changes_nothing_of_the_memory_before(made: list[model.Outcome], more: model.Outcome) -> None:
    before = told(made)
    feedback.record(before, more)
    assert before == told(made)
