"""What an analysis will find, said before it begins.

Theory of operation. The judge's own tests are asked what they would say of figures that lie just where they are
expected, harm included: the first instant at which that is WORSE is about the time within which half of such rollouts
are found. Nodes that differ are laid out at equal steps of a normal distribution, so that their spread is as expected.

Rules kept: pure, deterministic, no randomness. Left out: where the expectations come from.

Source: exemplary data sets, R. G. O'Brien, "Using the SAS system to perform power analyses for log-linear models",
SUGI 11 (1986).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from scipy import special

from controller.core import model
from controller.core.analysis import arms, judge, pasts, phrases, readings, samples

COUNT_LIFT_PERCENT = phrases.FOURFOLD_PERCENT  # harm of which it is said when it is found: four times the events ...
FIGURE_LIFT_PERCENT = 50  # ... or half as much again of any other figure
_STEP = timedelta(seconds=10)  # the judge is asked so often where its evidence is valid at any time
_STEPS_MAX = 360  # of them: of a longer analysis each step is longer
_NODES_MAX = 1000  # on a side; more change nothing and take time
_MEAN_MIN = 0.1  # events of a node; of fewer, chance is not laid out any wider
_LUCK = 0.4  # mean of a standard normal variable where it is above 0, and 0 elsewhere
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Habit:
    """How one metric behaves on a node while nothing is changed.

    Args:
        events_per_minute: Of counts, on one node: requests a minute times the share of them that fails.
        requests_per_minute: Of RATIO, on one node; 0 for all else.
        spread: Standard deviation, between nodes, of the logarithm of the figure now over that of the node's own past,
            beyond what chance gives for counts; without control nodes that between stretches of the past.
    """

    events_per_minute: float = 0.0
    requests_per_minute: float = 0.0
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class _Case:
    """One metric of an analysis over so many nodes."""

    analysis: model.Analysis
    metric: model.JudgedMetric
    canary: int
    control: int
    habit: Habit

    @property
    def is_count(self) -> bool:
        return self.metric.measure.kind.is_count

    @property
    def lift_percent(self) -> int:
        return COUNT_LIFT_PERCENT if self.is_count else FIGURE_LIFT_PERCENT

    @property
    def end(self) -> timedelta:
        return max(self.analysis.duration, self.analysis.inconclusive_after)


def power(
    analysis: model.Analysis, canary_nodes: int, control_nodes: int, habits: Mapping[str, Habit]
) -> tuple[model.Power, ...]:
    """Say of each metric how soon harm is found in half of the cases.

    Args:
        analysis: What is compared, and how surely.
        canary_nodes: Nodes of the canary wave, at least 1.
        control_nodes: Nodes that stay untouched meanwhile and can be compared with.
        habits: By name of the metric; of one without nothing can be said.
    """
    return tuple(_power(analysis, metric, (canary_nodes, control_nodes), habits) for metric in analysis.metrics)


def habit(sample: samples.Sample, measure: model.Measure, past: timedelta) -> Habit | None:
    """Learn from the past of all nodes how a metric behaves; None where no node has one.

    Args:
        sample: One entry for each node; only what was before counts.
        measure: What the figures are.
        past: How long the past of the sample is.
    """
    minutes = past / _MINUTE
    is_known = arms.is_past_known(sample)
    if not is_known.any():
        return None
    before, exposure = sample.before[is_known].mean() / minutes, sample.before_exposure[is_known].mean() / minutes
    spread = sample.past_spread[np.isfinite(sample.past_spread)]
    return Habit(
        events_per_minute=float(before) if measure.kind.is_count else 0.0,
        requests_per_minute=float(exposure) if measure.kind is model.MeasureKind.RATIO else 0.0,
        spread=float(np.median(spread)) if spread.size else 0.0,
    )


def _power(
    analysis: model.Analysis, metric: model.JudgedMetric, nodes: tuple[int, int], habits: Mapping[str, Habit]
) -> model.Power:
    canary, control = (min(count, _NODES_MAX) for count in nodes)
    known = habits.get(metric.name)
    case = _Case(analysis, metric, canary, control, known or Habit())
    comparison = arms.comparison(_expected(case, _MINUTE), is_count=case.is_count)
    found = None
    if known is not None and comparison is not model.Comparison.NONE:
        found = next((at for at in _instants(case, comparison) if _is_found(case, comparison, at)), None)
    message = phrases.power(
        metric, nodes, None if known is None else known.requests_per_minute, case.lift_percent, found, comparison
    )
    return model.Power(metric.name, comparison, case.lift_percent, found, message)


def _instants(case: _Case, comparison: model.Comparison) -> Iterator[timedelta]:
    if readings.is_spent(comparison, is_count=case.is_count):
        return judge.schedule(case.analysis).instants()
    step = max(min(_STEP, case.analysis.first_look), case.end / _STEPS_MAX)
    return (step * number for number in range(1, case.end // step + 1))


def _is_found(case: _Case, comparison: model.Comparison, at: timedelta) -> bool:
    stretches = case.analysis.past / at
    alpha = judge.alpha(case.analysis)
    if readings.is_spent(comparison, is_count=case.is_count):
        alpha *= judge.schedule(case.analysis).share(at)
    return bool(readings.p(_expected(case, at), comparison, case.metric, stretches) <= alpha)


def _expected(case: _Case, at: timedelta) -> arms.Arms:
    lift = 1 + case.lift_percent / 100
    return arms.Arms(
        _arm(case, case.canary, at, 1 / lift if case.metric.is_lower_worse else lift), _arm(case, case.control, at, 1.0)
    )


def _arm(case: _Case, count: int, at: timedelta, lift: float) -> arms.Arm:
    past, now = np.full(count, case.analysis.past / _MINUTE), np.full(count, at / _MINUTE)
    spread = np.full(count, case.habit.spread)
    scores = _scores(count)
    if not case.is_count:
        return arms.Arm(np.ones(count), past, lift * np.exp(case.habit.spread * scores), now, spread)
    mean = case.habit.events_per_minute * (at / _MINUTE) * lift
    # What chance alone spreads is estimated too high as often as too low, and the judge goes by the higher ones.
    luck = 1 + _LUCK * math.sqrt(2 / max(count - 1, 1))
    # So laid out a node may come to less than no events, which no sum over nodes minds.
    moves = 1 + math.hypot(case.habit.spread, math.sqrt(luck / max(mean, _MEAN_MIN))) * scores
    between = np.hypot(spread, 1 / math.sqrt(mean + pasts.PRIOR))
    return arms.Arm(case.habit.events_per_minute * past, past, mean * moves, now, between)


def _scores(count: int) -> samples.Floats:
    """Give so many equal steps of a normal distribution, with a standard deviation of 1; of one node the middle."""
    if count <= 1:
        return np.zeros(count)
    scores = np.asarray(special.ndtri((np.arange(count) + 0.5) / count), dtype=np.float64)
    scores /= scores.std(ddof=1)
    return scores
