"""What holds of every judgement, whatever figures come."""

from __future__ import annotations

import math
import random
from dataclasses import fields, replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from controller.core import model
from controller.core.analysis import samples
from tests.controller.core.analysis import figures

pytestmark = pytest.mark.core

F = model.Finding
METRICS = (figures.ERRORS, figures.LATENCY, figures.RESTARTS, figures.HITS, figures.FREE)
ARRAYS = ("before", "before_exposure", "after", "after_exposure", "past_spread")
NODES_MAX = 14

metrics = st.sampled_from(METRICS)
elapsed = st.sampled_from([0.0, 0.5, 1.0, 7.0, 10.0, 60.0, 600.0]).map(figures.minutes)
anything = st.one_of(
    st.floats(), st.sampled_from([0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e308, 1e15, 1e-308])
)


def of_nodes(values: st.SearchStrategy[float], count: int) -> st.SearchStrategy[samples.Floats]:
    return st.lists(values, min_size=count, max_size=count).map(lambda drawn: np.array(drawn, dtype=float))


@st.composite
def wild(draw: st.DrawFn) -> samples.Sample:
    """Draw a sample in which anything may stand."""
    count = draw(st.integers(0, NODES_MAX))
    is_canary = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
    return samples.Sample(is_canary, *(draw(of_nodes(anything, count)) for _ in ARRAYS))


@st.composite
def orderly(draw: st.DrawFn, canary_max: int = 8) -> samples.Sample:
    """Draw a sample as a working fleet has it."""
    changed = draw(st.integers(1, canary_max))
    count = changed + draw(st.integers(0, 8))
    events, exposures = st.integers(0, 300).map(float), st.floats(7200, 1e5)
    return samples.Sample(
        is_canary=np.arange(count) < changed,
        before=draw(of_nodes(events, count)),
        before_exposure=draw(of_nodes(exposures, count)),
        after=draw(of_nodes(events, count)),
        after_exposure=draw(of_nodes(exposures, count)),
        past_spread=draw(of_nodes(st.floats(0.01, 1), count)),
    )


def judged(metric: model.JudgedMetric, sample: samples.Sample, minutes: float = 10) -> model.Evidence:
    return figures.only(
        figures.judged(figures.analysis(metric), figures.minutes(minutes), None, **{metric.name: sample})
    )


def picked(sample: samples.Sample, which: samples.Floats) -> samples.Sample:
    return samples.Sample(*(getattr(sample, field.name)[which] for field in fields(sample)))


def assert_same(one: model.Evidence, other: model.Evidence) -> None:
    """Compare but for the rounding of sums, which depends on their order."""
    assert (one.finding, one.comparison, one.events) == (other.finding, other.comparison, other.events)
    for name in ("lift", "lift_low", "lift_high", "p", "canary_value", "control_value"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None) == (theirs is None)
        assert mine is None or mine == pytest.approx(theirs, rel=1e-6, abs=1e-12)


@given(metrics, wild(), elapsed, elapsed, wild())
def test_whatever_comes_is_answered_with_figures_and_words(
    metric: model.JudgedMetric,
    sample: samples.Sample,
    first: timedelta,
    second: timedelta,
    later: samples.Sample,
) -> None:
    how = figures.analysis(metric)
    with np.errstate(all="raise", under="ignore"):
        before = figures.judged(how, first, None, **{metric.name: sample})
        after = figures.judged(how, max(first, second), before, **{metric.name: later})
    for evidence in (*before.evidence, *after.evidence):
        told = (evidence.canary_value, evidence.control_value, evidence.lift, evidence.lift_low, evidence.p)
        assert all(value is None or math.isfinite(value) for value in (*told, evidence.lift_high))
        assert evidence.message.startswith(f"{metric.name}: ")
        assert "nan" not in evidence.message


@given(metrics, orderly(), st.randoms(use_true_random=False))
def test_the_order_of_nodes_changes_nothing(
    metric: model.JudgedMetric, sample: samples.Sample, shuffler: random.Random
) -> None:
    order = list(range(sample.after.size))
    shuffler.shuffle(order)
    assert_same(judged(metric, sample), judged(metric, picked(sample, np.array(order))))


@given(
    metric=metrics,
    sample=orderly(),
    name=st.sampled_from(ARRAYS[:4]),
    value=st.sampled_from([math.nan, math.inf, -1.0]),
    is_canary=st.booleans(),
)
def test_nodes_that_miss_something_are_as_if_absent(
    metric: model.JudgedMetric, sample: samples.Sample, name: str, value: float, *, is_canary: bool
) -> None:
    more = samples.Sample(*(np.append(getattr(sample, field.name), 1e4) for field in fields(sample)))
    more = replace(more, is_canary=np.append(sample.is_canary, is_canary))
    getattr(more, name)[-1] = value
    assert_same(judged(metric, sample), judged(metric, more))


@given(st.sampled_from([figures.ERRORS, figures.HITS]), orderly(), st.floats(0.01, 1000))
def test_the_unit_of_exposure_changes_nothing(
    metric: model.JudgedMetric, sample: samples.Sample, factor: float
) -> None:
    scaled = replace(
        sample, before_exposure=sample.before_exposure * factor, after_exposure=sample.after_exposure * factor
    )
    one, other = judged(metric, sample), judged(metric, scaled)
    assert_same(
        replace(one, canary_value=None, control_value=None), replace(other, canary_value=None, control_value=None)
    )


@given(st.sampled_from([figures.LATENCY, figures.FREE]), orderly(), st.floats(0.01, 1000))
def test_the_unit_of_a_figure_changes_nothing(
    metric: model.JudgedMetric, sample: samples.Sample, factor: float
) -> None:
    scaled = replace(sample, before=sample.before * factor, after=sample.after * factor)
    one, other = judged(metric, sample), judged(metric, scaled)
    assert_same(
        replace(one, canary_value=None, control_value=None), replace(other, canary_value=None, control_value=None)
    )


@given(metrics, orderly(), st.floats(1, 10))
def test_more_harm_is_a_greater_lift(metric: model.JudgedMetric, sample: samples.Sample, factor: float) -> None:
    assume(metric in (figures.ERRORS, figures.RESTARTS))
    more = replace(sample, after=np.where(sample.is_canary, sample.after * factor, sample.after))
    one, other = judged(metric, sample), judged(metric, more)
    assert one.lift is not None
    assert other.lift is not None
    assert other.lift >= one.lift * (1 - 1e-9)


@given(orderly(canary_max=4), st.integers(1, 50))
def test_among_few_nodes_another_event_is_never_evidence_for_them(sample: samples.Sample, more: int) -> None:
    added = sample.after.copy()
    added[0] += more
    one, other = judged(figures.ERRORS, sample), judged(figures.ERRORS, replace(sample, after=added))
    assume(one.p is not None and other.p is not None)
    assert (other.p or 0) <= (one.p or 0) * (1 + 1e-9)


@given(metrics, orderly())
def test_arms_that_are_the_same_are_never_worse(metric: model.JudgedMetric, sample: samples.Sample) -> None:
    twice = samples.Sample(*(np.concatenate([getattr(sample, field.name)] * 2) for field in fields(sample)))
    twice = replace(twice, is_canary=np.arange(twice.after.size) < sample.after.size)
    evidence = judged(metric, twice)
    # Against their own past alone both arms may well be worse.
    assert evidence.comparison is model.Comparison.OWN_PAST or evidence.finding is not F.WORSE
