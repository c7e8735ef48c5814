"""What a rule compares with its thresholds, of all nodes at once.

Rules kept: NaN is missing, and missing is never zero; a figure over less than the rule asks for is missing; counts have
half an event added before they are divided by another figure, so that a time without events is not infinitely better
than one with a single one. Left out: which spans of time these are (`controller.metrics.monitor`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.core import model

Floats = npt.NDArray[np.float64]

COUNT_ADDED = 0.5  # events
PIECES = 12  # of the window of a trend: enough for a slope that a few outliers do not bend
PIECES_MIN = 6  # of them with a figure
PERCENT = 100
SECONDS_PER_HOUR = 3600.0
_B = model.RuleBasis


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One measure of nodes over some spans of time, [node, span].

    Args:
        values: Of a count the events, of anything else the figure itself.
        exposures: What that was counted or made over.
    """

    values: Floats
    exposures: Floats


def observe(rule: model.Rule, now: Seen, past: Seen | None = None) -> Floats:
    """Give one value for each node, or a single one for the fleet; NaN where nothing can be said.

    Args:
        rule: The rule.
        now: The window: one span, or for a TREND its pieces, oldest first.
        past: For OWN_PAST, the time before the window, one span.
    """
    if rule.scope is model.RuleScope.FLEET:
        now, past = _pooled(rule, now), None if past is None else _pooled(rule, past)
    if rule.basis is _B.TREND:
        return _slopes(_figures(rule, now, rule.least_exposure / PIECES), rule.window.total_seconds())
    figures = _figures(rule, now, rule.least_exposure)[:, 0]
    if rule.basis is _B.VALUE:
        return figures
    compared = _added(rule, now)[:, 0]
    compared = np.where(np.isnan(figures), np.nan, compared)
    if rule.basis is _B.PEERS:
        return _over(compared, np.full_like(compared, _median(compared, rule.least_percent)))
    if past is None:
        return np.full_like(figures, np.nan)
    enough = past.exposures[:, 0] >= rule.least_exposure
    return _over(compared, np.where(enough, _added(rule, past)[:, 0], np.nan))


def _figures(rule: model.Rule, seen: Seen, least: float) -> Floats:
    figures = _over(seen.values, seen.exposures) if rule.measure.kind.is_count else seen.values
    return np.where(seen.exposures >= least, figures, np.nan)


def _added(rule: model.Rule, seen: Seen) -> Floats:
    return _over(seen.values + COUNT_ADDED, seen.exposures) if rule.measure.kind.is_count else seen.values


def _over(values: Floats, by: Floats) -> Floats:
    return np.divide(values, by, out=np.full_like(values, np.nan), where=by > 0)


def _median(figures: Floats, least_percent: int) -> float:
    known = figures[np.isfinite(figures)]
    is_enough = known.size and known.size * PERCENT >= figures.size * least_percent
    return float(np.median(known)) if is_enough else np.nan


def _pooled(rule: model.Rule, seen: Seen) -> Seen:
    """Make one of all nodes: events are added up, figures are weighed by what they were made over."""
    is_known = np.isfinite(seen.values) & np.isfinite(seen.exposures)
    exposures = np.where(is_known, seen.exposures, 0.0).sum(axis=0)
    weights = 1.0 if rule.measure.kind.is_count else np.where(is_known, seen.exposures, 0.0)
    values = (np.where(is_known, seen.values, 0.0) * weights).sum(axis=0)
    values = values if rule.measure.kind.is_count else _over(values, exposures)
    is_enough = is_known.any(axis=0) & (is_known.sum(axis=0) * PERCENT >= is_known.shape[0] * rule.least_percent)
    return Seen(np.where(is_enough, values, np.nan)[None, :], np.where(is_enough, exposures, np.nan)[None, :])


def _slopes(figures: Floats, window_seconds: float) -> Floats:
    """Give by how much figures rise in an hour: the median of the slopes between every two of them.

    Source: H. Theil, A rank-invariant method of linear and polynomial regression analysis (1950); P. K. Sen, Estimates
    of the regression coefficient based on Kendall's tau, JASA 63 (1968).
    """
    earlier, later = np.triu_indices(figures.shape[1], k=1)
    hours = (later - earlier) * (window_seconds / figures.shape[1] / SECONDS_PER_HOUR)
    slopes = (figures[:, later] - figures[:, earlier]) / hours
    is_enough = np.isfinite(figures).sum(axis=1) >= PIECES_MIN
    found = np.full(figures.shape[0], np.nan)
    found[is_enough] = np.nanmedian(slopes[is_enough], axis=1)
    return found
