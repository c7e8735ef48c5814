"""What others decide of the same rollouts: Kayenta's rule and a fixed threshold, as they are used.

Both see one figure a minute for all canary nodes, and for all control nodes. Kayenta's is the Mann-Whitney test with a
confidence of 0.98 and a tolerance of 0.25, run every five minutes from the tenth on; the threshold fails a minute in
which 1 % of the canary's requests fail, and the rollout at the fourth such minute.

Source: spinnaker/kayenta, MannWhitney.scala and MannWhitneyClassifier.scala, as of a69573be; argoproj/argo-rollouts,
analysis with ``failureLimit: 3``.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from controller.core import model
from controller.core.analysis import samples
from tests.controller.core.analysis import figures, simulated

KAYENTA_LOOKS = range(10, simulated.MINUTES + 1, 5)  # minutes
_CONFIDENCE = 0.98
_TOLERANCE = 0.25
_THRESHOLD = 0.01
_FAILURE_LIMIT = 3
MINUTES = np.arange(1.0, simulated.MINUTES + 1)


def kayenta(paths: simulated.Paths, metric: model.JudgedMetric) -> samples.Floats:
    """Give the minute at which each run's metric is classified High, infinity where it is not."""
    canary, control = _by_minute(paths, metric)
    when = np.full(len(canary), np.inf)
    for look in KAYENTA_LOOKS:
        is_high = np.array([_is_high(a[:look], b[:look]) for a, b in zip(canary, control, strict=True)])
        when = np.where(is_high & np.isinf(when), look, when)
    return when


def threshold(paths: simulated.Paths, metric: model.JudgedMetric) -> samples.Floats:
    """Give the minute at which each run's canary has failed once too often, infinity where it has not."""
    canary, _ = _by_minute(paths, metric)
    is_over = (canary >= _THRESHOLD).cumsum(-1) > _FAILURE_LIMIT
    return np.where(is_over.any(-1), is_over.argmax(-1) + 1.0, np.inf)


def _by_minute(paths: simulated.Paths, metric: model.JudgedMetric) -> tuple[samples.Floats, samples.Floats]:
    """Give the figure of each side in each minute."""
    each = np.diff(paths.sums[metric.name], prepend=0.0)
    scale = figures.REQUESTS_PER_MINUTE if metric.measure.kind.is_count else 1.0
    canary, control = each[:, : paths.nodes.canary], each[:, paths.nodes.canary :]
    return canary.mean(1) / scale, control.mean(1) / scale


def _is_high(canary: samples.Floats, control: samples.Floats) -> bool:
    count = len(canary)
    apart = np.sort(np.subtract.outer(canary, control).ravel())
    reach = special.ndtri((1 + _CONFIDENCE) / 2) * np.sqrt(count**2 * (2 * count + 1) / 12)
    low = apart[max(int(count**2 / 2 - reach), 0)]
    return bool(low > _TOLERANCE * abs(np.median(apart)))
