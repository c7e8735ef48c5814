"""Components from outside: a real controller, the real program, and agents that do as they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from instar.v1 import agent_service_pb2, node_pb2
from tests.controller.cli import house

QUICK = ("--soak-duration", "0s", "--min-healthy-duration", "100ms")


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[house.House]:
    found = house.House(tmp_path)
    async with found.serving():
        yield found


async def test_a_component_is_stopped_started_restarted_and_removed_on_its_nodes(home: house.House) -> None:
    await home.publish("1.0.0")
    async with home.nodes("n-1", "n-2"):
        await home.instar("upgrade", "start", "web", "1.0.0", "--install", "--watch", *QUICK)
        for verb, health in (("stop", "stopped"), ("start", "HEALTHY"), ("restart", "HEALTHY")):
            done = await home.instar("component", verb, "web", "--watch", *QUICK)
            assert done.code == 0, done
            assert f"web-{verb}" in done.out
            assert verb.upper() in done.out
            assert "web 1.0.0 " in done.out
            shown = await home.instar("node", "show", "n-1")
            assert health in shown.out
        removed = await home.instar("component", "remove", "web", "--strategy", "immediate", "--watch", "-o", "json")
        assert (removed.code, removed.document["request"]["kind"]) == (0, "REMOVE")
        assert {one["change"]["to_version"] for one in removed.document["changes"]} == {""}
        shown = await home.instar("node", "show", "n-1", "-o", "json")
        assert shown.document["components"] == []


async def test_what_is_so_already_is_left_alone_and_a_selector_says_where(home: house.House) -> None:
    await home.publish("1.0.0")
    async with home.nodes("n-1"):
        await home.instar("upgrade", "start", "web", "1.0.0", "--install", "--watch", *QUICK)
        done = await home.instar("component", "start", "web", "--watch", "-o", "json")
        assert (done.code, done.document["plan"]["unchanged_nodes"]) == (0, ["n-1"])
        elsewhere = await home.instar("component", "stop", "web", "-l", "zone=b")
        assert (elsewhere.code, "takes none of the nodes" in elsewhere.err) == (8, True)
        unknown = await home.instar("component", "stop", "db")
        assert (unknown.code, "not installed" in unknown.err) == (8, True)


async def test_the_end_of_a_log_is_read_from_a_node_that_is_connected(home: house.House) -> None:
    async with home.nodes("n-1"):
        whole = await home.instar("component", "logs", "web", "--node", "n-1")
        assert whole.code == 0
        assert whole.out.splitlines() == [f"web line {number} of 16384" for number in range(1, 11)]
        last = await home.instar("component", "logs", "web", "--node", "n-1", "-n", "2", "-o", "json")
        text = "web line 9 of 65536\nweb line 10 of 65536\n"
        assert last.document == {"instance_id": "i-1", "text": text}
        silent = await home.instar("component", "logs", "silent", "--node", "n-1")
        assert (silent.code, "it has never run here" in silent.err) == (8, True)
        nobody = await home.instar("component", "logs", "web", "--node", "n-9")
        assert (nobody.code, "cannot find node n-9" in nobody.err) == (8, True)
        long = await home.instar("component", "logs", "w" * 41, "--node", "n-1")
        assert (long.code, "component" in long.err) == (8, True)
    while (await home.instar("node", "show", "n-1", "-o", "json")).document["connected"]:
        pass
    away = await home.instar("component", "logs", "web", "--node", "n-1")
    assert away.code == 8
    assert "cannot ask node n-1: it is not connected" in away.err


async def test_a_node_that_cannot_make_anything_durable_is_shown_and_is_given_no_operation(home: house.House) -> None:
    await home.publish("1.0.0")
    broken = node_pb2.Condition(code="journal_failed", message="the disk said EIO")
    broken.since_time.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
    report = agent_service_pb2.Report(conditions=node_pb2.Conditions(items=[broken]))
    asked: list[str] = []

    def note(node_id: str, assign: agent_service_pb2.Assign) -> agent_service_pb2.Report:
        asked.append(node_id)
        return house.succeed(node_id, assign)

    async with home.nodes("n-1", answer=note, report=report):
        listed = await home.instar("node", "list")
        assert "journal_failed" in listed.out
        shown = await home.instar("node", "show", "n-1")
        assert all(word in shown.out for word in ("the disk said EIO", "2026-01-01 00:00:00"))
        document = (await home.instar("node", "show", "n-1", "-o", "json")).document
        assert document["conditions"][0]["code"] == "journal_failed"
        await home.instar("upgrade", "start", "web", "1.0.0", "--install", "--name", "first", *QUICK)
        waited = await home.instar("rollout", "watch", "first", "--timeout", "2s")
        assert (waited.code, asked) == (6, [])
        assert "nothing more starts: n-1 is waited for" in waited.out
        assert "the disk said EIO" in waited.out
        assert "its clock has stood still for" in waited.out
    async with home.nodes("n-1", answer=note):
        done = await home.instar("rollout", "watch", "first")
        assert (done.code, asked) == (0, ["n-1"])
