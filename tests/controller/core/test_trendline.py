"""A figure against the line that its own past was on: a departure, or a trend, an outlier or chance."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pytest

from controller.core import model
from controller.core.monitoring import observing

pytestmark = pytest.mark.core

K, NAN = model.MeasureKind, float("nan")
PIECES = observing.LINE_PIECES
T = np.arange(PIECES)
MIDDLE = PIECES - 0.5 + PIECES / 24  # of five minutes behind an hour, in pieces
RULE = model.Rule(
    name="slow",
    component=model.ComponentName("web"),
    measure=model.Measure(K.MEAN, "seconds_total", "requests_total"),
    fire_at=1.5,
    clear_at=1.2,
    basis=model.RuleBasis.TRENDLINE,
    window=timedelta(minutes=5),
    past=timedelta(hours=1),
    least_exposure=10.0,
)
LOW = replace(RULE, fire_at=0.5, clear_at=0.8, is_below=True)
Floats = observing.Floats
WELL_KNOWN = np.full(PIECES, 100.0)


def off(past: npt.ArrayLike, now: float, rule: model.Rule = RULE, *, over: npt.ArrayLike = WELL_KNOWN) -> float:
    """What the rule compares with its thresholds, on a node with this past."""
    before = observing.Seen(np.array([past], float), np.array([over], float))
    found = observing.observe(rule, _seen(np.array([[now]])), before)
    [value] = found.tolist()
    return float(value)


def drawn(*, seed: int, nodes: int, spread: float, now: float = 1.0) -> Floats:
    """What is compared on many nodes whose figures scatter about a level, and are this many times that now."""
    random = np.random.default_rng(seed)
    past = np.exp(random.normal(0, spread, (nodes, PIECES)))
    piece_share = RULE.past / PIECES / RULE.window
    window = now * np.exp(random.normal(0, spread * np.sqrt(piece_share), (nodes, 1)))
    return observing.observe(RULE, _seen(window), _seen(past))


def _seen(values: npt.ArrayLike) -> observing.Seen:
    found = np.array(values, float)
    return observing.Seen(found, np.full_like(found, 100.0))


def counted(rate: float, *, seed: int, now: float = 1.0, nodes: int = 4_000) -> Floats:
    """The same of events by chance, so many a minute."""
    random = np.random.default_rng(seed)
    minutes = RULE.past / PIECES / timedelta(minutes=1)
    past = random.poisson(rate * minutes, (nodes, PIECES)).astype(float)
    window = random.poisson(now * rate * 5, (nodes, 1)).astype(float)
    rule = replace(RULE, measure=model.Measure(K.RATE, "errors_total"))
    return observing.observe(
        rule,
        observing.Seen(window, np.full_like(window, 300.0)),
        observing.Seen(past, np.full_like(past, 60 * minutes)),
    )


@pytest.mark.parametrize("rise", [0.0, 1.0, 5.0, 20.0])
def test_a_trend_that_simply_continues_is_no_departure(rise: float) -> None:
    assert off(10 + rise * T, 10 + rise * MIDDLE) == pytest.approx(1)


@pytest.mark.parametrize("rise", [0.0, 1.0, 5.0])
def test_a_step_is_a_departure_also_on_top_of_a_trend(rise: float) -> None:
    expected = 100 + rise * MIDDLE
    assert off(100 + rise * T, 1.8 * expected) == pytest.approx(1.8)
    assert off(100 + rise * T, 0.3 * expected, LOW) == pytest.approx(0.3, rel=0.5)


def test_a_step_that_a_comparison_with_the_mean_of_the_past_would_miss_is_seen() -> None:
    falling = 1000 - 60.0 * T  # to 130 in the window, or 160 where it ceases to fall
    assert np.mean(falling) > 400 > 1.5 * (1000 - 60 * (PIECES - 0.5))
    assert off(falling, 400.0) == pytest.approx(400 / (1000 - 60 * (PIECES - 0.5)))


def test_what_ceases_to_get_better_is_no_worse() -> None:
    assert off(1000 - 60.0 * T, 1000 - 60 * (PIECES - 0.5)) == pytest.approx(1)
    assert off(1000 - 60.0 * T, 1000 - 60 * MIDDLE) < 1
    assert off(100 + 10.0 * T, 100 + 10 * (PIECES - 0.5), LOW) == pytest.approx(1)


def test_where_low_is_bad_a_fall_that_continues_is_no_departure() -> None:
    assert off(1000 - 10.0 * T, 1000 - 10 * MIDDLE, LOW) == pytest.approx(1)
    assert off(1000 - 10.0 * T, 300.0, LOW) == pytest.approx(300 / (1000 - 10 * MIDDLE))


@pytest.mark.parametrize("outlier", [0.0, 5_000.0, 1e9])
def test_outliers_in_the_past_do_not_matter(outlier: float) -> None:
    past = 100 + 2.0 * T
    past[[2, 7, 12]] = outlier
    assert off(past, 100 + 2 * MIDDLE) == pytest.approx(1, rel=0.02)
    assert off(past, 2 * (100 + 2 * MIDDLE)) == pytest.approx(2, rel=0.02)


def test_a_step_that_is_long_past_is_what_is_expected_now() -> None:
    past = np.where(T < 2, 100.0, 200.0)
    assert off(past, 200.0) == pytest.approx(1)


@pytest.mark.parametrize("known", [0, 1, observing.LINE_PIECES_MIN - 1])
def test_of_too_little_past_nothing_is_said(known: int) -> None:
    assert np.isnan(off(np.where(PIECES - known > T, NAN, 100.0), 500.0))
    assert np.isnan(off(np.full(PIECES, 100.0), 500.0, over=np.where(PIECES - known > T, 1.0, 100.0)))


def test_a_past_with_gaps_is_enough_where_half_of_it_is_known() -> None:
    assert off(np.where(T % 2, NAN, 100.0), 500.0) == pytest.approx(5)


def test_of_a_window_with_too_little_nothing_is_said() -> None:
    thin = observing.Seen(np.array([[500.0]]), np.array([[9.0]]))
    assert np.isnan(observing.observe(RULE, thin, _seen(np.full((1, PIECES), 100.0)))).all()
    assert np.isnan(observing.observe(RULE, _seen(np.array([[NAN]])), _seen(np.full((1, PIECES), 100.0)))).all()


def test_without_a_past_and_where_the_line_leads_to_nothing_nothing_is_said() -> None:
    assert np.isnan(observing.observe(RULE, _seen(np.array([[500.0]])))).all()
    assert np.isnan(off(np.zeros(PIECES), 5.0))
    assert np.isnan(off(np.full(PIECES, -5.0), 5.0))


def test_a_figure_that_scatters_has_to_depart_by_more() -> None:
    calm, restless = np.full(PIECES, 100.0), 100 + 20.0 * (T % 3 - 1)
    assert off(calm, 130.0) == pytest.approx(1.3)
    assert off(restless, 130.0) == pytest.approx(1, abs=0.05)
    assert 1.5 < off(restless, 250.0) < 2.5


def test_the_fleet_is_looked_at_as_one() -> None:
    fleet = replace(RULE, scope=model.RuleScope.FLEET)
    past = np.stack([np.full(PIECES, 100.0), np.full(PIECES, 300.0)])
    found = observing.observe(fleet, _seen(np.array([[300.0], [300.0]])), _seen(past))
    assert found.tolist() == pytest.approx([1.5])


def test_each_node_is_looked_at_by_itself() -> None:
    past = np.stack([np.full(PIECES, 100.0), np.full(PIECES, NAN), 100 + 10.0 * T])
    now = np.array([[200.0], [200.0], [100 + 10 * MIDDLE]])
    assert observing.observe(RULE, _seen(now), _seen(past)).tolist() == pytest.approx([2, NAN, 1], nan_ok=True)


@pytest.mark.parametrize(
    ("spread", "false_alarms"), [(0.05, 0.0), (0.1, 0.0), (0.2, 0.002), (0.3, 0.01)], ids=["5%", "10%", "20%", "30%"]
)
def test_figures_that_scatter_about_a_level_seldom_raise_a_false_alarm(spread: float, false_alarms: float) -> None:
    found = drawn(seed=7, nodes=10_000, spread=spread)
    assert np.mean(found > RULE.fire_at) <= false_alarms
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("spread", "power"), [(0.05, 0.99), (0.1, 0.85), (0.2, 0.5)], ids=["5%", "10%", "20%"])
def test_figures_that_double_are_seen_in_spite_of_their_scatter(spread: float, power: float) -> None:
    assert np.mean(drawn(seed=8, nodes=4_000, spread=spread, now=2.0) > RULE.fire_at) >= power


@pytest.mark.parametrize("rate", [0.05, 0.2, 1.0, 5.0, 20.0])
def test_rare_events_seldom_raise_a_false_alarm(rate: float) -> None:
    assert np.mean(counted(rate, seed=9) > RULE.fire_at) <= 0.02


def test_events_that_are_not_rare_are_seen_when_there_are_more() -> None:
    assert np.mean(counted(20.0, seed=10, now=3.0) > RULE.fire_at) >= 0.99
    assert np.mean(counted(5.0, seed=10, now=5.0) > RULE.fire_at) >= 0.95
