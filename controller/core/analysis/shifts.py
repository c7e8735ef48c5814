"""How far canary nodes moved from control nodes, each against its own past, in units of how much single nodes move.

Theory of operation. All is done on logarithms, so that a lift is a difference.

Counts: each arm's rate is its events after over those that its nodes' own pasts make expected. Adding up first and
dividing then keeps the rate unbiased however rare events are and however unlike the nodes; a mean of logarithms of
single nodes' counts would shrink a fourfold rate to nothing where most nodes count none. The node is the unit all the
same: the error of the rate is made of how far single nodes lie from their arm's rate (the jackknife, so that one which
carries most of the events is not taken for many). It is never less than what chance alone gives for so many events: an
arm without any does not look precise. Half an event is added to each arm, so that zero before or after is harmless and
errors where there were none before are found.

Other figures: the mean over nodes of the logarithm of after over before, compared by Welch's t. Where there are too few
canary nodes for a spread of their own, the spread of the control nodes is taken. Else each side
lends its spread to the other as if it were that of a few more nodes: few nodes often agree by accident, and far out in
its tail Welch's t errs then.

What all nodes share, such as a rising load, is in both arms and cancels; what makes nodes unlike is in their pasts and
cancels; what makes one node's figures hang together in time is within the node and does no harm.

Source: B. L. Welch, "The generalization of Student's problem when several different population variances are involved",
Biometrika 34 (1947). J. R. Crawford and D. C. Howell, "Comparing an individual's test score against norms derived from
small samples", The Clinical Neuropsychologist 12 (1998). Jackknife of a ratio: W. G. Cochran, "Sampling Techniques",
3rd edition, section 6.17.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from controller.core.analysis import arms, samples

PRIOR = 0.5  # events added to an arm, before and after: Jeffreys
SPREAD_MIN = 0.01  # of a logarithm: figures that are all equal are not known better than to a hundredth
ZERO_SHARE = 1e-3  # of the mean of a figure; less counts as so much, since zero has no logarithm
_LENT = 8.0  # nodes as which the other side's spread counts
_WEIGHT_LEFT_MIN = 1e-3  # what one node leaves to the others, at least: the jackknife divides by it
_FREEDOM_MIN = 1.0  # of Student's t; where a single node carries nearly all


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    """A difference of logarithms, above 0 where the canary's figure grew more.

    Args:
        size: Mean canary minus mean control.
        variance: Of ``size``.
        freedom: Degrees of freedom of the variance; where there is less than 1, nothing can be said.
    """

    size: samples.Floats
    variance: samples.Floats
    freedom: samples.Floats

    @property
    def error(self) -> samples.Floats:
        """Standard error of ``size``."""
        return np.sqrt(self.variance)

    def turned(self) -> Shift:
        """Turn it round, for figures of which less is worse."""
        return Shift(-self.size, self.variance, self.freedom)

    def p(self, tolerated: float) -> samples.Floats:
        """Give the p-value of "it is at most so much", a difference of logarithms."""
        found: samples.Floats = special.stdtr(self.freedom, (tolerated - self.size) / self.error)
        return np.where(self.freedom < _FREEDOM_MIN, 1.0, found)

    def low(self, level: float) -> samples.Floats:
        """Give the bound below which the difference lies with a probability of at most ``level``."""
        return self.size + self._reach(level)

    def high(self, level: float) -> samples.Floats:
        """Give the bound above which it lies with a probability of at most ``level``."""
        return self.size - self._reach(level)

    def _reach(self, level: float) -> samples.Floats:
        found: samples.Floats = special.stdtrit(np.maximum(self.freedom, _FREEDOM_MIN), level) * self.error
        return np.where(self.freedom < _FREEDOM_MIN, -np.inf, found)


def counts(both: arms.Arms) -> Shift:
    """Compare counts node by node."""
    return _difference(rate(both.canary), rate(both.control))


def rate(arm: arms.Arm) -> Shift:
    """Give the logarithm of an arm's events over the expected ones, and how exactly its nodes show it."""
    added = PRIOR * arm.after_exposure / arm.after_exposure.sum(-1, keepdims=True)
    events, expected = arm.after + added, arm.before * arm.growth + added
    all_events, all_expected = events.sum(-1, keepdims=True), expected.sum(-1, keepdims=True)
    weight = expected / all_expected
    off = (events / all_events - weight) / np.maximum(1 - weight, _WEIGHT_LEFT_MIN)
    spread = (off**2).sum(-1) * (arm.count - 1) / arm.count
    return Shift(
        np.log(all_events / all_expected)[..., 0],
        np.maximum(spread, 1 / all_events[..., 0] + past_variance(arm)),
        np.maximum(1 / (weight**2).sum(-1) - 1, _FREEDOM_MIN),
    )


