"""How far figures of canary nodes moved from those of control nodes, in units of how much single nodes move.

Theory of operation. All is done on logarithms, so that a lift is a difference: the mean over nodes of the logarithm of
after over before, of which each node has one, compared by Welch's t. Each side lends its spread to the other as if it
were that of a few more nodes: few nodes often agree by accident, and far out in its tail Welch's t errs then. Where
there are too few canary nodes for a spread of their own, that of the control nodes is taken; where there are too few of
those, that between stretches of the canary nodes' pasts.

Source: B. L. Welch, "The generalization of Student's problem when several different population variances are involved",
Biometrika 34 (1947). Lent spread: G. K. Smyth, "Linear models and empirical Bayes methods", Statistical Applications in
Genetics and Molecular Biology 3 (2004). J. R. Crawford and D. C. Howell, "Comparing an individual's test score against
norms derived from small samples", The Clinical Neuropsychologist 12 (1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from controller.core.analysis import arms, rates, samples

SPREAD_MIN = 0.01  # of a logarithm: figures that are all equal are not known better than to a hundredth
ZERO_SHARE = 1e-3  # of the mean of a figure; less counts as so much, since zero has no logarithm
_FREEDOM_MIN = 1.0  # of Student's t; with less nothing is known of a spread


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


def figures(both: arms.Arms) -> Shift:
    """Compare figures that are no counts node by node."""
    zero = _zero(both)
    canary, control = _mean(_changes(both.canary, zero)), _mean(_changes(both.control, zero))
    ratio = both.canary.count / both.control.count
    canary_kept, control_kept = (
        canary.freedom / (canary.freedom + rates.LENT_NODES),
        control.freedom / (control.freedom + rates.LENT_NODES),
    )
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
