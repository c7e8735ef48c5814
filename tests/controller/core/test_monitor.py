"""The monitor: when a rule fires, when it clears, and what it makes of figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from controller.core import model
from controller.core.monitoring import machine, observing
from tests import datadriven, documents
from tests.controller.core import scenario, watching
from tests.controller.core.test_golden import files

pytestmark = pytest.mark.core

S, K, B = model.RuleState, model.MeasureKind, model.RuleBasis
PERIOD = timedelta(seconds=10)
LOOKS = strategies.lists(
    strategies.tuples(strategies.sampled_from([None, 1.0, 3.0, 4.0, 5.0, 6.0]), strategies.integers(1, 5)), max_size=40
)
RULES = strategies.builds(
    lambda pending, keep: rule(pending_for=pending * PERIOD, keep_firing_for=keep * PERIOD),
    strategies.integers(0, 4),
    strategies.integers(0, 3),
)


def rule(**more: object) -> model.Rule:
    values: dict[str, object] = {"fire_at": 5.0, "clear_at": 3.0, "window": 3 * PERIOD, "pending_for": timedelta()}
    values |= {"name": "queue", "component": model.ComponentName("web"), "measure": watching.MEASURE}
    return model.Rule(**{**values, **more})  # type: ignore[arg-type] # each name has its type


def lives(looked: model.Rule, looks: Sequence[tuple[float | None, int]]) -> list[model.Watch]:
    """How the rule stands after each look."""
    at, watch, found = scenario.START, machine.begin(scenario.START), []
    for value, periods in looks:
        at += periods * PERIOD
        watch = machine.step(looked, watch, value, at)
        found.append(watch)
    return found


@pytest.mark.parametrize("path", files("monitor"), ids=lambda path: path.stem)
def test_the_monitor_does_what_the_scenario_says(path: Path, *, is_rewriting: bool) -> None:
    datadriven.run(path, watching.Watching().handle, is_rewriting=is_rewriting)


@hypothesis.given(RULES, LOOKS)
def test_a_rule_begins_to_fire_if_and_only_if_the_condition_was_seen_for_as_long_as_it_has_to_hold(
    looked: model.Rule, looks: list[tuple[float | None, int]]
) -> None:
    at, held_since, seen_at, fired = scenario.START, None, scenario.START, False
    for (value, periods), watch in zip(looks, lives(looked, looks), strict=True):
        at += periods * PERIOD
        is_gap, seen_at = at - seen_at > looked.window, at
        if value is None or value <= looked.fire_at:
            held_since = None
        elif held_since is None or is_gap:
            held_since = at
        is_long = held_since is not None and at - held_since >= looked.pending_for
        assert (watch.state is S.FIRING) or fired or not is_long
        assert (watch.state is not S.FIRING) or fired or is_long
        fired = watch.fired_at is not None


@hypothesis.given(RULES, LOOKS)
def test_a_rule_never_begins_to_fire_nor_clears_on_missing_data(
    looked: model.Rule, looks: list[tuple[float | None, int]]
) -> None:
    before = None
    for (value, _), watch in zip(looks, lives(looked, looks), strict=True):
        if value is None:
            assert watch.state is S.UNKNOWN
            assert watch.fired_at == before
        before = watch.fired_at


@hypothesis.given(RULES, LOOKS, strategies.lists(strategies.sampled_from([3.5, 4.0, 5.0]), max_size=20))
def test_a_rule_never_changes_within_the_band_but_from_what_had_not_fired_yet(
    looked: model.Rule, looks: list[tuple[float | None, int]], band: list[float]
) -> None:
    found = lives(looked, [*looks, *((value, 1) for value in band)])
    of_band = found[len(looks) :]
    states = {watch.state for watch in of_band}
    assert len(states) <= 1
    assert not states & {S.PENDING, S.UNKNOWN}


@hypothesis.given(RULES, LOOKS, strategies.integers(-2, 2))
def test_a_look_that_is_repeated_or_overtaken_changes_nothing(
    looked: model.Rule, looks: list[tuple[float | None, int]], late: int
) -> None:
    found = lives(looked, looks)
    at = scenario.START + sum(periods for _, periods in looks) * PERIOD
    for watch in found[-1:]:
        assert machine.step(looked, watch, 6.0, at - abs(late) * PERIOD) is watch


def diagram() -> list[str]:
    lines = ["stateDiagram-v2", f"    [*] --> {S.UNKNOWN.value}"]
    for state, row in machine.TRANSITIONS.items():
        lines += [f"    {state.value} --> {to.value}: {sign.value}" for sign, to in row.items() if to is not state]
    return lines


def test_the_document_shows_the_machine_as_it_is(*, is_rewriting: bool) -> None:
    parts = {"rule diagram": lambda: iter(diagram())}
    documents.check(documents.DOCS / "monitor.md", parts, is_rewriting=is_rewriting)


# What is compared with the thresholds.

NAN = float("nan")


def seen(values: list[float], exposures: list[float] | None = None) -> observing.Seen:
    """One span of some nodes."""
    over = [10.0] * len(values) if exposures is None else exposures
    return observing.Seen(np.array(values, float)[:, None], np.array(over, float)[:, None])


def observed(looked: model.Rule, *spans: observing.Seen) -> list[float]:
    return [round(each, 6) for each in observing.observe(looked, *spans).tolist()]


def same(found: list[float], wanted: list[float]) -> bool:
    return bool(np.array_equal(np.array(found), np.array(wanted), equal_nan=True))


def test_a_value_is_the_figure_and_missing_where_it_is_over_too_little() -> None:
    ratio = rule(measure=model.Measure(K.RATIO, "errors", "requests"), least_exposure=10.0)
    assert same(observed(ratio, seen([1, 1, NAN], [100, 9, 100])), [0.01, NAN, NAN])
    assert same(observed(rule(), seen([1, 2, NAN])), [1, 2, NAN])


def test_the_own_past_of_counts_has_half_an_event_added() -> None:
    ratio = rule(measure=model.Measure(K.RATIO, "errors", "requests"), basis=B.OWN_PAST, least_exposure=10.0)
    found = observed(ratio, seen([4, 0, 4, 4, NAN], [100] * 5), seen([1, 0, 0, 1, 1], [300, 300, 9, NAN, 300]))
    assert same(found, [9, 3, NAN, NAN, NAN])


def test_the_own_past_is_missing_where_it_is_none_or_not_above_zero() -> None:
    own = rule(basis=B.OWN_PAST)
    assert same(observed(own, seen([3, 3]), seen([2, 0])), [1.5, NAN])
    assert same(observed(own, seen([3, 3])), [NAN, NAN])


def test_peers_are_the_median_of_those_that_have_a_figure_if_these_are_enough() -> None:
    peers = rule(basis=B.PEERS, least_percent=60)
    assert same(observed(peers, seen([1, 2, 8, NAN])), [0.5, 1, 4, NAN])
    assert same(observed(peers, seen([1, 2, NAN, NAN])), [NAN] * 4)
    counts = rule(basis=B.PEERS, measure=model.Measure(K.RATE, "errors"))
    assert same(observed(counts, seen([0, 0, 3])), [1, 1, 7])


def test_the_fleet_adds_counts_up_and_weighs_figures() -> None:
    fleet = {"scope": model.RuleScope.FLEET}
    ratio = rule(measure=model.Measure(K.RATIO, "errors", "requests"), **fleet)
    assert same(observed(ratio, seen([1, 5, NAN], [100, 100, 100])), [0.03])
    assert same(observed(rule(**fleet), seen([1, 4], [10, 20])), [3])
    assert same(observed(rule(**fleet), seen([1, NAN, NAN])), [NAN])
    assert same(observed(rule(**fleet), seen([])), [NAN])
    assert same(observed(rule(basis=B.OWN_PAST, **fleet), seen([6, 2]), seen([1, 3])), [2])


def test_a_trend_is_the_median_slope_in_an_hour_and_few_outliers_do_not_bend_it() -> None:
    trend = rule(basis=B.TREND, window=timedelta(hours=1))
    rising = np.arange(12.0)
    bent = np.where(np.arange(12) == 3, 1000.0, rising)
    sparse = np.where(np.arange(12) % 2, rising, NAN)
    too_sparse = np.where(np.arange(12) % 3, NAN, rising)
    figures = np.stack([rising, bent, sparse, too_sparse])
    found = observed(trend, observing.Seen(figures, np.ones_like(figures)))
    assert same(found, [12, 12, 12, NAN])
