"""What a rule compares with its thresholds, of all nodes at once.

Rules kept: NaN is missing, and missing is never zero; a figure over less than the rule asks for is missing; counts have
half an event added before they are divided by another figure, so that a time without events is not infinitely better
than one with a single one; a line that gets better is followed to the end of the past and no further, for what ceases
to get better is no worse; what the scatter about a line explains is no departure from it. Left out: which spans of time
these are (`controller.metrics.monitor`).
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
LINE_PIECES = (
    15  # of the past of a trendline: of an hour four minutes each, so that a thinned past has readings in each
)
LINE_PIECES_MIN = 8  # of them with a figure
SPREADS = 2.5  # standard errors within which a figure is not off the line
NORMAL = 1.4826  # of a normal distribution the standard deviation over the median of the distances from the median
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
        past: For OWN_PAST the time before the window, one span; for a TRENDLINE its pieces, oldest first.
    """
    if rule.scope is model.RuleScope.FLEET:
        now, past = _pooled(rule, now), None if past is None else _pooled(rule, past)
    if rule.basis is _B.TREND:
        hours = rule.window.total_seconds() / SECONDS_PER_HOUR
        return _slopes(_figures(rule, now, rule.least_exposure / PIECES), hours, PIECES_MIN)
    figures = _figures(rule, now, rule.least_exposure)[:, 0]
    if rule.basis is _B.VALUE:
        return figures
    compared = _added(rule, now)[:, 0]
    compared = np.where(np.isnan(figures), np.nan, compared)
    if rule.basis is _B.PEERS:
        return _over(compared, np.full_like(compared, _median(compared, rule.least_percent)))
    if past is None:
        return np.full_like(figures, np.nan)
    if rule.basis is _B.TRENDLINE:
        return _off_line(rule, compared, past)
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


def _off_line(rule: model.Rule, figures: Floats, past: Seen) -> Floats:
    """Compare figures of the window with the line through the past, as far as its scatter does not explain them."""
    pieces, share = past.values.shape[1], rule.window / rule.past
    is_enough = past.exposures >= rule.least_exposure / (pieces * share)
    known = np.where(is_enough, _added(rule, past), np.nan)
    line = _line(known)
    end, middle = pieces - 0.5, pieces * (1 + share / 2) - 0.5
    gets_worse = line.slopes < 0 if rule.is_below else line.slopes > 0
    expected = line.begins + line.slopes * np.where(gets_worse, middle, end)
    spreads = np.fmax(line.spreads, _by_chance(rule, known, expected, past.exposures))
    # The error of the figure itself, and that of the line where it is followed to.
    errors = spreads * np.sqrt(1 / (pieces * share) + (1 + 3 * (1 + share) ** 2) / pieces)
    off = figures - expected
    return _over(expected + np.sign(off) * np.fmax(np.abs(off) - SPREADS * errors, 0.0), expected)


def _by_chance(rule: model.Rule, known: Floats, expected: Floats, exposures: Floats) -> Floats:
    """Say how far pieces lie apart by chance alone where they are counts; of rare events most pieces have none."""
    if not rule.measure.kind.is_count:
        return np.zeros_like(expected)
    is_known = np.isfinite(known)
    means = _over(np.where(is_known, known, 0.0).sum(axis=1), is_known.sum(axis=1).astype(np.float64))
    variances = _over(np.fmax(expected, means), _medians(np.where(is_known, exposures, np.nan)))
    return np.sqrt(np.fmax(variances, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """The lines that pieces of nodes lie on, [node].

    Args:
        begins: Where the line is in the middle of the first piece.
        slopes: By how much it rises from one piece to the next.
        spreads: How far the pieces lie off it, as a standard deviation.
    """

    begins: Floats
    slopes: Floats
    spreads: Floats


def _line(figures: Floats) -> _Line:
    """Lay a line that a quarter of outliers does not bend, through the pieces of each node."""
    pieces = figures.shape[1]
    slopes = _slopes(figures, pieces, LINE_PIECES_MIN)
    levels = figures - slopes[:, None] * np.arange(pieces)
    begins = _medians(levels)
    return _Line(begins, slopes, NORMAL * _medians(np.abs(levels - begins[:, None])))


def _medians(figures: Floats) -> Floats:
    """Give the median of each row, without what is missing; NaN where all is."""
    has_gap = np.isnan(figures).any(axis=1)
    found = np.full(figures.shape[0], np.nan)
    found[~has_gap] = np.median(figures[~has_gap], axis=1)
    some = has_gap & np.isfinite(figures).any(axis=1)
    found[some] = np.nanmedian(figures[some], axis=1)
    return found


def _slopes(figures: Floats, length: float, pieces_min: int) -> Floats:
    """Give by how much figures rise for each unit of length: the median of the slopes between every two of them.

    Source: H. Theil, A rank-invariant method of linear and polynomial regression analysis (1950); P. K. Sen, Estimates
    of the regression coefficient based on Kendall's tau, JASA 63 (1968).

    Args:
        figures: Of pieces of one length, [node, piece].
        length: All pieces together.
        pieces_min: From fewer nothing is said.
    """
    earlier, later = np.triu_indices(figures.shape[1], k=1)
    slopes = (figures[:, later] - figures[:, earlier]) / ((later - earlier) * (length / figures.shape[1]))
    is_enough = np.isfinite(figures).sum(axis=1) >= pieces_min
    return np.where(is_enough, _medians(slopes), np.nan)
