"""What a plan says besides its changes, for people and in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.cli import files
from instar.v1 import operation_pb2, rollout_pb2, rollout_service_pb2
from tests.controller.cli import scripted

KNOWN = rollout_pb2.Advice(
    component="web",
    from_version="1.0.0",
    to_version="1.1.0",
    method=operation_pb2.METHOD_RESTART,
    node_class="big",
    changes=2,
    chance=0.988,
    chance_low=0.953,
    successes=40,
    reason="40 of 40 succeeded",
    wave_nodes=21,
    wave_reason="less than one of 21 fails",
    better_method=operation_pb2.METHOD_HOT_SWAP,
    better_method_reason="all of those succeeded",
)
KNOWN.estimate.median.FromSeconds(30)
KNOWN.estimate.p95.FromSeconds(90)
KNOWN.estimate.reason = "the latest 40"
GUESSED = rollout_pb2.Advice(
    component="db",
    to_version="2.0.0",
    method=operation_pb2.METHOD_HOT_SWAP,
    changes=1,
    chance=0.5,
    chance_low=0.006,
    reason="0 where 5 are needed",
    wave_nodes=1,
    wave_reason="one of two may fail already",
    better_method_reason="too few are known",
)
PLAN = rollout_pb2.Plan(fingerprint="f", advice=[KNOWN, GUESSED], advice_left_out=3)


def test_advice_is_printed_in_numbers_with_its_reasons_below(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted.controller(rollouts_PlanUpgrade=rollout_service_pb2.PlanUpgradeResponse(plan=PLAN)):
        assert scripted.instar("upgrade", "plan", "web", "1.1.0") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in (
        "1 web 1.0.0 > 1.1.0 RESTART big 2 98.8%, at least 95.3% 21 30s, at most 1m 30s HOT_SWAP",
        "2 db - > 2.0.0 HOT_SWAP - 1 50.0%, at least 0.6% 1 - neither",
    ):
        assert line in lines, lines
    assert lines[lines.index("advice 1: 40 of 40 succeeded") :] == [
        "advice 1: 40 of 40 succeeded",
        "wave: less than one of 21 fails",
        "time: the latest 40",
        "better method: all of those succeeded",
        "advice 2: 0 where 5 are needed",
        "wave: one of two may fail already",
        "better method: too few are known",
        "no advice on 3 more kinds of change, which fewer nodes make",
    ]


def test_a_plan_without_advice_says_nothing_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted.controller(rollouts_PlanUpgrade=rollout_service_pb2.PlanUpgradeResponse()):
        assert scripted.instar("upgrade", "plan", "web", "1.1.0") == 0
    assert "advice" not in capsys.readouterr().out.lower()


def test_a_saved_plan_keeps_the_advice_and_what_is_sent_back_leaves_it_out(tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    with scripted.controller(rollouts_PlanUpgrade=rollout_service_pb2.PlanUpgradeResponse(plan=PLAN)):
        assert scripted.instar("upgrade", "plan", "web", "1.1.0", "--out", saved) == 0
    kept = json.loads(saved.read_text())["plan"]
    assert [each["wave_nodes"] for each in kept["advice"]] == [21, 1]
    assert kept["advice_left_out"] == 3
    _, sent = files.read_plan(saved)
    assert sent == rollout_pb2.Plan(fingerprint="f")
