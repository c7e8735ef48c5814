"""When node-level evidence is looked at, and how much of the error allowed each look may spend.

Theory of operation. A test that is looked at again and again errs more often than once. So there is a list of looks,
each half as late again as the one before, the last that is planned for just at the end; and each may spend a share of
the error that is allowed. All shares together, however many looks there come to be, are at most 1. A p-value divided by
its look's share, the least so far, is therefore valid whenever it is read. A part of the error falls off as
1/(k (k+1)), since great harm shows early; the greater part is shared equally by the looks that are planned for, since
small harm on unsteady nodes shows late.

Rules kept: pure; looks are a matter of elapsed time, not of how often somebody asks; looks that nobody took spend
nothing.

Source: union bound over looks, as in the stitching of Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform,
nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49 (2021), section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

GROWTH = 1.5  # about so much later lies each look; of 1.25, 1.5 and 2 it finds most, and what is great almost as early
_EARLY = 0.3  # of the error is for early looks, and for those after the end
_ROUNDING = 1e-6  # of a logarithm: an instant of a look, in whole microseconds, belongs to that look
_SHORTEST = timedelta(milliseconds=1)  # a first look at nothing is one after this


@dataclass(frozen=True, slots=True)
class Schedule:
    """The looks of one analysis.

    Args:
        first: Time after which it is looked at for the first time.
        end: Time by which it is planned to be decided; looks go on after it.
    """

    first: timedelta
    end: timedelta

    @property
    def planned(self) -> int:
        """Number of the last look that is planned for."""
        return 1 + max(round(math.log(self._span) / math.log(GROWTH)), 0)

    def number(self, elapsed: timedelta) -> int:
        """Give the number of the latest look at a time, from 1; 0 before the first."""
        first = max(self.first, _SHORTEST)
        return 0 if elapsed < first else 1 + math.floor(math.log(elapsed / first) / math.log(self._growth) + _ROUNDING)

    def instants(self) -> Iterator[timedelta]:
        """Give the time of each look that is planned for."""
        first = max(self.first, _SHORTEST)
        return (first * self._growth**number for number in range(self.planned))

    def share(self, elapsed: timedelta) -> float:
        """Give the share of the allowed error of the latest look at a time; before the first, that of the first."""
        look = max(self.number(elapsed), 1)
        return _EARLY / (look * (look + 1)) + ((1 - _EARLY) / self.planned if look <= self.planned else 0.0)

    @property
    def _span(self) -> float:
        return max(self.end / max(self.first, _SHORTEST), 1.0)

    @property
    def _growth(self) -> float:
        return self._span ** (1 / (self.planned - 1)) if self.planned > 1 else GROWTH
