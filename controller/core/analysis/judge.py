"""The judge: whether the new version is worse, no worse, or not yet known to be either.

Theory of operation. Each metric is compared by itself (`readings`), by what the numbers of nodes allow (`arms`). It is
WORSE where the p-value of "no worse than tolerated" falls to its share of the false alarms that are allowed: equal
shares, so that all metrics together keep to them (Bonferroni), valid over all looks. It is NO_WORSE where, from the
analysis' duration on, harm is excluded with an error of 5 %, again over all looks from then on: to promote, all metrics
have to be, so this error is not divided. Whatever is neither is EARLY, and INCONCLUSIVE once the time is up.

Node-level tests are looked at ever more seldom (`looks`); in between, the last look stands. Pooled counts are looked at
whenever the judge is asked.

Rules kept: pure; all that is remembered is the judgement before; missing figures are UNKNOWN and never pass; a metric
once WORSE stays so, since its p-value is the least so far. What is found never depends on the order of the nodes. Left
out: what is done about it (the gate of the rollout).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from controller.core import model
from controller.core.analysis import arms, looks, phrases, readings, samples

MISSED_HARM = 0.05  # probability that a version which does harm is found no worse in a metric
_SHORTEST = timedelta(milliseconds=1)  # in place of no time at all
_ORDER = (model.Finding.WORSE, model.Finding.UNKNOWN, model.Finding.INCONCLUSIVE, model.Finding.EARLY)

F = model.Finding


@dataclass(frozen=True, slots=True)
class _Look:
    """Where the looks stand.

    Args:
        number: Of the latest look for harm, 0 before the first.
        is_first: Whether nobody has taken this look for harm yet.
        is_first_passing: The same of that for no harm, which begin when the duration is over.
        is_late: Whether what is not decided by now is inconclusive.
        stretches: How often the time since the change fits into the past.
        alpha: What each metric may spend, over all looks.
        share: What of it this look may spend.
        missed: Probability with which harm may be missed at this look.
    """

    number: int
    is_first: bool
    is_first_passing: bool
    is_late: bool
    stretches: float
    alpha: float
    share: float
    missed: float


def judge(
    analysis: model.Analysis,
    samples: Mapping[str, samples.Sample],
    at: datetime,
    elapsed: timedelta,
    previous: model.Judgement | None,
) -> model.Judgement:
    """Say what the figures so far show.

    Args:
        analysis: What is compared, and how surely.
        samples: By name; a metric without one is unknown.
        at: Now.
        elapsed: How long evidence has been gathered, without the time in which the clocks stood.
        previous: What was said before in this wave; None the first time.
    """
    look = _look(analysis, elapsed, previous)
    before = {} if previous is None else {each.metric: each for each in previous.evidence}
    evidence = tuple(
        _found(metric, _arms(analysis, metric, samples), look, before.get(metric.name)) for metric in analysis.metrics
    )
    finding = _overall([each.finding for each in evidence])
    return model.Judgement(at, elapsed, look.number, finding, evidence, phrases.judgement(finding, evidence))


def alpha(analysis: model.Analysis) -> float:
    """Give the probability with which each metric may be found worse in a rollout that does no harm."""
    return analysis.false_alarms_per_1000 / 1000 / max(len(analysis.metrics), 1)


def schedule(analysis: model.Analysis) -> looks.Schedule:
    """Say when it is looked for harm."""
    return looks.Schedule(analysis.first_look, analysis.inconclusive_after)


def passing(analysis: model.Analysis) -> looks.Schedule:
    """Say when it is looked for no harm."""
    return looks.Schedule(analysis.duration, analysis.inconclusive_after)


def _look(analysis: model.Analysis, elapsed: timedelta, previous: model.Judgement | None) -> _Look:
    harm, no_harm = schedule(analysis), passing(analysis)
    number = harm.number(elapsed)
    passed = 0 if previous is None else no_harm.number(previous.elapsed)
    return _Look(
        number=number,
        is_first=number > (0 if previous is None else previous.look),
        is_first_passing=no_harm.number(elapsed) > passed,
        is_late=elapsed >= analysis.inconclusive_after,
        stretches=analysis.past / max(elapsed, _SHORTEST),
        alpha=alpha(analysis),
        share=harm.share(elapsed),
        missed=MISSED_HARM * no_harm.share(elapsed),
    )


def _arms(
    analysis: model.Analysis, metric: model.JudgedMetric, by_name: Mapping[str, samples.Sample]
) -> arms.Arms | None:
    sample = by_name.get(metric.name)
    return None if sample is None else arms.of(sample, metric.measure, analysis.past)


def _overall(findings: Sequence[model.Finding]) -> model.Finding:
    return next((finding for finding in _ORDER if finding in findings), F.NO_WORSE if findings else F.UNKNOWN)


def _found(
    metric: model.JudgedMetric, both: arms.Arms | None, look: _Look, before: model.Evidence | None
) -> model.Evidence:
    if before is not None and before.finding is F.WORSE:
        return before
    is_count = metric.measure.kind.is_count
    comparison = model.Comparison.NONE if both is None else arms.comparison(both, is_count=is_count)
    p = None if before is None else before.p
    if both is None or comparison is model.Comparison.NONE:
        return _said(_nothing(metric, p, look), metric, look, before)
    is_spent = readings.is_spent(comparison, is_count=is_count)
    if is_spent and before is not None and _stands(before, comparison, look):
        return _said(before, metric, look, before)
    share = look.share if is_spent else 1.0
    reading = readings.read(both, comparison, metric, readings.Levels(look.alpha * share, look.missed), look.stretches)
    if look.is_first or not is_spent:
        p = min(float(reading.p) / share, 1.0 if p is None else p)
    return _said(_shown(_nothing(metric, p, look), metric, both, reading, comparison), metric, look, before)


def _stands(before: model.Evidence, comparison: model.Comparison, look: _Look) -> bool:
    """Tell whether the latest look still says all that there is to say."""
    is_new = look.is_first or look.is_first_passing
    return before.comparison is comparison and before.lift is not None and not is_new


def _said(
    found: model.Evidence, metric: model.JudgedMetric, look: _Look, before: model.Evidence | None
) -> model.Evidence:
    told = replace(found, finding=_finding(found, metric, look, before))
    return replace(told, message=phrases.evidence(told))


def _finding(
    found: model.Evidence, metric: model.JudgedMetric, look: _Look, before: model.Evidence | None
) -> model.Finding:
    if found.comparison is model.Comparison.NONE:
        return F.UNKNOWN
    if found.p is not None and found.p <= found.alpha:
        return F.WORSE
    is_passed = before is not None and before.finding is F.NO_WORSE
    if look.is_first_passing:
        is_passed = found.lift_high is not None and found.lift_high < 1 + metric.harm_percent / 100
    if is_passed:
        return F.NO_WORSE
    return F.INCONCLUSIVE if look.is_late else F.EARLY


def _nothing(metric: model.JudgedMetric, p: float | None, look: _Look) -> model.Evidence:
    return model.Evidence(
        metric=metric.name,
        finding=F.UNKNOWN,
        comparison=model.Comparison.NONE,
        canary_nodes=0,
        control_nodes=0,
        canary_value=None,
        control_value=None,
        lift=None,
        lift_low=None,
        lift_high=None,
        p=p,
        alpha=look.alpha,
        events=0,
        message="",
    )


def _shown(
    blank: model.Evidence,
    metric: model.JudgedMetric,
    both: arms.Arms,
    reading: readings.Reading,
    comparison: model.Comparison,
) -> model.Evidence:
    is_count = metric.measure.kind.is_count
    return replace(
        blank,
        comparison=comparison,
        canary_nodes=both.canary.count,
        control_nodes=both.control.count,
        canary_value=_value(both.canary, is_count=is_count),
        control_value=_value(both.control, is_count=is_count),
        lift=_finite(reading.lift),
        lift_low=_finite(reading.low),
        lift_high=_finite(reading.high),
        events=int(both.canary.after.sum()) if is_count else 0,
    )


def _value(arm: arms.Arm, *, is_count: bool) -> float | None:
    if arm.count == 0:
        return None
    return float(arm.after.sum() / arm.after_exposure.sum()) if is_count else float(arm.after.mean())


def _finite(value: samples.Floats) -> float | None:
    return float(value) if np.isfinite(value) else None
