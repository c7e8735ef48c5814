"""What the options of an upgrade say to the controller."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from controller.cli import asking, document, failures, upgrade_commands
from controller.core import model
from controller.rpc import request_convert
from instar.v1 import rollout_pb2, rollout_service_pb2
from tests.controller.cli import scripted

UPGRADE = ("upgrade", "plan", "web", "1.1.0")


def asked(*options: str) -> model.UpgradeRequest:
    """The request of a plan, as the controller reads it."""
    with scripted.controller(rollouts_PlanUpgrade=rollout_service_pb2.PlanUpgradeResponse()) as controller:
        assert scripted.instar(*UPGRADE, *options) == 0
    return request_convert.from_request(controller.last.upgrade)


def test_what_is_not_said_is_left_to_the_controller() -> None:
    with scripted.controller(rollouts_PlanUpgrade=rollout_service_pb2.PlanUpgradeResponse()) as controller:
        assert scripted.instar(*UPGRADE) == 0
    assert controller.last.upgrade == rollout_pb2.UpgradeRequest(
        component="web", target_version="1.1.0", strategy=rollout_pb2.STRATEGY_CANARY, policy=rollout_pb2.Policy()
    )


@pytest.mark.parametrize(
    ("options", "strategy", "parameters"),
    [
        (("--strategy", "immediate"), model.Strategy.IMMEDIATE, None),
        (("--strategy", "rolling", "--batch", "3"), model.Strategy.ROLLING, model.RollingParameters(3)),
        (
            ("--strategy", "gradual", "--percents", "5, 25,100"),
            model.Strategy.GRADUAL,
            model.GradualParameters((5, 25, 100)),
        ),
        (("--strategy", "Canary", "--canary-nodes", "2"), model.Strategy.CANARY, model.CanaryParameters(2)),
        (
            ("--strategy", "blue-green", "--verify", "30s"),
            model.Strategy.BLUE_GREEN,
            model.BlueGreenParameters(timedelta(seconds=30)),
        ),
    ],
)
def test_each_strategy_has_its_parameters(
    options: tuple[str, ...], strategy: model.Strategy, parameters: model.Parameters | None
) -> None:
    found = asked(*options)
    assert (found.strategy, found.parameters) == (strategy, parameters)


def test_every_number_of_a_policy_can_be_said() -> None:
    found = asked(
        *("--max-parallel", "3", "--max-failures", "4", "--max-infrastructure-failures", "0"),
        *("--min-healthy-duration", "1.5s", "--healthy-deadline", "1m", "--progress-deadline", "2m"),
        *("--unknown-deadline", "3m", "--soak-duration", "20ms", "--soak-requests-min", "5"),
        *("--floor", "80", "--domain", "zone", "--domain-max", "2", "--bake", "7m", "--promote-by-hand"),
        *("--window", "mon,fri 22:00+4h Europe/Berlin", "--window", "00:00+24h"),
        *("--offline", "expire", "--offline-deadline", "2h", "--join", "include", "--deadline", "6h"),
        *("--revert-parallel", "9", "--restart-allowed", "--discard-writes"),
        *("--hold-while-firing", "errors", "--hold-while-firing", "latency"),
    )
    hour = timedelta(hours=1)
    assert found.policy == model.Policy(
        max_parallel=3,
        max_failures=4,
        max_infrastructure_failures=0,
        min_healthy_duration=timedelta(seconds=1.5),
        healthy_deadline=timedelta(minutes=1),
        progress_deadline=timedelta(minutes=2),
        unknown_deadline=timedelta(minutes=3),
        soak_duration=timedelta(milliseconds=20),
        soak_requests_min=5,
        floor_percent=80,
        domain_label="zone",
        domain_max_parallel=2,
        bake_duration=timedelta(minutes=7),
        is_promoted_by_hand=True,
        windows=(
            model.Window(22 * hour, 4 * hour, frozenset({1, 5}), "Europe/Berlin"),
            model.Window(timedelta(), 24 * hour),
        ),
        offline=model.OfflinePolicy.EXPIRE,
        offline_deadline=2 * hour,
        join=model.JoinPolicy.INCLUDE,
        deadline=6 * hour,
        revert_max_parallel=9,
        restart_allowed=True,
        discard_writes=True,
        hold_while_firing=("errors", "latency"),
    )


def test_all_else_of_a_request_can_be_said() -> None:
    found = asked(
        *("--also", "db=2.0.0", "--also", "ui=stable", "--level", "permissive", "--on-conflict", "supersede"),
        *("--priority", "-3", "--never-revert", "--downgrade-allowed", "--install", "-l", "zone=a", "--name", "spring"),
        *("--approval-deadline", "3h"),
    )
    assert found == model.UpgradeRequest(
        component=model.ComponentName("web"),
        target_version="1.1.0",
        strategy=model.Strategy.CANARY,
        selector="zone=a",
        install=True,
        name="spring",
        also=(model.Target(model.ComponentName("db"), "2.0.0"), model.Target(model.ComponentName("ui"), "stable")),
        level=model.ValidationLevel.PERMISSIVE,
        conflict=model.ConflictPolicy.SUPERSEDE,
        priority=-3,
        is_revertible=False,
        downgrade_allowed=True,
        approval_deadline=timedelta(hours=3),
    )


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (("--strategy", "sideways", "immediate", "rolling", "gradual", "canary", "blue-green"), ()),
        (("--level", "sideways", "strict", "normal", "permissive"), ()),
        (("--on-conflict", "sideways", "reject", "queue", "supersede"), ()),
        (("--offline", "sideways", "wait", "skip", "expire"), ()),
        (("--join", "sideways", "ignore", "include"), ()),
        (("--batch", "without --canary-nodes"), ("--canary-nodes", "1", "--batch", "2")),
        (("--verify", "without --percents"), ("--percents", "5,100", "--verify", "2s")),
        (("--percents", "5,25,100"), ("--percents", "5,half")),
        (("--percents", "101"), ("--percents", "5,101")),
        (("--verify", "500ms"), ("--verify", "soon")),
        (("--bake", "500ms"), ("--bake", "soon")),
        (("--deadline", "500ms"), ("--deadline", "6 hours")),
        (("--floor",), ("--floor", "101")),
        (("--domain-max",), ("--domain-max", "0")),
        (("--window", "HH:MM"), ("--window", "whenever")),
        (("--also", "COMPONENT=VERSION"), ("--also", "db")),
        (("--also", "COMPONENT=VERSION"), ("--also", "=1.0.0")),
    ],
)
def test_what_cannot_be_read_ends_with_code_2_and_names_the_option(
    words: tuple[str, ...], options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted.controller() as controller:
        code = scripted.instar(*UPGRADE, *(options or words[:2]))
    told = capsys.readouterr()
    assert (code, told.out, controller.asked) == (failures.Exit.USAGE, "", [])
    assert told.err.startswith("cannot ")
    assert all(word in told.err for word in words), told.err


def test_the_options_that_were_given_are_those_that_differ_from_their_default() -> None:
    assert upgrade_commands.Started().given() == ()
    given = upgrade_commands.Started(
        component="web", floor_percent=0, window=["00:00+1h"], strategy=asking.Strategy.ROLLING
    )
    assert given.given() == ("--strategy", "--floor", "--window", "COMPONENT")


def saved(tmp_path: Path, *options: str) -> Path:
    """A plan that was saved."""
    plan = rollout_pb2.Plan(fingerprint="abc", facts={"policy": "x"}, waves=[rollout_pb2.Wave(index=1)])
    file = tmp_path / "plan.json"
    answer = rollout_service_pb2.PlanUpgradeResponse(plan=plan)
    with scripted.controller(rollouts_PlanUpgrade=answer):
        assert scripted.instar(*UPGRADE, *options, "--out", file) == 0
    return file


def test_a_saved_plan_is_started_with_all_that_was_asked_for(tmp_path: Path) -> None:
    options = ("--strategy", "blue-green", "--verify", "1500ms", "--window", "mon-fri 22:00+4h", "--floor", "50")
    file = saved(tmp_path, *options)
    answer = rollout_service_pb2.StartUpgradeResponse()
    with scripted.controller(rollouts_StartUpgrade=answer) as controller:
        assert scripted.instar("upgrade", "start", "--plan", file, "--request-id", "ci-1") == 0
    assert request_convert.from_request(controller.last.upgrade) == asked(*options)
    assert controller.last.plan == rollout_pb2.Plan(fingerprint="abc", facts={"policy": "x"})
    assert controller.last.request_id == "ci-1"


def test_the_facts_of_a_fleet_that_is_too_large_to_send_stay_at_home(tmp_path: Path) -> None:
    facts = {f"node {number:06}": "x" * 64 for number in range(20_000)}
    plan = rollout_pb2.Plan(fingerprint="abc", facts=facts)
    file = tmp_path / "plan.json"
    with scripted.controller(rollouts_PlanUpgrade=rollout_service_pb2.PlanUpgradeResponse(plan=plan)):
        assert scripted.instar(*UPGRADE, "--out", file) == 0
    with scripted.controller(rollouts_StartUpgrade=rollout_service_pb2.StartUpgradeResponse()) as controller:
        assert scripted.instar("upgrade", "start", "--plan", file) == 0
    assert controller.last.plan == rollout_pb2.Plan(fingerprint="abc")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("COMPONENT", "--plan")),
        (("web",), ("VERSION", "--plan")),
        (("web", "1.1.0", "--plan", "{file}"), ("--plan", "without COMPONENT")),
        (("--floor", "80", "--plan", "{file}"), ("--plan", "without --floor")),
        (("--plan", "{file}.none"), ("FILE", "can be read")),
        (("--plan", "{other}"), ("--plan", "upgrade plan --out")),
    ],
)
def test_a_start_is_told_by_arguments_or_by_a_file_and_never_by_both(
    tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    file, other = saved(tmp_path), tmp_path / "other.json"
    other.write_text('{"request": {}}')
    capsys.readouterr()
    with scripted.controller() as controller:
        code = scripted.instar("upgrade", "start", *(one.format(file=file, other=other) for one in arguments))
    told = capsys.readouterr()
    assert (code, controller.asked) == (failures.Exit.USAGE, [])
    assert all(word in told.err for word in words), told.err


def test_a_plan_that_cannot_be_saved_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted.controller(rollouts_PlanUpgrade=rollout_service_pb2.PlanUpgradeResponse()):
        assert scripted.instar(*UPGRADE, "--out", tmp_path / "none" / "plan.json") == failures.Exit.USAGE
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("waves", "options", "code"),
    [
        ([], ("--detailed-exitcode",), 0),
        ([rollout_pb2.Wave(index=1)], ("--detailed-exitcode",), 10),
        ([rollout_pb2.Wave(index=1)], ("--detailed-exitcode", "-o", "json"), 10),
        ([rollout_pb2.Wave(index=1)], (), 0),
    ],
)
def test_a_detailed_exit_code_tells_whether_something_would_change(
    waves: list[rollout_pb2.Wave], options: tuple[str, ...], code: int
) -> None:
    answer = rollout_service_pb2.PlanUpgradeResponse(plan=rollout_pb2.Plan(waves=waves))
    with scripted.controller(rollouts_PlanUpgrade=answer):
        assert scripted.instar(*UPGRADE, *options) == code


def test_a_plan_is_shown_node_by_node_with_all_that_it_risks(capsys: pytest.CaptureFixture[str]) -> None:
    plan = rollout_pb2.Plan()
    document.read(
        {
            "waves": [
                {
                    "index": 1,
                    "canary": True,
                    "bake_duration": "5m",
                    "purpose": "hop over 1.1.0",
                    "changes": [
                        {
                            "node_id": "n-1",
                            "component": "web",
                            "kind": "UPGRADE",
                            "method": "RESTART",
                            "method_reason": "the driver cannot",
                            "from_version": "1.0.0",
                            "from_digest": "a",
                            "to_version": "1.1.0",
                            "to_digest": "b",
                            "no_way_back": "nothing leads back",
                            "domain": "rack 7",
                        }
                    ],
                }
            ],
            "unchanged_nodes": ["n-2"],
            "excluded": [{"node_id": "n-3", "code": "node_cordoned", "message": "somebody works on it"}],
            "warnings": [{"code": "small_canary", "message": "one node proves little"}],
            "blast_radius": {
                "nodes": 1,
                "of_nodes": 3,
                "first_wave": 1,
                "domains": [{"domain": "rack 7", "nodes": 1}],
            },
            "capacity": [{"wave": 1, "after": "90s", "available_min": 2, "total": 3}],
            "estimate": {"median": "4m", "p95": "9m", "reason": "from 12 past outcomes"},
        },
        plan,
        "plan",
    )
    with scripted.controller(rollouts_PlanUpgrade=rollout_service_pb2.PlanUpgradeResponse(plan=plan)):
        assert scripted.instar(*UPGRADE) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in (
        "1 hop over 1.1.0 n-1 UPGRADE web 1.0.0 > 1.1.0 RESTART: the driver cannot nothing leads back rack 7",
        "1 1m 30s 2 of 3 5m",
        "n-3 node_cordoned somebody works on it",
        "at risk: 1 of 3 nodes, 1 of them before the first gate; by domain: rack 7 1",
        "expected to take 4m, at most 9m in nineteen of twenty cases: from 12 past outcomes",
        "unchanged: n-2",
        "warning: one node proves little (small_canary)",
    ):
        assert line in lines, lines
