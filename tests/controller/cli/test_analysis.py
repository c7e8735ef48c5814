"""How a canary is judged, as people ask for it and are told of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from controller.cli import plotting
from controller.core import model
from controller.rpc import request_convert
from instar.v1 import analysis_pb2, rollout_pb2, rollout_service_pb2
from tests.controller.cli import scripted

F = analysis_pb2
START = datetime(2026, 1, 1, tzinfo=UTC)
UPGRADE = ("upgrade", "plan", "web", "1.1.0")
ANALYSIS = {
    "metrics": [{"name": "error rate", "measure": {"kind": "RATIO", "series": "errors", "per": "requests"}}],
    "duration": "5m",
    "unknown": "FAIL",
}
TOML = """\
duration = "5m"
unknown = "FAIL"
[[metrics]]
name = "error rate"
measure = { kind = "RATIO", series = "errors", per = "requests" }
"""


@pytest.fixture(params=["json", "toml"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"analysis.{request.param}"
    path.write_text(TOML if request.param == "toml" else json.dumps(ANALYSIS), encoding="utf-8")
    return path


def test_an_analysis_is_read_from_a_file(file: Path) -> None:
    with scripted.controller(rollouts_PlanUpgrade=rollout_service_pb2.PlanUpgradeResponse()) as controller:
        assert scripted.instar(*UPGRADE, "--canary-nodes", "2", "--analysis", file) == 0
    measure = model.Measure(model.MeasureKind.RATIO, "errors", "requests")
    wanted = model.Analysis(
        (model.JudgedMetric("error rate", measure),), duration=timedelta(minutes=5), unknown=model.Doubt.FAIL
    )
    found = request_convert.from_request(controller.last.upgrade).parameters
    assert found == model.CanaryParameters(2, wanted)


def test_an_analysis_belongs_to_the_canary_alone(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scripted.instar(*UPGRADE, "--batch", "2", "--analysis", file) == 2
    assert "each belongs to a strategy of its own" in capsys.readouterr().err
    assert scripted.instar(*UPGRADE, "--analysis", file.with_name("none.json")) == 2
    assert "none.json" in capsys.readouterr().err


def test_a_plan_says_what_is_compared_and_what_will_be_found(capsys: pytest.CaptureFixture[str]) -> None:
    power = F.Power(metric="error rate", message="a fourfold error rate is found in about 6 minutes")
    forecast = F.Forecast(
        canary_nodes=["a"], control_nodes=["b", "c"], control_total=7, powers=[power], basis="reckoned from the past"
    )
    plan = rollout_pb2.Plan(fingerprint="f", forecast=forecast)
    with scripted.controller(rollouts_PlanUpgrade=rollout_service_pb2.PlanUpgradeResponse(plan=plan)):
        assert scripted.instar(*UPGRADE) == 0
    out = capsys.readouterr().out
    assert "judged: the canary a against b, c, 5 more\n  a fourfold error rate" in out
    assert "  reckoned from the past" in out


def judging(finding: F.Finding.ValueType = F.FINDING_WORSE) -> F.Judging:
    found = F.Judging(wave=1, decided=F.Judgement(finding=finding, message="worse in error rate"))
    found.begin_time.FromDatetime(START + timedelta(minutes=10))
    found.decide_time.FromDatetime(START + timedelta(minutes=15))
    found.decided.elapsed.FromTimedelta(timedelta(minutes=5))
    found.decided.evidence.add(
        metric="error rate", finding=finding, lift=4.0, lift_low=2.0, canary_value=0.04, control_value=0.01, p=0.001
    )
    found.decided.evidence[0].message = "error rate: four times"
    return found


def analysis(record: F.Judging) -> rollout_service_pb2.GetAnalysisResponse:
    found = rollout_service_pb2.GetAnalysisResponse(
        rollout_id="r-1", name="spring", component="web", to_version="1.1.0", canary_nodes=["a"], control_nodes=4
    )
    found.judging.CopyFrom(record)
    course = found.courses.add()
    course.metric.name, course.metric.measure.kind = "error rate", F.MEASURE_KIND_RATIO
    for minute in range(20):
        point = course.points.add(control=0.01)
        point.time.FromDatetime(START + timedelta(minutes=minute))
        if minute != 5:
            point.canary = 0.04 if minute > 10 else 0.01
    return found


def test_the_evidence_is_told_in_one_line_for_each_metric(capsys: pytest.CaptureFixture[str]) -> None:
    reason = rollout_service_pb2.Reason(code="reverted", message="rollout spring was taken back")
    answer = rollout_service_pb2.ExplainRolloutResponse(reasons=[reason], judging=judging())
    with scripted.controller(rollouts_ExplainRollout=answer):
        assert scripted.instar("rollout", "explain", "spring") == 0
    assert capsys.readouterr().out.splitlines() == ["rollout spring was taken back", "evidence: error rate: four times"]


def test_an_analysis_is_shown_with_what_is_not_known_left_open(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted.controller(rollouts_GetAnalysis=analysis(judging())) as controller:
        assert scripted.instar("rollout", "analysis", "spring") == 0
    assert controller.last.rollout == "spring"
    out = capsys.readouterr().out
    assert "worse: worse in error rate" in out
    assert "\N{MULTIPLICATION SIGN}4.00 (2.00 to \N{INFINITY})" in out


def test_what_is_held_says_that_somebody_has_to_decide(capsys: pytest.CaptureFixture[str]) -> None:
    record = F.Judging(wave=1, doubt=F.FINDING_UNKNOWN)
    record.stopped_for.FromTimedelta(timedelta(minutes=2))
    with scripted.controller(rollouts_GetAnalysis=analysis(record)):
        assert scripted.instar("rollout", "analysis", "spring") == 0
    out = capsys.readouterr().out
    assert "nobody has looked yet" in out
    assert "held as unknown: somebody has to promote it or take it back" in out
    assert "its clocks stood still for 2m" in out


@pytest.mark.parametrize("finding", [F.FINDING_WORSE, F.FINDING_NO_WORSE, F.FINDING_INCONCLUSIVE, F.FINDING_UNKNOWN])
def test_a_plot_is_drawn_into_a_file(
    finding: F.Finding.ValueType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "judged.png"
    with scripted.controller(rollouts_GetAnalysis=analysis(judging(finding))):
        assert scripted.instar("rollout", "analysis", "spring", "--plot", file, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["control_nodes"] == 4
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("kind", "series", "shown"),
    [
        (F.MEASURE_KIND_RATIO, "errors", "4 % against 1 %"),
        (F.MEASURE_KIND_RATE, "errors", "0.04/s against 0.01/s"),
        (F.MEASURE_KIND_MEAN, 'web_handling_seconds_total{code="200"}', "0.04 s against 0.01 s"),
        (F.MEASURE_KIND_LEVEL, "queue_bytes", "0.04 B against 0.01 B"),
        (F.MEASURE_KIND_LEVEL, "queue_size", "0.04 against 0.01"),
    ],
)
def test_figures_of_a_plot_have_units(kind: F.MeasureKind.ValueType, series: str, shown: str) -> None:
    told = analysis(judging())
    measure = told.courses[0].metric.measure
    measure.kind, measure.series = kind, series
    drawn = plotting.figure_of(told, told.courses)
    assert any(text.get_text().startswith(f"worse: {shown}; ") for text in drawn.axes[0].texts)


def test_a_plot_shows_a_figure_over_the_time_that_it_was_counted_in() -> None:
    told = analysis(judging())
    (panel,) = plotting.figure_of(told, told.courses).axes
    untouched = panel.get_lines()[0]
    assert untouched.get_drawstyle() == "steps-pre"
    minutes = np.asarray(untouched.get_xdata(), dtype=np.float64) * 24 * 60
    assert np.diff(minutes) == pytest.approx(1.0)
    assert len(minutes) == len(told.courses[0].points) + 1


@pytest.mark.parametrize("points", [1, 2])
def test_a_plot_of_few_points_is_drawn(points: int, tmp_path: Path) -> None:
    told = analysis(judging())
    del told.courses[0].points[points:]
    plotting.draw(told, tmp_path / "judged.png")
    assert (tmp_path / "judged.png").exists()


def test_a_plot_of_what_is_not_kept_or_into_nowhere_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = analysis(judging())
    del empty.courses[0].points[:]
    with scripted.controller(rollouts_GetAnalysis=empty):
        assert scripted.instar("rollout", "analysis", "spring", "--plot", tmp_path / "judged.png") == 2
    assert "still kept" in capsys.readouterr().err
    with scripted.controller(rollouts_GetAnalysis=analysis(judging())):
        assert scripted.instar("rollout", "analysis", "spring", "--plot", tmp_path / "none" / "judged.png") == 2
    assert "can be written" in capsys.readouterr().err
