"""The analysis of a canary on the wire: what is asked, what it can find, and what was found.

Rules kept here: what a message leaves out gets the default of the model, here and nowhere else; a tolerance of nothing
is no default. Left out: what may be asked (`controller.core.analyses`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from google.protobuf import duration_pb2

from controller.core import model
from controller.engine import courses as engine_courses
from controller.rpc import convert
from instar.v1 import analysis_pb2, rollout_service_pb2

_SpanField = Literal["duration", "past", "warm_up", "first_look", "inconclusive_after", "unknown_after"]
_METRIC = model.JudgedMetric("", model.Measure(model.MeasureKind.LEVEL, ""))  # for its defaults
_ANALYSIS = model.Analysis(())  # for its defaults


def analysis(value: model.Analysis) -> analysis_pb2.Analysis:
    """An analysis, every default said."""
    return analysis_pb2.Analysis(
        metrics=map(metric, value.metrics),
        duration=convert.duration(value.duration),
        past=convert.duration(value.past),
        warm_up=convert.duration(value.warm_up),
        first_look=convert.duration(value.first_look),
        false_alarms_per_1000=value.false_alarms_per_1000,
        inconclusive=convert.number(analysis_pb2.Doubt.Value, "DOUBT_", value.inconclusive),
        inconclusive_after=convert.duration(value.inconclusive_after),
        unknown=convert.number(analysis_pb2.Doubt.Value, "DOUBT_", value.unknown),
        unknown_after=convert.duration(value.unknown_after),
        source=value.source,
    )


def metric(value: model.JudgedMetric) -> analysis_pb2.JudgedMetric:
    """One judged metric, every default said."""
    return analysis_pb2.JudgedMetric(
        name=value.name,
        measure=measure(value.measure),
        lower_is_worse=value.is_lower_worse,
        tolerance_percent=value.tolerance_percent,
        harm_percent=value.harm_percent,
    )


def measure(value: model.Measure) -> analysis_pb2.Measure:
    """One figure of a node."""
    return analysis_pb2.Measure(
        kind=convert.number(analysis_pb2.MeasureKind.Value, "MEASURE_KIND_", value.kind),
        series=value.series,
        per=value.per,
        quantile_percent=value.quantile_percent,
        query=value.query,
        per_query=value.per_query,
    )


def from_analysis(message: analysis_pb2.Analysis) -> model.Analysis:
    """An analysis from outside, its defaults filled in.

    Raises:
        InvalidRequestError: A word is unknown, or a time is none that `google.protobuf.Duration` allows.
    """
    return model.Analysis(
        metrics=tuple(map(_from_metric, message.metrics)),
        duration=_span(message, "duration", _ANALYSIS.duration),
        past=_span(message, "past", _ANALYSIS.past),
        warm_up=_span(message, "warm_up", _ANALYSIS.warm_up),
        first_look=_span(message, "first_look", _ANALYSIS.first_look),
        false_alarms_per_1000=message.false_alarms_per_1000 or _ANALYSIS.false_alarms_per_1000,
        inconclusive=_doubt(message.inconclusive, "inconclusive") or _ANALYSIS.inconclusive,
        inconclusive_after=_span(message, "inconclusive_after", _ANALYSIS.inconclusive_after),
        unknown=_doubt(message.unknown, "unknown") or _ANALYSIS.unknown,
        unknown_after=_span(message, "unknown_after", _ANALYSIS.unknown_after),
        source=message.source,
    )


def _span(message: analysis_pb2.Analysis, field: _SpanField, default: timedelta) -> timedelta:
    if not message.HasField(field):
        return default
    told: duration_pb2.Duration = getattr(message, field)
    return convert.span(told, f"parameters.analysis.{field}")


def _doubt(told: int, field: str) -> model.Doubt | None:
    return convert.member(model.Doubt, analysis_pb2.Doubt.Value, "DOUBT_", told, f"parameters.analysis.{field}")


def _from_metric(message: analysis_pb2.JudgedMetric) -> model.JudgedMetric:
    has_tolerance = message.HasField("tolerance_percent")
    return model.JudgedMetric(
        name=message.name,
        measure=from_measure(message.measure, "parameters.analysis.metrics.measure"),
        is_lower_worse=message.lower_is_worse,
        tolerance_percent=message.tolerance_percent if has_tolerance else _METRIC.tolerance_percent,
        harm_percent=message.harm_percent or _METRIC.harm_percent,
    )


def from_measure(message: analysis_pb2.Measure, place: str) -> model.Measure:
    """One figure of a node from outside.

    Args:
        message: The figure.
        place: Where it stands in the request.

    Raises:
        InvalidRequestError: Its kind is unknown, or there is none.
    """
    value_of = analysis_pb2.MeasureKind.Value
    kind = convert.member(model.MeasureKind, value_of, "MEASURE_KIND_", int(message.kind), f"{place}.kind")
    if kind is None:
        raise convert.refusal(f"{place}.kind", "", convert.one_of(model.MeasureKind))
    return model.Measure(
        kind=kind,
        series=message.series,
        per=message.per,
        quantile_percent=message.quantile_percent or _METRIC.measure.quantile_percent,
        query=message.query,
        per_query=message.per_query,
    )


def forecast(value: model.Forecast | None) -> analysis_pb2.Forecast | None:
    """What an analysis can find, or nothing."""
    if value is None:
        return None
    return analysis_pb2.Forecast(
        canary_nodes=value.canary_nodes,
        control_nodes=value.control_nodes,
        control_total=value.control_total,
        powers=map(_power, value.powers),
        basis=value.basis,
    )


def _power(value: model.Power) -> analysis_pb2.Power:
    return analysis_pb2.Power(
        metric=value.metric,
        comparison=convert.number(analysis_pb2.Comparison.Value, "COMPARISON_", value.comparison),
        lift_percent=value.lift_percent,
        found_within=convert.optional_duration(value.found_within),
        message=value.message,
    )


def judging(value: model.Judging | None) -> analysis_pb2.Judging | None:
    """How a wave is judged, or nothing."""
    if value is None:
        return None
    return analysis_pb2.Judging(
        wave=value.wave,
        begin_time=convert.timestamp(value.began_at),
        leave_time=convert.timestamp(value.left_at),
        inconclusive_time=convert.timestamp(value.inconclusive_at),
        unknown_since_time=convert.timestamp(value.unknown_since),
        unknown_time=convert.timestamp(value.unknown_at),
        stopped_for=convert.duration(value.stopped_for),
        await_time=convert.timestamp(value.awaited_since),
        doubt=convert.number(analysis_pb2.Finding.Value, "FINDING_", value.doubt),
        latest=_judgement(value.latest),
        decided=_judgement(value.decided),
        decide_time=convert.timestamp(value.decided_at),
        decided_by=value.decided_by,
    )


def _judgement(value: model.Judgement | None) -> analysis_pb2.Judgement | None:
    if value is None:
        return None
    return analysis_pb2.Judgement(
        look_time=convert.timestamp(value.at),
        elapsed=convert.duration(value.elapsed),
        look=value.look,
        finding=convert.number(analysis_pb2.Finding.Value, "FINDING_", value.finding),
        evidence=map(_evidence, value.evidence),
        message=value.message,
    )


def _evidence(value: model.Evidence) -> analysis_pb2.Evidence:
    return analysis_pb2.Evidence(
        metric=value.metric,
        finding=convert.number(analysis_pb2.Finding.Value, "FINDING_", value.finding),
        comparison=convert.number(analysis_pb2.Comparison.Value, "COMPARISON_", value.comparison),
        canary_nodes=value.canary_nodes,
        control_nodes=value.control_nodes,
        canary_value=value.canary_value,
        control_value=value.control_value,
        lift=value.lift,
        lift_low=value.lift_low,
        lift_high=value.lift_high,
        p=value.p,
        alpha=value.alpha,
        events=value.events,
        message=value.message,
    )


def courses(value: engine_courses.Courses) -> rollout_service_pb2.GetAnalysisResponse:
    """How a canary wave went over time."""
    return rollout_service_pb2.GetAnalysisResponse(
        rollout_id=value.rollout.id,
        name=value.rollout.request.name,
        component=value.rollout.request.component,
        to_version=value.to_version,
        judging=judging(value.rollout.judging),
        canary_nodes=value.canary_nodes,
        control_nodes=value.control_nodes,
        courses=[
            analysis_pb2.Course(metric=metric(each.metric), points=map(_point, each.points)) for each in value.courses
        ],
    )


def _point(value: engine_courses.Point) -> analysis_pb2.Point:
    return analysis_pb2.Point(
        time=convert.timestamp(value.at),
        canary=value.canary,
        control=value.control,
        control_low=value.control_low,
        control_high=value.control_high,
    )
