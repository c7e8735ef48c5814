"""One sample of the judge, made of what nodes showed step by step before and after an instant.

Rules kept: missing is NaN; a step counts only where value and exposure are both there; a node that was changed later
than the first one begins with the first step that lies wholly behind its own change, and what lies between is neither
past nor present. Left out: where the steps come from (`prometheus`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.core import model
from controller.core.analysis import samples

STRETCHES_MIN = 3  # of the past: fewer say nothing of how they differ
COUNT_ADDED = 0.5  # to the events of a stretch, so that none at all has a logarithm


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """What nodes showed step by step: one row for each node.

    Args:
        values: Events or amounts of the step for RATIO, RATE and MEAN, else the figure at its end.
        exposures: What they were counted or made over.
    """

    values: samples.Floats
    exposures: samples.Floats


def sample(
    kind: model.MeasureKind, is_canary: Sequence[bool], past: Steps, present: Steps, begins: Sequence[int]
) -> samples.Sample:
    """Add the steps up.

    Args:
        kind: How the figure is made.
        is_canary: For each node whether it runs the new version.
        past: Up to the instant at which the first node was changed.
        present: From that instant on.
        begins: For each node the number of steps of the present that do not count.
    """
    counts = np.arange(present.values.shape[1])[None, :] >= np.asarray(begins)[:, None]
    after, after_exposure = _figure(kind, Steps(np.where(counts, present.values, np.nan), present.exposures))
    before, before_exposure = _figure(kind, past)
    spread = _spread(kind, past, present.values.shape[1] - min(begins, default=0))
    return samples.Sample(np.asarray(is_canary, dtype=bool), before, before_exposure, after, after_exposure, spread)


def _figure(kind: model.MeasureKind, steps: Steps) -> tuple[samples.Floats, samples.Floats]:
    """Give the events, or the figure, and what they were counted over; NaN for both where nothing is known."""
    is_there = np.isfinite(steps.values) & np.isfinite(steps.exposures)
    values, exposures = np.where(is_there, steps.values, 0.0), np.where(is_there, steps.exposures, 0.0)
    over = exposures.sum(axis=-1)
    if kind in (model.MeasureKind.QUANTILE, model.MeasureKind.LEVEL):
        values = values * exposures
    total = values.sum(axis=-1)
    if not kind.is_count:
        total = np.divide(total, over, out=np.full_like(total, np.nan), where=over > 0)
    nothing = ~is_there.any(axis=-1)
    return np.where(nothing, np.nan, total), np.where(nothing, np.nan, over)


def _spread(kind: model.MeasureKind, past: Steps, length: int) -> samples.Floats:
    """Tell by how much stretches of the past of this many steps differ."""
    nodes, steps = past.values.shape
    stretches = steps // length if length > 0 else 0
    spread = np.full(nodes, np.nan)
    if stretches < STRETCHES_MIN:
        return spread
    shape = (nodes, stretches, length)
    latest = Steps(
        past.values[:, -stretches * length :].reshape(shape), past.exposures[:, -stretches * length :].reshape(shape)
    )
    figure, over = _figure(kind, latest)
    if kind.is_count:
        figure = np.divide(figure + COUNT_ADDED, over, out=np.full_like(figure, np.nan), where=over > 0)
    logs = np.log(figure, out=np.full_like(figure, np.nan), where=figure > 0)
    known = np.isfinite(logs).sum(axis=1) >= STRETCHES_MIN
    spread[known] = np.nanstd(logs[known], axis=1, ddof=1)
    return spread
