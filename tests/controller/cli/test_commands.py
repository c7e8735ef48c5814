"""The commands, from outside: a real controller, the real program, exit codes and documents."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.controller.cli import house

QUICK = ("--soak-duration", "0s", "--min-healthy-duration", "100ms")


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[house.House]:
    found = house.House(tmp_path)
    async with found.serving():
        yield found


async def test_an_upgrade_is_planned_started_and_watched_to_its_end(home: house.House) -> None:
    digest = await home.publish("1.0.0")
    async with home.nodes("n-1", "n-2", "n-3"):
        plan = await home.instar("upgrade", "plan", "web", "1.0.0", "--install", "-o", "json")
        assert plan.code == 0
        assert [(wave["canary"], len(wave["changes"])) for wave in plan.document["waves"]] == [(True, 1), (False, 2)]
        assert {one["kind"] for wave in plan.document["waves"] for one in wave["changes"]} == {"INSTALL"}

        done = await home.instar("upgrade", "start", "web", "1.0.0", "--install", "--watch", *QUICK, "-o", "json")
        assert (done.code, done.document["state"]) == (0, "SUCCEEDED")
        assert done.document["request"]["policy"]["min_healthy_duration"] == "0.100s"
        assert {one["state"] for one in done.document["changes"]} == {"PERMANENT"}
        lines = done.err.splitlines()
        assert lines[-1].startswith("[3/3]")
        assert all(line.startswith("[") for line in lines)
        assert sum("PERMANENT" in line for line in lines) == 3

        nodes = (await home.instar("node", "list", "-o", "json")).document["nodes"]
        assert [(one["node_id"], one["connected"], one["components"][0]["digest"]) for one in nodes] == [
            (node_id, True, digest) for node_id in ("n-1", "n-2", "n-3")
        ]
        shown = await home.instar("node", "show", "n-1", "-o", "json")
        assert shown.document["labels"] == {"zone": "a"}


async def test_what_a_command_prints_for_people_names_what_matters(home: house.House) -> None:
    await home.publish("1.0.0")
    async with home.nodes("n-1"):
        started = await home.instar("upgrade", "start", "web", "1.0.0", "--install", *QUICK, "--name", "first")
        watched = await home.instar("rollout", "watch", "first")
        assert (started.code, watched.code) == (0, 0)
        assert "first" in started.out
        assert "SUCCEEDED" in watched.out
        for arguments, words in (
            (("release", "list"), ("web", "1.0.0", "operator")),
            (("node", "list"), ("n-1", "web 1.0.0", "zone=a")),
            (("node", "show", "n-1"), ("n-1", "HEALTHY")),
            (("rollout", "list"), ("first", "SUCCEEDED", "1/1")),
            (("rollout", "show", "first"), ("n-1", "web - > 1.0.0", "PERMANENT")),
        ):
            shown = await home.instar(*arguments)
            assert shown.code == 0
            assert shown.err == ""
            assert all(word in shown.out for word in words), shown.out


async def test_a_rollout_that_undid_itself_ends_the_watch_with_code_3(home: house.House) -> None:
    await home.publish("1.0.0")
    async with home.nodes("n-1", answer=house.fail):
        done = await home.instar("upgrade", "start", "web", "1.0.0", "--install", "--watch", *QUICK, "-o", "json")
    assert (done.code, done.document["state"]) == (3, "REVERTED")
    assert "health_probe_failed" in done.err


async def test_a_watch_whose_time_is_over_ends_with_code_6_and_shows_where_it_stands(home: house.House) -> None:
    await home.publish("1.0.0")
    async with home.nodes("n-1", answer=house.work_on):
        arguments = ("upgrade", "start", "web", "1.0.0", "--install", "--watch", "--timeout", "1s")
        done = await home.instar(*arguments, "-o", "json")
    assert (done.code, done.document["state"]) == (6, "RUNNING")
    assert "--timeout" in done.err


async def test_a_rollout_is_reverted_by_order_and_the_reason_is_required(home: house.House) -> None:
    await home.publish("1.0.0")
    async with home.nodes("n-1"):
        await home.instar("upgrade", "start", "web", "1.0.0", "--install", "--watch", "--name", "first", *QUICK)
        assert (await home.instar("rollout", "revert", "first")).code == 2
        reverted = await home.instar("rollout", "revert", "first", "--reason", "second thoughts", "-o", "json")
        assert reverted.code == 0
        assert (await home.instar("rollout", "watch", "first")).code == 3
        node = (await home.instar("node", "show", "n-1", "-o", "json")).document
        assert node["components"] == []


async def test_asking_twice_with_one_request_id_starts_one_rollout(home: house.House) -> None:
    await home.publish("1.0.0")
    async with home.nodes("n-1", answer=house.work_on):
        arguments = ("upgrade", "start", "web", "1.0.0", "--install", "--request-id", "ci-17", "-o", "json")
        first, second = await home.instar(*arguments), await home.instar(*arguments)
        assert first.document["rollout_id"] == second.document["rollout_id"]
        assert len((await home.instar("rollout", "list", "-o", "json")).document["rollouts"]) == 1


async def test_a_watch_goes_on_when_another_life_of_the_controller_takes_over(tmp_path: Path) -> None:
    home = house.House(tmp_path)
    async with home.serving() as first:
        await home.publish("1.0.0")
        async with home.nodes("n-1", answer=house.work_on):
            started = await home.instar("upgrade", "start", "web", "1.0.0", "--install", *QUICK, "-o", "json")
            watch = await home.start("rollout", "watch", started.document["rollout_id"], "-o", "json")
            assert watch.stderr is not None
            await watch.stderr.readuntil(b"n-1 RUNNING SOAK\n")
        first.send_signal(signal.SIGKILL)
        await first.wait()
        assert b"cannot reach the controller" in await watch.stderr.readline()
    async with home.serving(home.address), home.nodes("n-1"):
        async with asyncio.timeout(house.DEADLINE_SECONDS):
            out, _ = await watch.communicate()
    assert (watch.returncode, json.loads(out)["state"]) == (0, "SUCCEEDED")


async def test_publishing_the_same_bytes_again_changes_nothing(home: house.House) -> None:
    await home.publish("1.0.0")
    again = await home.instar("release", "publish", home.folder / "web-1.0.0.tar", "-o", "json")
    assert (again.code, again.document["created"]) == (0, False)
    listed = (await home.instar("release", "list", "web", "-o", "json")).document["releases"]
    assert [one["version"] for one in listed] == ["1.0.0"]
    assert listed[0]["manifest"]["command"] == ["python", "main.py"]


async def test_a_release_is_shown_with_its_manifest_and_where_it_stands(home: house.House) -> None:
    digest = await home.publish("1.0.0")
    await home.instar("release", "promote", "web", "1.0.0", "stable")
    await home.instar("release", "block", "web", "1.0.0", "--reason", "it eats disks")
    shown = await home.instar("release", "show", "web", "1.0.0")
    assert (shown.code, shown.err) == (0, "")
    for words in (digest, "python main.py", "stable", "blocked since", "by operator: it eats disks"):
        assert words in shown.out
    told = (await home.instar("release", "show", "web", "1.0.0", "-o", "json")).document
    assert (told["release"]["digest"], told["block"]["reason"], told["left_by"]) == (digest, "it eats disks", 0)
    assert [one["name"] for one in told["channels"]] == ["stable"]


async def test_a_controller_stops_in_peace_when_it_is_told_to(tmp_path: Path) -> None:
    home = house.House(tmp_path)
    async with home.serving() as process, home.nodes("n-1"):
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(house.DEADLINE_SECONDS):
            assert await process.wait() == 0
