"""How long one verdict takes: 1,000 untouched and 50 changed nodes, compared in 12 metrics."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import numpy as np

from controller.core import model
from controller.core.analysis import judge, samples
from tests.bench import result

CONTROL, CANARY = 1000, 50
METRICS = 12
RUNS = 20  # the best of them: the machine is shared
START = datetime(2026, 1, 1, tzinfo=UTC)
ELAPSED = timedelta(minutes=10)  # a look for harm as well as for none
KINDS = (model.MeasureKind.RATIO, model.MeasureKind.RATE, model.MeasureKind.MEAN, model.MeasureKind.LEVEL)


def measure() -> result.Result:
    """Give the time of a verdict with all looks due."""
    metrics = tuple(
        model.JudgedMetric(f"metric {number}", model.Measure(KINDS[number % len(KINDS)], "series", "per"))
        for number in range(METRICS)
    )
    analysis = model.Analysis(metrics=metrics)
    random = np.random.default_rng(1)
    by_name = {metric.name: _sample(random, metric.measure.kind) for metric in metrics}
    seconds = min(_judged(analysis, by_name) for _ in range(RUNS))
    figures = {"ms": round(seconds * 1000, 2), "control": CONTROL, "canary": CANARY, "metrics": METRICS}
    return result.Result("judge", round(seconds * 1000, 2), "ms", RUNS, figures)


def _judged(analysis: model.Analysis, by_name: dict[str, samples.Sample]) -> float:
    began_at = time.perf_counter()
    found = judge.judge(analysis, by_name, START + ELAPSED, ELAPSED, None)
    seconds = time.perf_counter() - began_at
    assert found.finding is model.Finding.NO_WORSE, found.message
    return seconds


def _sample(random: np.random.Generator, kind: model.MeasureKind) -> samples.Sample:
    nodes = CONTROL + CANARY
    is_canary = np.arange(nodes) < CANARY
    before, after = np.full(nodes, 7200.0), np.full(nodes, ELAPSED.total_seconds())
    spread = np.full(nodes, 0.1)
    if kind.is_count:
        events = random.poisson(120.0, nodes).astype(float), random.poisson(10.0, nodes).astype(float)
        return samples.Sample(is_canary, events[0], before, events[1], after, spread)
    figures = np.exp(0.1 * random.standard_normal((2, nodes)))
    return samples.Sample(is_canary, figures[0], before, figures[1], after, spread)
