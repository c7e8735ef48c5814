"""Every strategy and every verb on twenty real nodes in four zones, by the command line alone: one story."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration import zones as houses

V = houses.Version
VERSIONS = (
    *(V("web", f"1.{minor}.0") for minor in range(6)),
    V("web", "1.9.0", is_bad=True),
    V("web", "2.0.0"),
    V("web", "3.0.0"),
    V("cache", "1.0.0"),
    V("cache", "2.0.0"),
    V("web", "4.0.0", requires="cache >=2.0.0"),
)


def states(rollout: Any) -> set[str]:  # noqa: ANN401  # JSON
    return {change["state"] for change in rollout["changes"]}


def waves(rollout: Any) -> list[int]:  # noqa: ANN401  # JSON
    return [len(wave["changes"]) for wave in rollout["plan"]["waves"]]


def zones_of(rollout: Any, wave: int) -> set[str]:  # noqa: ANN401  # JSON
    return {houses.ZONES[int(each["node_id"][1:]) % 4] for each in rollout["plan"]["waves"][wave]["changes"]}


async def upgraded(fleet: houses.Zones, version: str, *options: str) -> Any:  # noqa: ANN401  # JSON
    """Upgrade all nodes, follow it to its end, and show what came of it."""
    await fleet.ask("upgrade", "start", "web", version, "--name", f"web-{version}", *houses.QUICK, *options)
    return await fleet.ended(f"web-{version}")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(1500)
async def test_twenty_nodes_go_through_every_strategy_and_every_verb_by_the_command_line_alone(tmp_path: Path) -> None:
    async with houses.up() as fleet:
        for version in VERSIONS:
            await fleet.publish(version)
        await everything_is_installed(fleet)
        await rolling_in_batches_that_spread_over_the_zones(fleet)
        await gradual_by_a_saved_plan_that_goes_stale(fleet, tmp_path)
        await a_canary_that_is_bad_goes_back_and_is_remembered(fleet)
        await blue_green_switches_all_together(fleet)
        await a_cancel_in_the_middle_leaves_what_is_done(fleet)
        await a_revert_and_the_revert_of_the_revert(fleet)
        await two_hops_over_a_barrier(fleet)
        await two_components_of_which_one_requires_the_other(fleet)
        await an_emergency_takes_everything_back_and_locks(fleet)


async def everything_is_installed(fleet: houses.Zones) -> None:
    await fleet.ask("upgrade", "start", "cache", "1.0.0", "--strategy", "immediate", "--install", *houses.QUICK)
    assert (await fleet.ended("cache-1.0.0"))["state"] == "SUCCEEDED"
    found = await upgraded(fleet, "1.0.0", "--strategy", "immediate", "--install")
    assert (found["state"], waves(found)) == ("SUCCEEDED", [20]), (found["reason"], found["message"])
    await fleet.runs("1.0.0")


async def rolling_in_batches_that_spread_over_the_zones(fleet: houses.Zones) -> None:
    found = await upgraded(
        fleet,
        "1.1.0",
        "--strategy",
        "rolling",
        "--batch",
        "8",
        "--domain",
        "zone",
        "--domain-max",
        "2",
        "--floor",
        "60",
    )
    assert (found["state"], waves(found)) == ("SUCCEEDED", [8, 8, 4])
    assert zones_of(found, 0) == set(houses.ZONES)
    await fleet.runs("1.1.0")


async def gradual_by_a_saved_plan_that_goes_stale(fleet: houses.Zones, folder: Path) -> None:
    saved = folder / "plan.json"
    words = ("web", "1.2.0", "--strategy", "gradual", "--percents", "10,50,100", *houses.QUICK)
    said = await fleet.say("upgrade", "plan", *words, "--out", str(saved), "--detailed-exitcode")
    assert said.code == 10, said
    assert json.loads(saved.read_text())
    await fleet.ask("node", "cordon", "n07", "--reason", "its disk is changed")
    assert "n07" in await fleet.refused("upgrade", "start", "--plan", str(saved))
    await fleet.ask("node", "uncordon", "n07")
    started = await fleet.ask("upgrade", "start", "--plan", str(saved))
    found = await fleet.ended(started["rollout_id"])
    assert (found["state"], waves(found)) == ("SUCCEEDED", [2, 8, 10])
    await fleet.runs("1.2.0")


async def a_canary_that_is_bad_goes_back_and_is_remembered(fleet: houses.Zones) -> None:
    started = ("upgrade", "start", "web", "1.9.0", "--name", "bad", "--strategy", "canary", "--canary-nodes", "2")
    await fleet.ask(*started, *houses.QUICK)
    found = await fleet.ended("bad")
    assert (found["state"], found["reason"], waves(found)) == ("REVERTED", "version_failed", [2, 18])
    await fleet.runs("1.2.0")
    why = await fleet.ask("rollout", "explain", "bad")
    assert any("version" in each["message"] for each in why["reasons"])
    assert "left for cause" in await fleet.refused("upgrade", "start", "web", "1.9.0", *houses.QUICK)


async def blue_green_switches_all_together(fleet: houses.Zones) -> None:
    words = ("web", "1.3.0", "--name", "web-1.3.0", "--strategy", "blue-green", "--verify", "8s")  # several looks long
    quick = houses.QUICK[:-2]  # it has no max_parallel: all change together
    await fleet.ask("upgrade", "start", *words, *quick)
    held = await fleet.until("web-1.3.0", lambda one: "HELD" in states(one) or one["state"] != "RUNNING")
    assert held["state"] == "RUNNING"
    found = await fleet.ended("web-1.3.0")
    assert (found["state"], waves(found)) == ("SUCCEEDED", [20])
    await fleet.runs("1.3.0")


async def a_cancel_in_the_middle_leaves_what_is_done(fleet: houses.Zones) -> None:
    words = ("web", "1.4.0", "--name", "half", "--strategy", "rolling", "--batch", "5", "--promote-by-hand")
    await fleet.ask("upgrade", "start", *words, *houses.QUICK)
    await fleet.until("half", lambda one: "PERMANENT" in states(one) and bool(one["waiting_for"]))
    await fleet.ask("rollout", "pause", "half", "--reason", "lunch")
    assert (await fleet.rollout("half"))["state"] == "PAUSED"
    await fleet.ask("rollout", "resume", "half", "--reason", "back")
    await fleet.ask("rollout", "cancel", "half", "--reason", "changed our mind")
    found = await fleet.ended("half")
    assert (found["state"], found["wave"]) == ("CANCELLED", 1)
    versions = await fleet.versions()
    assert versions == {"1.3.0": 15, "1.4.0": 5}
    assert "cannot" in await fleet.refused("rollout", "pause", "half", "--reason", "too late")
    await fleet.ask("rollout", "retry", "half", "--reason", "and again")
    await fleet.until("half", lambda one: bool(one["waiting_for"]) or one["state"] != "RUNNING" or one["wave"] > 1)
    if (await fleet.rollout("half"))["wave"] == 1:
        await fleet.ask("rollout", "promote", "half", "--reason", "looks well")
    assert (await fleet.ended("half"))["state"] == "SUCCEEDED"
    await fleet.runs("1.4.0")


async def a_revert_and_the_revert_of_the_revert(fleet: houses.Zones) -> None:
    await fleet.ask("rollout", "revert", "half", "--reason", "slower than before")
    assert (await fleet.ended("half"))["state"] == "REVERTED"
    await fleet.runs("1.3.0")
    assert "cannot" in await fleet.refused("rollout", "revert", "half", "--reason", "again")
    await fleet.ask("rollout", "retry", "half", "--reason", "it was the load, not the version")
    await fleet.until("half", lambda one: bool(one["waiting_for"]) or one["state"] != "RUNNING" or one["wave"] > 1)
    if (await fleet.rollout("half"))["wave"] == 1:
        await fleet.ask("rollout", "promote", "half", "--reason", "looks well")
    assert (await fleet.ended("half"))["state"] == "SUCCEEDED"
    await fleet.runs("1.4.0")


async def two_hops_over_a_barrier(fleet: houses.Zones) -> None:
    graph = fleet.root / "graph.json"
    graph.write_text(json.dumps({"component": "web", "barriers": [{"version": "2.0.0", "bake_duration": "1s"}]}))
    await fleet.ask("release", "graph", "set", str(graph))
    found = await upgraded(fleet, "3.0.0", "--strategy", "immediate")
    hops = [{change["to_version"] for change in wave["changes"]} for wave in found["plan"]["waves"]]
    assert (found["state"], hops) == ("SUCCEEDED", [{"2.0.0"}, {"3.0.0"}])
    await fleet.runs("3.0.0")


async def two_components_of_which_one_requires_the_other(fleet: houses.Zones) -> None:
    assert "cache" in await fleet.refused("upgrade", "start", "web", "4.0.0", *houses.QUICK)
    found = await upgraded(fleet, "4.0.0", "--strategy", "immediate", "--also", "cache=2.0.0")
    order = [{change["component"] for change in wave["changes"]} for wave in found["plan"]["waves"]]
    assert (found["state"], order) == ("SUCCEEDED", [{"cache"}, {"web"}])
    await fleet.runs("4.0.0")
    await fleet.runs("2.0.0", "cache")


async def an_emergency_takes_everything_back_and_locks(fleet: houses.Zones) -> None:
    words = ("--within", "120s", "--reason", "customers see errors")
    begun = await fleet.ask("rollback", "emergency", "--component", "web", *words)
    assert begun["rollouts"]
    assert begun["freeze_id"]
    found = await fleet.ended("web-4.0.0")
    assert (found["state"], found["reason"]) == ("REVERTED", "emergency_requested")
    await fleet.runs("3.0.0")
    frozen = await fleet.ask(
        "upgrade", "start", "web", "4.0.0", "--also", "cache=2.0.0", "--name", "later", *houses.QUICK
    )
    assert frozen["state"] in {"PENDING", "RUNNING"}
    assert (await fleet.rollout("later"))["waiting_for"]
    await fleet.ask("rollout", "cancel", "later", "--reason", "not today")
    await fleet.ask("freeze", "remove", begun["freeze_id"], "--reason", "it is over")
    stats = await fleet.ask("fleet", "stats")
    assert int(stats["completed"]) >= 200
