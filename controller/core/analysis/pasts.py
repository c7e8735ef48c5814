"""What each node's own past makes expected of it, in events.

Theory of operation. A node's rate is that of its past; where it has seen next to nothing, that of the fleet: as if each
node had seen one more event, over the time in which the fleet sees one. So a node with many events stands for itself,
nodes that have seen none are as likely as each other to see the first, and errors that nobody ever saw before are found
as soon as only changed nodes show them. How unlike nodes are beyond that shows in how far they lie from what was
expected.

Source: gamma prior of the rate of a Poisson variable around the mean of its group, as in C. N. Morris, "Parametric
empirical Bayes inference", Journal of the American Statistical Association 78 (1983).
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.core.analysis import arms, samples

LENT_EVENTS = 1.0  # events that the fleet lends to each node's past
PRIOR = 0.5  # events that are added to the past of a fleet: Jeffreys


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """Events expected of the nodes of one arm, the last axis.

    Args:
        events: Had nothing changed since the past.
        variance: Of ``events``, since pasts are short.
    """

    events: samples.Floats
    variance: samples.Floats

    @property
    def total(self) -> samples.Floats:
        """Of the whole arm."""
        found: samples.Floats = self.events.sum(-1)
        return found

    @property
    def doubt(self) -> samples.Floats:
        """Variance of the logarithm of the total."""
        found: samples.Floats = self.variance.sum(-1) / self.total**2
        return found

    @property
    def concentration(self) -> samples.Floats:
        """One over the number of nodes of which it is expected, were it shared equally."""
        found: samples.Floats = (self.events**2).sum(-1) / self.total**2
        return found


def expected(both: arms.Arms) -> tuple[Expected, Expected]:
    """Give what is expected of the canary's nodes and of the control's."""
    events = both.canary.before.sum(-1) + both.control.before.sum(-1) + PRIOR
    exposure = both.canary.before_exposure.sum(-1) + both.control.before_exposure.sum(-1)
    lent = LENT_EVENTS * (exposure / events)[..., None]
    return _expected(both.canary, lent), _expected(both.control, lent)


def _expected(arm: arms.Arm, lent: samples.Floats) -> Expected:
    seen = arm.before + LENT_EVENTS
    growth = arm.after_exposure / (arm.before_exposure + lent)
    return Expected(seen * growth, seen * growth**2)