def past_variance(arm: arms.Arm) -> samples.Floats:
    """Give how exactly the pasts show what is expected: the variance of its logarithm that chance alone gives."""
    expected = arm.before * arm.growth
    found: samples.Floats = (expected * arm.growth).sum(-1) / (expected.sum(-1) + PRIOR) ** 2
    return found


def figures(both: arms.Arms) -> Shift:
    """Compare figures that are no counts node by node."""
    zero = _zero(both)
    canary, control = _mean(_changes(both.canary, zero)), _mean(_changes(both.control, zero))
    ratio = both.canary.count / both.control.count
    canary_kept, control_kept = canary.freedom / (canary.freedom + _LENT), control.freedom / (control.freedom + _LENT)
    # The variance of each mean is made of both sides; here all that is made of one side is put together.
    from_canary = canary.variance * (canary_kept + (1 - control_kept) * ratio)
    from_control = control.variance * (control_kept + (1 - canary_kept) / ratio)
    return _difference(
        Shift(canary.size, from_canary, canary.freedom), Shift(control.size, from_control, control.freedom)
    )


def few_figures(both: arms.Arms) -> Shift:
    """Compare figures of few canary nodes with how control nodes spread."""
    zero = _zero(both)
    canary, control = _changes(both.canary, zero), _mean(_changes(both.control, zero))
    ratio = both.control.count / both.canary.count
    return Shift(canary.mean(-1) - control.size, control.variance * (1 + ratio), control.freedom)


def past_figures(both: arms.Arms, stretches: float) -> Shift:
    """Compare figures of canary nodes with how they spread in their own pasts.

    What moves one node's past may have moved all, so several nodes count as one.

    Args:
        both: Of which only the canary counts.
        stretches: How often the time since the change fits into the past: so many figures made the spread.
    """
    arm = both.canary
    is_known = np.isfinite(arm.past_spread)
    known = np.maximum(is_known.sum(-1), 1)
    spread = np.maximum(np.nan_to_num(arm.past_spread), SPREAD_MIN)
    size = np.where(is_known, _changes(arm, _zero(both)), 0).sum(-1) / known
    variance = np.where(is_known, spread**2, 0).sum(-1) / known
    freedom = np.where(is_known.any(-1), max(stretches - 1, 0.0), 0.0)
    return Shift(size, np.maximum(variance, SPREAD_MIN**2) * (1 + 1 / max(stretches, 1.0)), freedom)


def _zero(both: arms.Arms) -> samples.Floats:
    """Give what figures count as that are less: a small share of the mean before, or after where that was zero."""
    before = np.concatenate([both.canary.before, both.control.before], -1).mean(-1, keepdims=True)
    after = np.concatenate([both.canary.after, both.control.after], -1).mean(-1, keepdims=True)
    mean = np.where(before > 0, before, after)
    return np.where(mean > 0, mean * ZERO_SHARE, 1.0)


def _changes(arm: arms.Arm, zero: samples.Floats) -> samples.Floats:
    found: samples.Floats = np.log(np.maximum(arm.after, zero) / np.maximum(arm.before, zero))
    return found


def _mean(values: samples.Floats) -> Shift:
    count = values.shape[-1]
    spread = np.maximum(values.var(-1, ddof=1), SPREAD_MIN**2)
    return Shift(values.mean(-1), spread / count, np.full(spread.shape, count - 1.0))


def _difference(canary: Shift, control: Shift) -> Shift:
    variance = canary.variance + control.variance
    freedom = variance**2 / (canary.variance**2 / canary.freedom + control.variance**2 / control.freedom)
    return Shift(canary.size - control.size, variance, freedom)
