"""Analyses and what they find, between the wire and the core: total, and without loss."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core import errors, model
from controller.rpc import analysis_convert, convert
from instar.v1 import analysis_pb2

SECOND = timedelta(seconds=1)
AT = datetime(2026, 1, 1, tzinfo=UTC)
METRIC = model.JudgedMetric(  # nothing in it is a default
    "hits",
    model.Measure(model.MeasureKind.QUANTILE, "hits", "asked", 95, "q", "p"),
    is_lower_worse=True,
    tolerance_percent=0,
    harm_percent=30,
)
ANALYSIS = model.Analysis(  # nothing in it is a default
    metrics=(METRIC,),
    duration=3 * SECOND,
    past=4 * SECOND,
    warm_up=5 * SECOND,
    first_look=6 * SECOND,
    false_alarms_per_1000=7,
    inconclusive=model.Doubt.REVERT,
    inconclusive_after=8 * SECOND,
    unknown=model.Doubt.FAIL,
    unknown_after=9 * SECOND,
    source="main",
)
EVIDENCE = model.Evidence(
    "hits", model.Finding.WORSE, model.Comparison.POOLED, 1, 2, 0.5, 0.25, 2.0, 1.5, None, 0.001, 0.01, 12, "it is"
)
JUDGEMENT = model.Judgement(AT, SECOND, 3, model.Finding.WORSE, (EVIDENCE,), "worse in hits")
JUDGING = model.Judging(
    wave=1,
    left_at=AT,
    began_at=AT + SECOND,
    inconclusive_at=AT + 2 * SECOND,
    unknown_since=AT + 3 * SECOND,
    unknown_at=AT + 4 * SECOND,
    heed_from=AT,
    stopped_for=5 * SECOND,
    awaited_since=AT + 6 * SECOND,
    doubt=model.Finding.UNKNOWN,
    latest=JUDGEMENT,
    decided=JUDGEMENT,
    decided_at=AT + 7 * SECOND,
    decided_by="ann",
)


def test_every_field_of_an_analysis_arrives_as_it_was_said() -> None:
    plain = model.Analysis(())
    same = [one.name for one in fields(ANALYSIS) if getattr(ANALYSIS, one.name) == getattr(plain, one.name)]
    assert same == [], "a field with its default proves nothing"
    assert analysis_convert.from_analysis(analysis_convert.analysis(ANALYSIS)) == ANALYSIS


@pytest.mark.parametrize("kind", model.MeasureKind)
def test_every_kind_of_measure_passes_both_ways(kind: model.MeasureKind) -> None:
    asked = replace(ANALYSIS, metrics=(replace(METRIC, measure=model.Measure(kind, "x")),))
    assert analysis_convert.from_analysis(analysis_convert.analysis(asked)) == asked


def test_what_an_analysis_leaves_out_has_its_default() -> None:
    measure = analysis_pb2.Measure(kind=analysis_pb2.MEASURE_KIND_LEVEL, series="x")
    message = analysis_pb2.Analysis(metrics=[analysis_pb2.JudgedMetric(name="m", measure=measure)])
    wanted = model.JudgedMetric("m", model.Measure(model.MeasureKind.LEVEL, "x"))
    assert analysis_convert.from_analysis(message) == model.Analysis((wanted,))


def test_a_measure_without_a_kind_and_a_time_beyond_all_bounds_are_refused() -> None:
    with pytest.raises(errors.InvalidRequestError, match="one of RATIO, RATE, MEAN, QUANTILE, LEVEL"):
        analysis_convert.from_analysis(analysis_pb2.Analysis(metrics=[analysis_pb2.JudgedMetric(name="m")]))
    endless = analysis_pb2.Analysis()
    endless.past.seconds = 1 << 62
    with pytest.raises(errors.InvalidRequestError) as refused:
        analysis_convert.from_analysis(endless)
    assert refused.value.field == "parameters.analysis.past"


def test_all_of_a_judgement_is_told() -> None:
    told = analysis_convert.judging(JUDGING)
    assert told is not None
    unset = [one.name for one in told.DESCRIPTOR.fields if not getattr(told, one.name)]
    assert unset == []
    assert told.latest == told.decided
    (evidence,) = told.latest.evidence
    assert (evidence.lift, evidence.HasField("lift_high"), evidence.events) == (2.0, False, 12)
    assert (told.leave_time, told.decide_time) == (convert.timestamp(AT), convert.timestamp(AT + 7 * SECOND))
    assert analysis_convert.judging(None) is None


def test_a_forecast_says_when_nothing_is_found_in_time() -> None:
    late = model.Power("hits", model.Comparison.NODES, 50, None, "it is not found")
    found = analysis_convert.forecast(model.Forecast((model.NodeId("a"),), (), 0, (late,), "nothing"))
    assert found is not None
    assert not found.powers[0].HasField("found_within")
    assert analysis_convert.forecast(None) is None
