"""Events of few canary nodes against what their pasts, and the trend of the others, make expected.

Theory of operation. Of a mean that is known as exactly as ``known`` events show one, the number of further events is
negative binomial; where the ``known`` events are those of other nodes, that is the conditional binomial of two counts.
The evidence for a lift is the likelihood of the events under it over that under the tolerated one; the mean of it over
a few lifts is a non-negative martingale while the change is harmless, whenever it is read, and so exceeds 1/p with a
probability of at most p at any time (Ville). Nothing is spent on looks.

What is known is the past of the canary nodes themselves, the trend of the control nodes, and how unlike single control
nodes moved: the less alike, the less is known. So differences between nodes that last are in the pasts, and those that
come and go are allowed for as far as the others show them.

Source: conditional binomial and mixture of lifts: M. Lindon and A. Malek, "Anytime-valid inference for multinomial
count data", NeurIPS 2022. J. Ville, "Étude critique de la notion de collectif", 1939. Bounds: C. J. Clopper and
E. S. Pearson, Biometrika 26 (1934), with the negative binomial in place of the binomial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from controller.core.analysis import arms, pasts, rates, samples

LIFTS = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)  # over the tolerated one; evidence is the mean over them
_LOG_LIFTS = np.log(LIFTS)
_SHARE_MIN = 1e-9  # of all events; less is as if it were so much
_HALVINGS = 50  # of the interval in which a bound is sought: to a millionth of a millionth
_LOG_REACH = 50.0  # logarithm of the greatest lift that a bound may show


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Events, and what was expected of them.

    Args:
        events: Counted on canary nodes since their change.
        expected: Had they not been changed.
        known: As exactly as so many events show a mean is ``expected`` known.
        is_lower_worse: Whether fewer events are worse.
    """

    events: samples.Floats
    expected: samples.Floats
    known: samples.Floats
    is_lower_worse: bool = False

    @property
    def size(self) -> samples.Floats:
        """Logarithm of the lift, above 0 where the canary is worse."""
        grown: samples.Floats = np.log((self.events + pasts.PRIOR) / (self.expected + pasts.PRIOR))
        return -grown if self.is_lower_worse else grown

    def p(self, tolerated: float) -> samples.Floats:
        """Give the p-value of "the lift is at most so much", a logarithm; the least so far is valid at any time."""
        return np.exp(-np.maximum(self._evidence(np.array(tolerated)), 0))

    def low(self, level: float) -> samples.Floats:
        """Give the least logarithm of a lift that this evidence does not exclude at ``level``."""
        low, high = np.full(self.events.shape, -_LOG_REACH), np.full(self.events.shape, _LOG_REACH)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            is_excluded = self._evidence(middle) >= -np.log(level)
            low, high = np.where(is_excluded, middle, low), np.where(is_excluded, high, middle)
        return np.where(low <= -_LOG_REACH, -np.inf, low)

    def high(self, level: float) -> samples.Floats:
        """Give the logarithm of the lift from which on so little harm has a probability of at most ``level``."""
        if self.is_lower_worse:
            share = special.betaincinv(np.maximum(self.events, pasts.PRIOR), self.known, level)
            return np.where(self.events > 0, -self._ratio(share), np.inf)
        return self._ratio(1 - special.betaincinv(self.known, self.events + 1, level))

    def _ratio(self, share: npt.NDArray[np.floating]) -> samples.Floats:
        """Give the logarithm of events over expected ones at which they are such a share of them and the known ones."""
        within = np.clip(np.asarray(share, dtype=np.float64), _SHARE_MIN, 1 - _SHARE_MIN)
        found: samples.Floats = np.log(within / (1 - within) * self.known / self.expected)
        return found

    def _evidence(self, tolerated: samples.Floats) -> samples.Floats:
        """Give the logarithm of the evidence that the lift is above so much, a logarithm."""
        sign = -1 if self.is_lower_worse else 1
        lifts, mean = sign * _LOG_LIFTS, (self.expected * np.exp(sign * tolerated))[..., None]
        known, events = self.known[..., None], self.events[..., None]
        told = events * lifts + (events + known) * np.log((known + mean) / (known + mean * np.exp(lifts)))
        found: samples.Floats = special.logsumexp(told, axis=-1) - np.log(len(LIFTS))
        return found


def pooled(both: arms.Arms, *, is_lower_worse: bool) -> Tally:
    """Expect of the canary nodes what their pasts and the trend of the control nodes make of them."""
    canary, control = pasts.expected(both)
    trend = rates.rate(both.control, control)
    doubt = trend.variance + rates.unlikeness(both.control, control) * canary.concentration
    grown = (trend.events + pasts.PRIOR) / (trend.expected + pasts.PRIOR)
    return _tally(both.canary, canary, grown, doubt, is_lower_worse=is_lower_worse)


def own_past(both: arms.Arms, *, is_lower_worse: bool) -> Tally:
    """Expect of the canary nodes what their pasts alone make of them, as steady as those were."""
    canary, _ = pasts.expected(arms.Arms(both.canary, both.canary))
    unsteady = np.maximum(np.nan_to_num(both.canary.past_spread) ** 2 - 1 / (canary.events + pasts.PRIOR), 0).mean(-1)
    return _tally(both.canary, canary, np.ones_like(unsteady), unsteady, is_lower_worse=is_lower_worse)


def _tally(
    arm: arms.Arm, expected: pasts.Expected, grown: samples.Floats, doubt: samples.Floats, *, is_lower_worse: bool
) -> Tally:
    return Tally(arm.after.sum(-1), expected.total * grown, 1 / (expected.doubt + doubt), is_lower_worse)
