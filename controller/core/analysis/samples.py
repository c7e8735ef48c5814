"""What the judge looks at: one figure over many nodes, before and after.

Rules kept: arrays of one length, one entry for each node, float64; NaN is missing, and missing is never zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One judged metric over the nodes of a component.

    Args:
        is_canary: Nodes that run the new version.
        before: Of a count the events, of anything else the figure itself, over the node's own past.
        before_exposure: What ``before`` was counted over: requests for RATIO, MEAN and QUANTILE, seconds for RATE,
            readings for LEVEL.
        after: The same since the node was changed; of an untouched node since the first one was.
        after_exposure: As ``before_exposure``.
        past_spread: Standard deviation of the logarithm of the node's figure between stretches of its past that are as
            long as the time since the change; NaN where the past is too short to tell.
    """

    is_canary: Flags
    before: Floats
    before_exposure: Floats
    after: Floats
    after_exposure: Floats
    past_spread: Floats
