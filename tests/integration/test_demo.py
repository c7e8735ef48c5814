from __future__ import annotations

import json
import os
from typing import Any

import pytest

from controller.cli.demo import process
from tests import postgresql


async def demo(*arguments: str, **variables: str) -> dict[str, Any]:
    argv = [process.script("instar"), "demo", *arguments, "-o", "json"]
    found: dict[str, Any] = json.loads(await process.run("run the demo", argv, environment=os.environ | variables))
    return found


@pytest.mark.slow
async def test_the_demo_upgrades_a_live_service_and_loses_nothing() -> None:
    found = await demo("--nodes", "3", "--strategy", "canary")

    assert [(one["state"], one["strategy"], one["waves"]) for one in found["rollouts"]] == [
        ("SUCCEEDED", "IMMEDIATE", 1),
        ("SUCCEEDED", "CANARY", 2),
    ]
    assert found["versions"] == {"1.1.0": 3}
    requests = found["requests"]
    assert requests["failed"] == 0
    assert requests["total"] >= 5000
    assert requests["during_swap"] >= 1000
    assert set(requests["by_version"]) == {"1.0.0", "1.1.0"}
    trace = found["trace"]
    assert (trace["roots"], trace["orphans"]) == (1, 0)
    assert trace["spans"] >= 30
    assert trace["nodes"] == ["demo-1", "demo-2", "demo-3"]


@pytest.mark.slow
async def test_the_demo_s_bad_release_takes_traffic_and_is_undone_by_itself_also_on_postgresql(
    cluster: postgresql.Cluster,
) -> None:
    database = cluster.make_name("template1")
    url = cluster.at(database).url.reveal()
    found = await demo("--nodes", "2", "--bad", INSTAR_STORE_URL=url)

    assert [one["state"] for one in found["rollouts"]] == ["SUCCEEDED", "SUCCEEDED", "REVERTED"]
    assert found["rollout"]["name"] == "web-1.2.0"
    assert found["versions"] == {"1.1.0": 2}
    assert found["requests"]["failed"] == 0
    assert found["requests"]["by_version"]["1.2.0"] > 0
    assert cluster.execute("SELECT name, state FROM rollouts ORDER BY rollout_id", database) == [
        ("web-1.0.0", "SUCCEEDED"),
        ("web-1.1.0", "SUCCEEDED"),
        ("web-1.2.0", "REVERTED"),
    ]


@pytest.mark.slow
async def test_the_demo_upgrades_the_agents_themselves_under_load_and_nothing_else_moves() -> None:
    found = await demo("--nodes", "2", "--self-upgrade")

    assert [one["state"] for one in found["rollouts"]] == ["SUCCEEDED"] * 4
    first, following = (one["name"].removeprefix("instar-agent-") for one in found["rollouts"][2:])
    assert following != first
    assert found["rollout"]["strategy"] == "CANARY"
    assert found["agents"] == {following: 2}
    assert found["components_kept_pids"]
    assert found["keepers_kept_pids"]
    assert found["versions"] == {"1.1.0": 2}
    assert found["requests"]["failed"] == 0
    trace = found["trace"]
    assert (trace["roots"], trace["orphans"]) == (1, 0)
    assert trace["nodes"] == ["demo-1", "demo-2"]


@pytest.mark.slow
async def test_the_demo_kills_who_leads_of_three_controllers_and_another_ends_the_rollout_in_the_same_trace() -> None:
    found = await demo("--nodes", "3", "--replicas", "3", "--kill-controller")

    assert found["controller_away_seconds"] > 0
    assert [one["state"] for one in found["rollouts"]] == ["SUCCEEDED", "SUCCEEDED"]
    assert found["versions"] == {"1.1.0": 3}
    assert found["requests"]["failed"] == 0
    trace = found["trace"]
    assert (trace["roots"], trace["orphans"]) == (1, 0)
    assert trace["nodes"] == ["demo-1", "demo-2", "demo-3"]
