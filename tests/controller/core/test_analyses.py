from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.core import analyses, errors, model, requests
from tests.controller.core import scenario

pytestmark = pytest.mark.core

SOUND = scenario.analysis({})
KINDS = model.MeasureKind
MINUTE = timedelta(minutes=1)


def metric(name: str = "error rate", **fields: int | model.Measure) -> model.JudgedMetric:
    return replace(SOUND.metrics[0], name=name, **fields)  # type: ignore[arg-type] # each test names its own


def measured(kind: KINDS, series: str = "x", **fields: str | int) -> dict[str, Any]:
    measure = model.Measure(kind, series, **fields)  # type: ignore[arg-type] # each test names its own
    return {"metrics": (metric(measure=measure),)}


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "analysis_without_metrics": ({"metrics": ()}, ".metrics"),
    "analysis_metrics_too_many": ({"metrics": tuple(metric(f"m{each}") for each in range(33))}, ".metrics"),
    "analysis_metric_name_invalid": ({"metrics": (metric(""),)}, ".metrics[0].name"),
    "analysis_metric_twice": ({"metrics": (metric(), metric("other"), metric())}, ".metrics"),
    "analysis_tolerance_invalid": ({"metrics": (metric(tolerance_percent=-1),)}, ".metrics[0].tolerance_percent"),
    "analysis_harm_invalid": ({"metrics": (metric(harm_percent=10_001),)}, ".metrics[0].harm_percent"),
    "analysis_harm_tolerated": ({"metrics": (metric(tolerance_percent=100),)}, ".metrics[0].harm_percent"),
    "analysis_series_invalid": (measured(KINDS.LEVEL, ""), ".metrics[0].measure.series"),
    "analysis_per_invalid": (measured(KINDS.RATIO, per="y" * 201), ".metrics[0].measure.per"),
    "analysis_per_missing": (measured(KINDS.MEAN), ".metrics[0].measure.per"),
    "analysis_per_superfluous": (measured(KINDS.RATE, per="y"), ".metrics[0].measure.per"),
    "analysis_quantile_invalid": (
        measured(KINDS.QUANTILE, quantile_percent=100),
        ".metrics[0].measure.quantile_percent",
    ),
    "analysis_query_superfluous": (measured(KINDS.LEVEL, query="up"), ".metrics[0].measure.query"),
    "analysis_query_invalid": (
        {"source": "main", **measured(KINDS.LEVEL, per_query="x" * 2_001)},
        ".metrics[0].measure.per_query",
    ),
    "analysis_duration_invalid": ({"duration": timedelta()}, ".duration"),
    "analysis_past_invalid": ({"past": timedelta(days=31)}, ".past"),
    "analysis_first_look_invalid": ({"first_look": -MINUTE}, ".first_look"),
    "analysis_inconclusive_after_invalid": ({"inconclusive_after": timedelta()}, ".inconclusive_after"),
    "analysis_unknown_after_invalid": ({"unknown_after": timedelta()}, ".unknown_after"),
    "analysis_warm_up_invalid": ({"warm_up": 10 * MINUTE}, ".warm_up"),
    "analysis_first_look_late": ({"first_look": 11 * MINUTE}, ".first_look"),
    "analysis_inconclusive_early": ({"inconclusive_after": 9 * MINUTE}, ".inconclusive_after"),
    "analysis_unknown_reverts": ({"unknown": model.Doubt.REVERT}, ".unknown"),
    "analysis_false_alarms_invalid": ({"false_alarms_per_1000": 0}, ".false_alarms_per_1000"),
}


@pytest.mark.parametrize("code", BROKEN)
def test_each_rule_of_an_analysis_has_a_code_of_its_own(code: str) -> None:
    fields, where = BROKEN[code]
    asked = replace(scenario.request({"canary": "1"}), parameters=model.CanaryParameters(1, replace(SOUND, **fields)))
    with pytest.raises(errors.InvalidRequestError, match="cannot plan with") as refused:
        requests.check(asked)
    assert (refused.value.code, refused.value.field) == (code, f"parameters.analysis{where}")
    assert refused.value.rule


@pytest.mark.parametrize("kind", [KINDS.RATIO, KINDS.RATE, KINDS.MEAN, KINDS.QUANTILE, KINDS.LEVEL])
def test_every_kind_of_measure_can_be_asked_for(kind: KINDS) -> None:
    per = "y" if kind in (KINDS.RATIO, KINDS.MEAN) else ""
    analyses.check(replace(SOUND, **measured(kind, per=per)), None)


def test_what_leaves_nothing_to_measure_is_not_judged() -> None:
    for kind in (model.ChangeKind.REMOVE, model.ChangeKind.STOP, model.ChangeKind.START):
        with pytest.raises(errors.InvalidRequestError) as refused:
            analyses.check(SOUND, kind)
        assert refused.value.code == "analysis_of_nothing"
    analyses.check(SOUND, model.ChangeKind.RESTART)


def test_an_analysis_belongs_to_the_canary() -> None:
    asked = replace(scenario.request({}), parameters=model.CanaryParameters(1, SOUND))
    with pytest.raises(errors.InvalidRequestError, match="IMMEDIATE has no parameters") as refused:
        requests.check(asked)
    assert refused.value.code == "invalid_parameters"


@pytest.mark.parametrize(("known", "rule"), [(frozenset(), "no other source"), (frozenset({"a", "b"}), "one of a, b")])
def test_a_source_is_one_that_is_configured(known: frozenset[str], rule: str) -> None:
    analyses.check_source(SOUND, known)
    with pytest.raises(errors.InvalidRequestError, match=rule) as refused:
        analyses.check_source(replace(SOUND, source="main"), known)
    assert (refused.value.code, refused.value.value) == ("analysis_source_unknown", "main")
    analyses.check_source(replace(SOUND, source="main"), frozenset({"main"}))
