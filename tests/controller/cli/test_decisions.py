"""What operators decide of nodes, of times and of releases: a real controller and the real program."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.controller.cli import house

QUICK = ("--soak-duration", "0s", "--min-healthy-duration", "100ms")
INSTALL = ("upgrade", "start", "web", "1.0.0", "--install", *QUICK)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[house.House]:
    found = house.House(tmp_path)
    async with found.serving():
        await found.publish("1.0.0")
        yield found


async def test_labels_are_set_over_those_of_the_agent_and_select_its_node(home: house.House) -> None:
    async with home.nodes("n-1", "n-2"):
        set_ = await home.instar("node", "label", "n-1", "zone=b", "tier=gold", "-o", "json")
        assert (set_.code, set_.document["labels"]) == (0, {"tier": "gold", "zone": "b"})
        found = await home.instar("node", "list", "-l", "zone=b", "-o", "json")
        assert [one["node_id"] for one in found.document["nodes"]] == ["n-1"]
        taken = await home.instar("node", "label", "n-1", "tier-", "-o", "json")
        assert taken.document["labels"] == {"zone": "b"}


async def test_a_cordoned_node_is_left_out_until_it_is_let_in_again(home: house.House) -> None:
    async with home.nodes("n-1", "n-2"):
        cordoned = await home.instar("node", "cordon", "n-1", "--reason", "new disk", "-o", "json")
        assert (cordoned.code, cordoned.document["cordon_reason"]) == (0, "new disk")
        listed = await home.instar("node", "list")
        assert "cordoned: new disk" in listed.out
        plan = ("upgrade", "plan", "web", "1.0.0", "--install", "--strategy", "immediate")
        found = await home.instar(*plan, "-o", "json")
        assert [(one["node_id"], one["code"]) for one in found.document["excluded"]] == [("n-1", "node_cordoned")]
        assert "node_cordoned" in (await home.instar(*plan)).out
        explained = await home.instar("node", "explain", "n-1")
        assert "new disk" in explained.out
        free = await home.instar("node", "uncordon", "n-1", "-o", "json")
        assert free.document["cordon_reason"] == ""
        assert (await home.instar(*plan, "-o", "json")).document["excluded"] == []


async def test_a_node_is_quarantined_and_forgotten(home: house.House) -> None:
    async with home.nodes("n-1", "n-2"):
        found = await home.instar("node", "quarantine", "n-1", "--reason", "odd answers", "-o", "json")
        assert (found.code, found.document["quarantine_reason"]) == (0, "odd answers")
        explained = await home.instar("node", "explain", "n-1", "-o", "json")
        assert any("odd answers" in one["message"] for one in explained.document["reasons"])
        while [one["node_id"] for one in await nodes(home) if one["connected"]] != ["n-2"]:
            pass
    while any(one["connected"] for one in await nodes(home)):
        pass
    assert (await home.instar("node", "remove", "n-1", "--reason", "scrapped", "-o", "json")).document == {
        "node_id": "n-1"
    }
    assert [one["node_id"] for one in await nodes(home)] == ["n-2"]
    assert (await home.instar("node", "show", "n-1")).code == 8


async def nodes(home: house.House) -> list[dict[str, object]]:
    found: list[dict[str, object]] = (await home.instar("node", "list", "-o", "json")).document["nodes"]
    return found


async def test_nothing_starts_in_a_freeze_and_it_goes_on_when_that_is_lifted(home: house.House) -> None:
    async with home.nodes("n-1"):
        add = ("freeze", "add", "-l", "zone=a", "--for", "1h", "--reason", "holidays", "-o", "json")
        added = await home.instar(*add)
        assert (added.code, added.document["reason"], added.document["emergency"]) == (0, "holidays", False)
        assert added.document["end_time"]
        listed = await home.instar("freeze", "list")
        assert "holidays" in listed.out
        await home.instar(*INSTALL, "--name", "first")
        waited = await home.instar("rollout", "watch", "first", "--timeout", "1s", "-o", "json")
        assert (waited.code, waited.document["changes"][0]["state"]) == (6, None)
        explained = await home.instar("rollout", "explain", "first", "--node", "n-1")
        assert "holidays" in explained.out
        lifted = await home.instar("freeze", "remove", added.document["freeze_id"], "--reason", "over", "-o", "json")
        assert (lifted.code, lifted.document) == (0, {"freeze_id": added.document["freeze_id"]})
        assert (await home.instar("rollout", "watch", "first")).code == 0
        assert (await home.instar("freeze", "list", "-o", "json")).document == {"freezes": []}


async def test_the_ways_between_releases_are_declared_closed_and_named(home: house.House) -> None:
    await home.publish("1.1.0")
    file = home.folder / "graph.json"
    edge = {"from_versions": ">=1.0.0", "to_version": "1.1.0", "methods": ["HOT_SWAP"], "cost": 2}
    barrier = {"version": "1.1.0", "bake_duration": "1m"}
    file.write_text(json.dumps({"component": "web", "edges": [edge], "barriers": [barrier]}))
    declared = await home.instar("release", "graph", "set", file, "-o", "json")
    assert declared.code == 0, declared
    shown = await home.instar("release", "graph", "show", "web", "-o", "json")
    assert shown.document == declared.document
    assert [one["to_version"] for one in shown.document["edges"]] == ["1.1.0"]
    assert shown.document["barriers"] == [{"version": "1.1.0", "bake_duration": "60s"}]

    moved = await home.instar("release", "promote", "web", "1.0.0", "stable", "-o", "json")
    assert (moved.code, moved.document["version"]) == (0, "1.0.0")
    assert "stable" in (await home.instar("release", "graph", "show", "web")).out
    async with home.nodes("n-1"):
        stable = await home.instar("upgrade", "plan", "web", "stable", "--install", "-o", "json")
        assert stable.document["waves"][0]["changes"][0]["to_version"] == "1.0.0"
        await home.instar(*INSTALL, "--watch")
        blocked = await home.instar("release", "block", "web", "1.1.0", "--reason", "it eats disks")
        assert blocked.code == 0
        assert "it eats disks" in blocked.out
        refused = await home.instar("upgrade", "plan", "web", "1.1.0")
        assert refused.code == 8
        assert "it eats disks" in refused.err
        assert (await home.instar("release", "block", "web", "1.1.0", "--lift")).code == 0
        assert (await home.instar("upgrade", "plan", "web", "1.1.0")).code == 0


async def test_the_work_of_the_fleet_is_counted(home: house.House) -> None:
    async with home.nodes("n-1", "n-2"):
        await home.instar(*INSTALL, "--watch")
        assert (await home.instar("upgrade", "plan", "web", "9.9.9")).code == 8
        found = (await home.instar("fleet", "stats", "-o", "json")).document
        assert {name: found[name] for name in ("queued", "active", "completed", "failed", "timed_out")} == {
            "queued": 0,
            "active": 0,
            "completed": 2,
            "failed": 0,
            "timed_out": 0,
        }
        assert (found["distributed"], found["total_nodes"], found["active_nodes"]) == (2, 2, 2)
        assert found["refused"] == 1
        assert found["mean_duration"]
        assert "nodes connected" in (await home.instar("fleet", "stats")).out
