"""Figures of a fleet, laid out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from controller.core import model
from controller.core.analysis import judge, samples

START = datetime(2026, 1, 1, tzinfo=UTC)
PAST = timedelta(hours=2)
K = model.MeasureKind

ERRORS = model.JudgedMetric("errors", model.Measure(K.RATIO, "errors_total", "requests_total"))
LATENCY = model.JudgedMetric("latency", model.Measure(K.MEAN, "seconds_total", "requests_total"))
RESTARTS = model.JudgedMetric("restarts", model.Measure(K.RATE, "restarts_total"))
HITS = model.JudgedMetric("hits", model.Measure(K.RATIO, "hits_total", "requests_total"), is_lower_worse=True)
FREE = model.JudgedMetric("free", model.Measure(K.LEVEL, "free_bytes"), is_lower_worse=True)

REQUESTS_PER_MINUTE = 200.0


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def analysis(*metrics: model.JudgedMetric) -> model.Analysis:
    return model.Analysis(metrics=metrics)


def sample(canary: list[float], control: list[float], past: float, after_minutes: float = 10) -> samples.Sample:
    """Lay out what each node shows after, where all showed the same before."""
    after = np.array([*canary, *control], dtype=float)
    return samples.Sample(
        is_canary=np.arange(after.size) < len(canary),
        before=np.full(after.size, past),
        before_exposure=np.full(after.size, REQUESTS_PER_MINUTE * 120),
        after=after,
        after_exposure=np.full(after.size, REQUESTS_PER_MINUTE * after_minutes),
        past_spread=np.full(after.size, 0.1),
    )


def judged(
    how: model.Analysis, elapsed: timedelta, before: model.Judgement | None = None, **by_name: samples.Sample
) -> model.Judgement:
    return judge.judge(how, by_name, START + elapsed, elapsed, before)


def only(found: model.Judgement) -> model.Evidence:
    """Give the evidence of a judgement over one metric."""
    (evidence,) = found.evidence
    assert found.finding is evidence.finding
    return evidence
