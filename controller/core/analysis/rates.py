"""Events of many nodes on both sides, compared node by node.

Theory of operation. Each arm's rate is its events over those that its nodes' own pasts make expected (`pasts`). Adding
up first and dividing then keeps the rate unbiased however rare events are and however unlike the nodes; a mean of
logarithms of single nodes' counts would shrink a fourfold rate to nothing where most nodes count none. The node is the
unit all the same: how far single nodes lie from their arm's rate (the jackknife, so that one which carries most of the
events is not taken for many) says as how many independent events an arm's count is to be taken. It is never taken for
more than chance alone allows: an arm of zeros does not look precise. Each arm lends how unlike its nodes are to the
other, as if they were a few more of its own: few nodes often agree, or disagree, by accident.

Of two arms with so many independent events the worse one's share is binomial, given all; its tail is exact, also where
an arm has none. That the spread was estimated from so many nodes is allowed for by taking the tail for one of Student's
t.

What all nodes share, such as a rising load, is in both arms and cancels; what makes nodes unlike is in their pasts and
cancels; what makes one node's figures hang together in time is within the node and does no harm.

Source: conditional test of two Poisson rates: J. Przyborowski and H. Wilenski, Biometrika 31 (1940); scaled by the
dispersion: P. McCullagh and J. A. Nelder, "Generalized Linear Models", section 6.2.3. Jackknife of a ratio: W. G.
Cochran, "Sampling Techniques", 3rd edition, section 6.17. Degrees of freedom: B. L. Welch, Biometrika 34 (1947). Lent
spread: G. K. Smyth, Statistical Applications in Genetics and Molecular Biology 3 (2004).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from controller.core.analysis import arms, pasts, samples

LENT_NODES = 8.0  # as so many of its own nodes counts what an arm is lent of the other's spread
_WEIGHT_LEFT_MIN = 1e-3  # what one node leaves to the others, at least: the jackknife divides by it
_FREEDOM_MIN = 1.0  # of Student's t; where a single node carries nearly all
_NONE = 1e-9  # events in place of none, where a distribution needs some


@dataclass(frozen=True, slots=True, eq=False)
class Rate:
    """The rate of one arm.

    Args:
        events: Counted.
        expected: By the nodes' pasts.
        dispersion: Counted events that make one independent event; at least 1.
        freedom: Degrees of freedom of the dispersion.
    """

    events: samples.Floats
    expected: samples.Floats
    dispersion: samples.Floats
    freedom: samples.Floats

    @property
    def variance(self) -> samples.Floats:
        """Of the logarithm of the rate."""
        return self.dispersion / (self.events + pasts.PRIOR)


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """Two rates, of which the worse one would be higher."""

    worse: Rate
    other: Rate

    @property
    def size(self) -> samples.Floats:
        """Logarithm of the lift; one event, shared as expected, keeps it finite."""
        total = self.worse.expected + self.other.expected
        worse, other = (rate.events / rate.expected + 1 / total for rate in (self.worse, self.other))
        found: samples.Floats = np.log(worse / other)
        return found

    def p(self, tolerated: float) -> samples.Floats:
        """Give the p-value of "the lift is at most so much", a logarithm."""
        odds = np.exp(tolerated) / self._scale
        tail = special.betainc(
            np.maximum(self._independent(self.worse), _NONE), self._independent(self.other) + 1, odds / (1 + odds)
        )
        return np.asarray(special.stdtr(self._freedom, special.ndtri(tail)), dtype=np.float64)

    def low(self, level: float) -> samples.Floats:
        """Give the logarithm of the lift below which it lies with a probability of at most ``level``."""
        worse, other = self._independent(self.worse), self._independent(self.other)
        return self._lift(special.betaincinv(np.maximum(worse, _NONE), other + 1, self._tail(level)))

    def high(self, level: float) -> samples.Floats:
        """Give the logarithm of the lift above which it lies with a probability of at most ``level``."""
        worse, other = self._independent(self.worse), self._independent(self.other)
        lift = self._lift(special.betainccinv(worse + 1, np.maximum(other, _NONE), self._tail(level)))
        return np.where(other > 0, lift, np.inf)

    def _lift(self, share: npt.NDArray[np.floating]) -> samples.Floats:
        within = np.clip(np.asarray(share, dtype=np.float64), _NONE, 1 - _NONE)
        found: samples.Floats = np.log(within / (1 - within) * self._scale)
        return found

    def _tail(self, level: float) -> samples.Floats:
        return np.asarray(special.ndtr(special.stdtrit(self._freedom, level)), dtype=np.float64)

    @staticmethod
    def _independent(rate: Rate) -> samples.Floats:
        return rate.events / rate.dispersion

    @property
    def _scale(self) -> samples.Floats:
        """What the odds of an event on the worse side are to be multiplied with for the lift."""
        return (self.other.expected / self.other.dispersion) / (self.worse.expected / self.worse.dispersion)

    @property
    def _freedom(self) -> samples.Floats:
        worse, other = self.worse.variance, self.other.variance
        return (worse + other) ** 2 / (worse**2 / self.worse.freedom + other**2 / self.other.freedom)


def contrast(both: arms.Arms, *, is_lower_worse: bool) -> Contrast:
    """Compare both arms."""
    expected = pasts.expected(both)
    unlike = unlikeness(both.canary, expected[0]), unlikeness(both.control, expected[1])
    canary = _lent(rate(both.canary, expected[0]), expected[0], unlike[1])
    control = _lent(rate(both.control, expected[1]), expected[1], unlike[0])
    return Contrast(control, canary) if is_lower_worse else Contrast(canary, control)


def rate(arm: arms.Arm, expected: pasts.Expected) -> Rate:
    """Give the rate of an arm, and how exactly its nodes show it."""
    events = arm.after.sum(-1)
    weight = expected.events / expected.total[..., None]
    off = (arm.after - weight * events[..., None]) / np.maximum(1 - weight, _WEIGHT_LEFT_MIN)
    spread = (off**2).sum(-1) * (arm.count - 1) / arm.count
    return Rate(
        events,
        expected.total,
        np.maximum(1 + events * expected.doubt, spread / np.maximum(events, 1)),
        np.maximum(1 / expected.concentration - 1, _FREEDOM_MIN),
    )


def unlikeness(arm: arms.Arm, expected: pasts.Expected) -> samples.Floats:
    """Give the variance of how single nodes' rates moved beyond what chance gives, on logarithms."""
    grown = ((arm.after.sum(-1) + pasts.PRIOR) / (expected.total + pasts.PRIOR))[..., None]
    mean = grown * expected.events
    off = (arm.after - mean) ** 2 * arm.count / (arm.count - 1)
    chance = mean + grown**2 * expected.variance
    found: samples.Floats = np.maximum((off - chance).sum(-1), 0) / np.maximum((mean**2).sum(-1), pasts.PRIOR)
    return found


def _lent(own: Rate, expected: pasts.Expected, unlike: samples.Floats) -> Rate:
    """Take the other arm's unlikeness for that of a few more nodes of this one."""
    likely = 1 + own.events * (expected.doubt + unlike * expected.concentration)
    dispersion = (own.freedom * own.dispersion + LENT_NODES * likely) / (own.freedom + LENT_NODES)
    return replace(own, dispersion=dispersion, freedom=own.freedom + LENT_NODES)
