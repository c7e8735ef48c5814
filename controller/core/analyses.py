"""What can be wrong with an analysis in itself: its metrics, its times, its policies.

Rules kept: each rule has a code of its own, and each refusal names the field, the value and the rule. Left out: which
sources there are (`planner`), and whether the nodes report the series, which only time tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta

from controller.core import errors, model

METRICS_MAX = 32  # that are judged together; with more, hardly any single one would be found
NAME_CHARS_MAX = 100  # of a metric; it stands in lines for people
SERIES_CHARS_MAX = 200  # of a series; Prometheus names are shorter
QUERY_CHARS_MAX = 2_000  # of a query to a Prometheus server
PERCENT_MAX = 10_000  # of tolerance and harm: a hundred times worse
QUANTILES = (1, 99)  # percent
FALSE_ALARMS_MAX = 500  # of a thousand: with more, a coin would do
DURATION_MAX = timedelta(days=30)  # of any time; figures are not kept longer

_Found = tuple[str, str, object, str]  # code, field, value, rule
_PER = frozenset({model.MeasureKind.RATIO, model.MeasureKind.MEAN})
_PLACE = "parameters.analysis"


def check(analysis: model.Analysis, kind: model.ChangeKind | None) -> None:
    """Refuse an analysis that could judge nothing, or that contradicts itself.

    Args:
        analysis: What is asked.
        kind: What the request asks instead of a version.

    Raises:
        InvalidRequestError: The first that is wrong; the code names the rule.
    """
    for rule in _RULES:
        for code, field, value, text in rule(analysis):
            raise _bad(code, field, value, text)
    if kind not in (None, model.ChangeKind.RESTART):
        rule_text = f"nothing is left to measure after a {kind.value}"
        raise _bad("analysis_of_nothing", "", kind.value, rule_text)


def check_source(analysis: model.Analysis, known: frozenset[str]) -> None:
    """Refuse a source that the controller does not have.

    Raises:
        InvalidRequestError: Code ``analysis_source_unknown``.
    """
    if analysis.source and analysis.source not in known:
        names = f"one of {', '.join(sorted(known))}, or empty" if known else "empty: no other source is configured"
        raise _bad("analysis_source_unknown", ".source", analysis.source, f"it must be {names}")


def _bad(code: str, field: str, value: object, rule: str) -> errors.InvalidRequestError:
    name = f"{_PLACE}{field}"
    return errors.InvalidRequestError(
        f"cannot plan with {name} {value}: {rule}", code=code, field=name, value=str(value), rule=rule
    )


def _number_of_metrics(analysis: model.Analysis) -> Iterator[_Found]:
    if not analysis.metrics:
        yield "analysis_without_metrics", ".metrics", 0, "there must be at least one"
    if len(analysis.metrics) > METRICS_MAX:
        yield "analysis_metrics_too_many", ".metrics", len(analysis.metrics), f"there are at most {METRICS_MAX}"


def _names(analysis: model.Analysis) -> Iterator[_Found]:
    for field, each in _each(analysis):
        if not 0 < len(each.name) <= NAME_CHARS_MAX or not each.name.isprintable():
            rule = f"it must have 1 to {NAME_CHARS_MAX} printable characters"
            yield "analysis_metric_name_invalid", f"{field}.name", each.name[:NAME_CHARS_MAX], rule
    counted = Counter(each.name for each in analysis.metrics)
    for name in (name for name, count in counted.items() if count > 1):
        yield "analysis_metric_twice", ".metrics", name, "each name stands once"


def _tolerances(analysis: model.Analysis) -> Iterator[_Found]:
    for field, each in _each(analysis):
        if not 0 <= each.tolerance_percent <= PERCENT_MAX:
            rule = f"it must lie between 0 and {PERCENT_MAX}"
            yield "analysis_tolerance_invalid", f"{field}.tolerance_percent", each.tolerance_percent, rule
        if not 0 < each.harm_percent <= PERCENT_MAX:
            rule = f"it must lie between 1 and {PERCENT_MAX}"
            yield "analysis_harm_invalid", f"{field}.harm_percent", each.harm_percent, rule
        if each.tolerance_percent >= each.harm_percent:
            rule = f"it must be higher than tolerance_percent, which is {each.tolerance_percent}"
            yield "analysis_harm_tolerated", f"{field}.harm_percent", each.harm_percent, rule


def _measures(analysis: model.Analysis) -> Iterator[_Found]:
    for field, each in _each(analysis):
        measure, where = each.measure, f"{field}.measure"
        kind = measure.kind.value
        if not 0 < len(measure.series) <= SERIES_CHARS_MAX:
            rule = f"it must have 1 to {SERIES_CHARS_MAX} characters"
            yield "analysis_series_invalid", f"{where}.series", measure.series[:NAME_CHARS_MAX], rule
        if len(measure.per) > SERIES_CHARS_MAX:
            rule = f"it must have at most {SERIES_CHARS_MAX} characters"
            yield "analysis_per_invalid", f"{where}.per", measure.per[:NAME_CHARS_MAX], rule
        yield from _queries(analysis, measure, where)
        if measure.kind in _PER and not measure.per:
            yield "analysis_per_missing", f"{where}.per", "''", f"{kind} is one series per another"
        if measure.kind not in _PER and measure.per:
            yield "analysis_per_superfluous", f"{where}.per", measure.per, f"{kind} is of one series alone"
        if measure.kind is model.MeasureKind.QUANTILE and not QUANTILES[0] <= measure.quantile_percent <= QUANTILES[1]:
            rule = f"it must lie between {QUANTILES[0]} and {QUANTILES[1]}"
            yield "analysis_quantile_invalid", f"{where}.quantile_percent", measure.quantile_percent, rule


def _queries(analysis: model.Analysis, measure: model.Measure, where: str) -> Iterator[_Found]:
    for name in ("query", "per_query"):
        query: str = getattr(measure, name)
        if query and not analysis.source:
            rule = "what nodes report themselves is not asked for by a query"
            yield "analysis_query_superfluous", f"{where}.{name}", query[:NAME_CHARS_MAX], rule
        if len(query) > QUERY_CHARS_MAX:
            rule = f"it must have at most {QUERY_CHARS_MAX} characters"
            yield "analysis_query_invalid", f"{where}.{name}", query[:NAME_CHARS_MAX], rule


def _each(analysis: model.Analysis) -> Iterator[tuple[str, model.JudgedMetric]]:
    return ((f".metrics[{index}]", each) for index, each in enumerate(analysis.metrics))


def _times(analysis: model.Analysis) -> Iterator[_Found]:
    for name in ("duration", "past", "first_look", "inconclusive_after", "unknown_after"):
        span: timedelta = getattr(analysis, name)
        if not timedelta() < span <= DURATION_MAX:
            rule = f"it must be longer than nothing and at most {DURATION_MAX}"
            yield f"analysis_{name}_invalid", f".{name}", span, rule
    if not timedelta() <= analysis.warm_up < analysis.duration:
        rule = f"it must be shorter than duration, which is {analysis.duration}"
        yield "analysis_warm_up_invalid", ".warm_up", analysis.warm_up, rule
    if analysis.first_look > analysis.duration:
        rule = f"it must be no longer than duration, which is {analysis.duration}"
        yield "analysis_first_look_late", ".first_look", analysis.first_look, rule
    if analysis.inconclusive_after < analysis.duration:
        rule = f"it must be no shorter than duration, which is {analysis.duration}"
        yield "analysis_inconclusive_early", ".inconclusive_after", analysis.inconclusive_after, rule


def _policies(analysis: model.Analysis) -> Iterator[_Found]:
    if analysis.unknown is model.Doubt.REVERT:
        rule = "missing data is no evidence about the version: HOLD or FAIL"
        yield "analysis_unknown_reverts", ".unknown", analysis.unknown.value, rule
    if not 0 < analysis.false_alarms_per_1000 <= FALSE_ALARMS_MAX:
        rule = f"it must lie between 1 and {FALSE_ALARMS_MAX}"
        yield "analysis_false_alarms_invalid", ".false_alarms_per_1000", analysis.false_alarms_per_1000, rule


_RULES: tuple[Callable[[model.Analysis], Iterator[_Found]], ...] = (
    _number_of_metrics,
    _names,
    _tolerances,
    _measures,
    _times,
    _policies,
)
