"""The nodes of one side of a comparison, those with figures before and after only.

Rules kept: what is not a finite number, negative or beyond all measure is missing; a node that misses anything is as if
absent. Arrays may have further axes in front, of which each entry is a comparison of its own: nodes are the last axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from controller.core import model
from controller.core.analysis import samples

FIGURE_MAX = 1e15  # more of anything is no figure but a fault; squares and products stay finite
SPREAD_MAX = 50.0  # of a logarithm; more is no spread but a fault
EXPOSURE_MIN = 1e-6  # requests, seconds or readings: less is none
PAST_SHARE_MIN = 0.5  # of the past that is asked for; a node that was seen for less has none
NODES_MIN = 5  # nodes on each side, from which on they are compared node by node: a spread from fewer is no spread
TREND_NODES_MIN = 3  # untouched nodes from which on their events show the trend that all share


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """Figures of one side, as in `samples.Sample`; the last axis are nodes."""

    before: samples.Floats
    before_exposure: samples.Floats
    after: samples.Floats
    after_exposure: samples.Floats
    past_spread: samples.Floats

    @property
    def count(self) -> int:
        """Number of nodes."""
        return int(self.after.shape[-1])


@dataclass(frozen=True, slots=True, eq=False)
class Arms:
    """Both sides of a comparison."""

    canary: Arm
    control: Arm


def of(sample: samples.Sample, measure: model.Measure, past: timedelta) -> Arms:
    """Take apart changed and untouched nodes, without those that miss something.

    Args:
        sample: One entry for each node.
        measure: What the figures are.
        past: How much of its own past each node is compared with. Where exposure is time, a node that was seen for
            less than half of it drops out; elsewhere whoever makes the sample sees to that.
    """
    is_whole = is_past_known(sample) & _is_exposure(sample.after_exposure) & _is_figure(sample.after)
    if measure.kind is model.MeasureKind.RATE:
        is_whole &= np.nan_to_num(sample.before_exposure) >= PAST_SHARE_MIN * past.total_seconds()
    return Arms(_taken(sample, is_whole & sample.is_canary), _taken(sample, is_whole & ~sample.is_canary))


def is_past_known(sample: samples.Sample) -> samples.Flags:
    """Tell which nodes have a past."""
    return _is_exposure(sample.before_exposure) & _is_figure(sample.before)


def comparison(arms: Arms, *, is_count: bool) -> model.Comparison:
    """Choose how both sides are compared, by how many nodes there are."""
    canary, control = arms.canary.count, arms.control.count
    if canary == 0:
        return model.Comparison.NONE
    if canary >= NODES_MIN and control >= NODES_MIN:
        return model.Comparison.NODES
    few = canary < NODES_MIN and control >= (TREND_NODES_MIN if is_count else NODES_MIN)
    return model.Comparison.POOLED if few else model.Comparison.OWN_PAST


def _is_figure(values: samples.Floats) -> samples.Flags:
    return (values >= 0) & (values <= FIGURE_MAX)


def _is_exposure(values: samples.Floats) -> samples.Flags:
    return (values >= EXPOSURE_MIN) & (values <= FIGURE_MAX)


def _spread(values: samples.Floats) -> samples.Floats:
    return np.where((values >= 0) & (values <= SPREAD_MAX), values, np.nan)


def _taken(sample: samples.Sample, chosen: samples.Flags) -> Arm:
    return Arm(
        before=sample.before[chosen],
        before_exposure=sample.before_exposure[chosen],
        after=sample.after[chosen],
        after_exposure=sample.after_exposure[chosen],
        past_spread=_spread(sample.past_spread[chosen]),
    )
