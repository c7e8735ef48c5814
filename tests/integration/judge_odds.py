"""How often the judge is right about a trial, by drawing it again and again: what is to be expected of real runs.

Rules kept: what decides is the code that `judge.judge` runs, over all runs at once, asked once a second; errors are
drawn of so many requests with the trial's probabilities, independently for all nodes and seconds. What a real run has
beside that (requests that come late, nodes that wait for a processor) is not drawn.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import numpy as np

from controller.cli import document
from controller.core import model
from controller.core.analysis import arms, judge, readings, samples
from controller.rpc import analysis_convert
from instar.v1 import analysis_pb2
from tests.integration import trials

SECOND = timedelta(seconds=1)


def verdicts(trial: trials.Trial, fails_percent: float, runs: int, seed: int) -> Counter[model.Finding]:
    """Count what is found of a version that fails so many requests in a hundred."""
    analysis = _analysis(trial)
    (metric,) = analysis.metrics
    random = np.random.default_rng(seed)
    shares = np.where(np.arange(trial.nodes) < trial.canary, fails_percent, trial.harmless_percent) / 100
    past = round(trial.requests_per_second * trial.past_seconds)
    before = random.binomial(past, trial.harmless_percent / 100, (runs, trial.nodes)).astype(np.float64)
    after = np.zeros_like(before)
    found = np.full(runs, model.Finding.EARLY, dtype=object)
    counted = 0
    for elapsed in range(round(analysis.warm_up / SECOND) + 1, round(trial.inconclusive_seconds) + 1):
        requests = round(trial.requests_per_second)
        after += random.binomial(requests, shares, after.shape)
        counted += requests
        both = _arms(trial, before, past, after, counted)
        is_worse, is_passed = _found(analysis, metric, both, elapsed * SECOND)
        is_open = found == model.Finding.EARLY
        found[is_open & is_passed] = model.Finding.NO_WORSE
        found[is_open & is_worse] = model.Finding.WORSE
    found[found == model.Finding.EARLY] = model.Finding.INCONCLUSIVE
    return Counter(found.tolist())


def _analysis(trial: trials.Trial) -> model.Analysis:
    message = analysis_pb2.Analysis()
    document.read(trial.analysis, message, "analysis")
    return analysis_convert.from_analysis(message)


def _arms(trial: trials.Trial, before: samples.Floats, past: int, after: samples.Floats, counted: int) -> arms.Arms:
    return arms.Arms(
        *(
            arms.Arm(
                before=before[:, side],
                before_exposure=np.full_like(before[:, side], past),
                after=after[:, side],
                after_exposure=np.full_like(before[:, side], counted),
                past_spread=np.full_like(before[:, side], np.nan),
            )
            for side in (slice(trial.canary), slice(trial.canary, None))
        )
    )


def _found(
    analysis: model.Analysis, metric: model.JudgedMetric, both: arms.Arms, elapsed: timedelta
) -> tuple[samples.Flags, samples.Flags]:
    """Which runs are found worse, and which no worse, at an instant; the latter only where it is looked for that."""
    comparison, stretches = arms.comparison(both, is_count=True), analysis.past / elapsed
    looks, alpha = judge.passing(analysis), judge.alpha(analysis)
    if looks.number(elapsed) == looks.number(elapsed - SECOND):
        p = readings.p(both, comparison, metric, stretches)
        return p <= alpha, np.zeros(len(p), dtype=bool)
    levels = readings.Levels(alpha, judge.MISSED_HARM * looks.share(elapsed))
    reading = readings.read(both, comparison, metric, levels, stretches)
    return reading.p <= alpha, reading.high < 1 + metric.harm_percent / 100
