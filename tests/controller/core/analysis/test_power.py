from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from controller.core import model
from controller.core.analysis import power, samples
from tests.controller.core.analysis import figures, simulated, table

pytestmark = pytest.mark.core

C = model.Comparison
HABITS = {
    "errors": power.Habit(events_per_minute=1.0, requests_per_minute=200.0),
    "latency": power.Habit(spread=0.07),
}
PER_CENT_95 = 0.95


def told(nodes: simulated.Nodes, fleet: simulated.Fleet) -> dict[str, Any]:
    """Give the figures of the file for harm in such a fleet: four times the errors, half as much latency again."""
    (case,) = (
        each
        for each in table.cases()
        if (each.rule, each.nodes, each.fleet, each.harm) == ("judge", str(nodes), fleet.name, "harm")
    )
    found: dict[str, Any] = table.golden()[str(case)]
    return found


@pytest.mark.parametrize(("fleet", "minutes"), [(simulated.STATIONARY, 6), (simulated.HETEROGENEOUS, 15)], ids=str)
def test_four_times_the_errors_are_found_in_time_on_ten_nodes(fleet: simulated.Fleet, minutes: float) -> None:
    assert told(table.TEN, fleet)["median_minutes"]["errors"] <= minutes


@pytest.mark.parametrize(
    "fleet",
    [simulated.STATIONARY, simulated.TRENDING, simulated.HETEROGENEOUS, simulated.AUTOCORRELATED],
    ids=lambda fleet: fleet.name,
)
def test_half_as_much_latency_again_is_found_in_nearly_all_runs_on_ten_nodes(fleet: simulated.Fleet) -> None:
    figures_of_it = told(table.TEN, fleet)
    assert figures_of_it["found"]["latency"] >= PER_CENT_95 * figures_of_it["runs"]


@pytest.mark.parametrize("nodes", [table.TEN, table.FIVE, table.FIFTY, table.ONE, table.ALONE], ids=str)
def test_what_is_said_beforehand_is_what_comes_within_a_third(nodes: simulated.Nodes) -> None:
    errors, latency, _ = power.power(simulated.ANALYSIS, nodes.canary, nodes.control, HABITS)
    medians = told(nodes, simulated.STATIONARY)["median_minutes"]
    assert errors.found_within is not None
    assert errors.found_within / simulated.MINUTE == pytest.approx(medians["errors"], rel=1 / 3)
    assert latency.found_within is not None
    assert latency.found_within / simulated.MINUTE == pytest.approx(medians["latency"], rel=1 / 3)


def of(
    metric: model.JudgedMetric, canary: int, control: int, habit: power.Habit | None = None
) -> tuple[model.Comparison, timedelta | None, str]:
    habits = {} if habit is None else {metric.name: habit}
    (said,) = power.power(figures.analysis(metric), canary, control, habits)
    return said.comparison, said.found_within, said.message


def test_one_canary_is_told_how_soon_and_what_weakens_it() -> None:
    comparison, _, message = of(figures.ERRORS, 1, 19, HABITS["errors"])
    assert comparison is C.POOLED
    assert message == (
        "errors: with 1 canary and 200 requests a minute, a fourfold rate is found in about 4 minutes; "
        "harmless differences between nodes may look like one"
    )


def test_ten_canaries_need_no_warning() -> None:
    comparison, found_within, message = of(figures.ERRORS, 10, 1000, HABITS["errors"])
    assert (comparison, found_within) == (C.NODES, figures.minutes(1))
    assert message == (
        "errors: with 10 canaries and 200 requests a minute each, a fourfold rate is found in about 60 seconds"
    )


def test_without_others_a_change_of_load_may_look_like_harm() -> None:
    comparison, found_within, message = of(figures.LATENCY, 2, 1, power.Habit(spread=0.05))
    assert (comparison, found_within) == (C.OWN_PAST, figures.minutes(1))
    assert message == (
        "latency: with 2 canaries, 1.5 times as much is found in about 60 seconds; "
        "without enough untouched nodes, a change of load may look like harm"
    )


def test_what_is_not_found_is_said() -> None:
    _, found_within, message = of(figures.RESTARTS, 10, 10, power.Habit(events_per_minute=0.001))
    assert found_within is None
    assert message == "restarts: with 10 canaries, a fourfold rate is not found before the analysis ends"


def test_less_of_what_is_good_is_harm() -> None:
    _, found_within, message = of(figures.HITS, 10, 10, power.Habit(events_per_minute=190, requests_per_minute=200))
    assert found_within == figures.minutes(1)
    assert "a quarter of the rate is found" in message
    _, found_within, message = of(figures.FREE, 10, 10, power.Habit(spread=0.01))
    assert found_within == figures.minutes(1)
    assert "1.5 times less is found" in message


def test_of_what_is_not_known_and_without_a_canary_nothing_is_promised() -> None:
    assert of(figures.ERRORS, 10, 10) == (
        C.NODES,
        None,
        "errors: how it behaves is not known yet, so neither is how soon harm is found",
    )
    assert of(figures.ERRORS, 0, 10, HABITS["errors"]) == (
        C.NONE,
        None,
        "errors: there is no canary, so nothing is found",
    )


def test_the_more_nodes_differ_the_later_harm_is_found() -> None:
    times = [of(figures.LATENCY, 10, 10, power.Habit(spread=spread))[1] for spread in (0.02, 0.17, 0.9)]
    assert times == [figures.minutes(1), times[1], None]
    alike, unlike = (
        of(figures.ERRORS, 1, 19, power.Habit(events_per_minute=1, spread=spread))[1] for spread in (0.0, 0.3)
    )
    assert alike is not None
    assert unlike is not None
    assert alike < unlike


def test_habits_are_learnt_from_the_past() -> None:
    sample = figures.sample([0], [0, 0], 120)
    assert power.habit(sample, figures.ERRORS.measure, figures.PAST) == power.Habit(1.0, 200.0, 0.1)
    assert power.habit(sample, figures.LATENCY.measure, figures.PAST) == power.Habit(spread=0.1)
    assert power.habit(sample, figures.RESTARTS.measure, figures.PAST) == power.Habit(1.0, 0.0, 0.1)


def test_without_a_past_there_are_no_habits() -> None:
    none = np.full(2, np.nan)
    sample = samples.Sample(np.array([True, False]), none, none, none, none, none)
    assert power.habit(sample, figures.ERRORS.measure, figures.PAST) is None
    unknown_spread = samples.Sample(np.array([True]), np.ones(1), np.ones(1), none[:1], none[:1], none[:1])
    found = power.habit(unknown_spread, figures.LATENCY.measure, figures.PAST)
    assert found == power.Habit()
