"""What one look shows of one metric: how far the canary moved, and how surely.

Rules kept: pure; the p-value is that of this look alone, and what it may be compared with is for `judge`. Arms may have
further axes in front, of which each entry is a comparison of its own. Left out: what is found of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from controller.core import model
from controller.core.analysis import arms, rates, samples, shifts, tallies

_LOG_MAX = 100.0  # a factor whose logarithm is more is without bound


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one look shows.

    Args:
        lift: By which factor the canary's figure moved more for the worse.
        low: Bound that the lift exceeds, at the level asked for.
        high: Bound that it stays under.
        p: Of "it is no worse than tolerated".
    """

    lift: samples.Floats
    low: samples.Floats
    high: samples.Floats
    p: samples.Floats


@dataclass(frozen=True, slots=True)
class Levels:
    """How often the bounds of a reading may be wrong.

    Args:
        low: Probability that the lift is below its lower bound.
        high: Probability that it is above its upper bound.
    """

    low: float
    high: float


def read(
    both: arms.Arms, comparison: model.Comparison, metric: model.JudgedMetric, levels: Levels, stretches: float
) -> Reading:
    """Compare both arms once.

    Args:
        both: Changed and untouched nodes.
        comparison: Any but NONE, and one that the numbers of nodes allow.
        metric: What is compared.
        levels: How surely the bounds hold.
        stretches: How often the time since the change fits into the past.
    """
    shown = _shown(both, comparison, metric, stretches)
    return Reading(
        lift=_factor(shown.size),
        low=_factor(shown.low(levels.low)),
        high=_factor(shown.high(levels.high)),
        p=shown.p(_tolerated(metric)),
    )


def p(both: arms.Arms, comparison: model.Comparison, metric: model.JudgedMetric, stretches: float) -> samples.Floats:
    """Give the p-value of "it is no worse than tolerated" alone; as `read` does, and quicker."""
    return _shown(both, comparison, metric, stretches).p(_tolerated(metric))


def is_spent(comparison: model.Comparison, *, is_count: bool) -> bool:
    """Whether each look spends of the error allowed; else the evidence is valid whenever it is read."""
    return comparison is model.Comparison.NODES or not is_count


def _shown(
    both: arms.Arms, comparison: model.Comparison, metric: model.JudgedMetric, stretches: float
) -> shifts.Shift | rates.Contrast | tallies.Tally:
    if not metric.measure.kind.is_count:
        found = _shift(both, comparison, stretches)
        return found.turned() if metric.is_lower_worse else found
    is_lower_worse = metric.is_lower_worse
    if comparison is model.Comparison.NODES:
        return rates.contrast(both, is_lower_worse=is_lower_worse)
    tally = tallies.pooled if comparison is model.Comparison.POOLED else tallies.own_past
    return tally(both, is_lower_worse=is_lower_worse)


def _shift(both: arms.Arms, comparison: model.Comparison, stretches: float) -> shifts.Shift:
    if comparison is model.Comparison.NODES:
        return shifts.figures(both)
    return shifts.few_figures(both) if comparison is model.Comparison.POOLED else shifts.past_figures(both, stretches)


def _factor(logarithm: samples.Floats) -> samples.Floats:
    return np.where(logarithm > _LOG_MAX, np.inf, np.exp(np.minimum(logarithm, _LOG_MAX)))


def _tolerated(metric: model.JudgedMetric) -> float:
    return math.log1p(metric.tolerance_percent / 100)
