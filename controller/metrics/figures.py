"""Makes of what series grew by what the judge looks at: one figure over many nodes, before and after.

Rules kept: a figure that cannot be told is NaN and never zero; a counter is not taken for a gauge, nor the other way
round. Left out: which spans these are (`collector`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controller.core import model
from controller.core.analysis import samples
from controller.metrics import shelves, windows

BEFORE, AFTER, STRETCHES = 0, 1, 2  # which span is which; from the third on, stretches of the past
STRETCHES_MIN = 3  # from fewer, nothing is said about how they differ
UNCOUNTED = 0.5  # added to a count before its logarithm is taken: none is not infinitely less than one
PERCENT = 100.0
_BUCKET = re.compile(r'(?P<name>[^{]+)_bucket\{le="(?P<bound>[^"]+)"\}')

Floats = windows.Floats


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure over nodes and spans, [node, span].

    Args:
        value: Of a count the events, of anything else the figure itself.
        exposure: What it was counted over.
    """

    value: Floats
    exposure: Floats

    def put(self, nodes: list[int], other: Figure) -> None:
        """Put in what was found of some nodes."""
        self.value[nodes] = other.value
        self.exposure[nodes] = other.exposure


@dataclass(frozen=True, slots=True)
class Grown:
    """What the series of some nodes did.

    Args:
        columns: Where each series stands.
        is_counter: Of each column.
        growth: What happened, [column, node, span].
        seconds: The same of the time over which it did, or one for all columns.
        period_seconds: Time between two readings.
    """

    columns: Mapping[str, int]
    is_counter: tuple[bool, ...]
    growth: Floats
    seconds: Floats
    period_seconds: float

    @property
    def unknown(self) -> Floats:
        """A figure of which nothing is known."""
        return np.full(self.growth.shape[1:], np.nan)

    def grew(self, name: str, *, is_counter: bool = True) -> Floats:
        """By how much a series grew; unknown where there is none of the name and kind."""
        column = self.columns.get(name)
        if column is None or self.is_counter[column] is not is_counter:
            return self.unknown
        found: Floats = self.growth[column]
        return found

    def took(self, name: str) -> Floats:
        """Seconds over which a series that there is was looked at."""
        column = self.columns.get(name)
        return self.unknown if column is None else self.seconds[column if len(self.seconds) > 1 else 0]


def grown(shelf: shelves.Shelf, spans: windows.Spans, period_seconds: float) -> Grown:
    """What the series of nodes of one shelf did; each series by itself, since figures are made of few of them."""
    growth, seconds = (np.ascontiguousarray(np.moveaxis(each, 2, 0)) for each in (spans.growth, spans.seconds))
    return Grown(shelf.columns, shelf.is_counter, growth, seconds, period_seconds)


def unknown(nodes: int, spans: int) -> Figure:
    """Nothing is known of any node."""
    return Figure(np.full((nodes, spans), np.nan), np.full((nodes, spans), np.nan))


def figure(measure: model.Measure, grown: Grown) -> Figure:
    """Make a figure of series."""
    growth, seconds = grown.grew(measure.series), grown.took(measure.series)
    match measure.kind:
        case model.MeasureKind.RATIO:
            return _together(growth, grown.grew(measure.per))
        case model.MeasureKind.RATE:
            return _together(growth, seconds)
        case model.MeasureKind.MEAN:
            per = grown.grew(measure.per)
            return _together(_over(growth, per), per)
        case model.MeasureKind.LEVEL:
            level = _over(grown.grew(measure.series, is_counter=False), seconds)
            return _together(level, np.rint(seconds / grown.period_seconds) + 1)
        case model.MeasureKind.QUANTILE:
            return _quantile(measure, grown)


def sample(measure: model.Measure, found: Figure, is_canary: samples.Flags) -> samples.Sample:
    """Say it as the judge wants it."""
    return samples.Sample(
        is_canary=is_canary,
        before=found.value[:, BEFORE],
        before_exposure=found.exposure[:, BEFORE],
        after=found.value[:, AFTER],
        after_exposure=found.exposure[:, AFTER],
        past_spread=_spread(measure, found),
    )


def _spread(measure: model.Measure, found: Figure) -> Floats:
    value, exposure = found.value[:, STRETCHES:], found.exposure[:, STRETCHES:]
    figures = _over(value + UNCOUNTED, exposure) if measure.kind.is_count else value
    logarithms = np.log(figures, out=np.full_like(figures, np.nan), where=figures > 0)
    is_known = np.isfinite(logarithms)
    count = is_known.sum(axis=1)
    mean = np.where(is_known, logarithms, 0.0).sum(axis=1) / np.maximum(count, 1)
    squares = np.where(is_known, (logarithms - mean[:, None]) ** 2, 0.0).sum(axis=1)
    return np.where(count >= STRETCHES_MIN, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)


def _together(value: Floats, exposure: Floats) -> Figure:
    """A figure and what it was counted over: where one is unknown, so is the other."""
    is_unknown = np.isnan(value) | np.isnan(exposure)
    return Figure(np.where(is_unknown, np.nan, value), np.where(is_unknown, np.nan, exposure))


def _over(value: Floats, by: Floats) -> Floats:
    return np.divide(value, by, out=np.full_like(value, np.nan), where=by > 0)


def _quantile(measure: model.Measure, grown: Grown) -> Figure:
    bounds = sorted((bound, name) for name, bound in buckets(measure.series, grown.columns).items())
    if len(bounds) <= 1 or not np.isinf(bounds[-1][0]):
        return Figure(grown.unknown, grown.unknown)
    counted = np.stack([grown.grew(name) for _, name in bounds], axis=2)
    edges = np.array([bound for bound, _ in bounds])
    return _together(_interpolated(edges, counted, measure.quantile_percent / PERCENT), counted[:, :, -1])


def buckets(series: str, names: shelves.Kinds | Mapping[str, int]) -> Mapping[str, float]:
    """Find the buckets of a histogram, and the upper bound of each."""
    found = {name: _BUCKET.fullmatch(name) for name in names if name.startswith(f"{series}_bucket{{")}
    bounds = {name: _bound(match["bound"]) for name, match in found.items() if match and match["name"] == series}
    return {name: bound for name, bound in bounds.items() if not np.isnan(bound)}


def _bound(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _interpolated(edges: Floats, counted: Floats, quantile: float) -> Floats:
    """Find a quantile, taking it that observations lie evenly within each bucket.

    Args:
        edges: Upper bounds, ascending; the last is infinite.
        counted: Observations up to each of them, [node, span, bucket].
        quantile: From 0 to 1.

    Source: histogram_quantile of Prometheus, promql/quantile.go (bucketQuantile).
    """
    counted = np.maximum.accumulate(counted, axis=2)  # buckets are not all read in one instant
    total = counted[:, :, -1]
    rank = quantile * total
    at = np.minimum((counted < rank[:, :, None]).sum(axis=2), len(edges) - 1)
    upper = edges[at]
    below = np.take_along_axis(counted, np.maximum(at - 1, 0)[:, :, None], axis=2)[:, :, 0] * (at > 0)
    within = np.take_along_axis(counted, at[:, :, None], axis=2)[:, :, 0] - below
    lower = np.where(at > 0, edges[np.maximum(at - 1, 0)], np.minimum(0.0, upper))
    is_last = at == len(edges) - 1
    with np.errstate(invalid="ignore"):
        value = lower + (upper - lower) * _over(rank - below, within)
    value = np.where(is_last, edges[-2], value)
    value = np.where((at == 0) & (upper <= 0), upper, value)
    return np.where(total > 0, value, np.nan)
