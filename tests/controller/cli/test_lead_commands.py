"""Rollouts led from outside: a real controller, the real program, and agents that do as they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from instar.v1 import agent_service_pb2
from tests.controller.cli import house

QUICK = ("--soak-duration", "0s", "--min-healthy-duration", "100ms")
INSTALL = ("upgrade", "start", "web", "1.0.0", "--install", *QUICK)
BECAUSE = ("--reason", "lunch")


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[house.House]:
    found = house.House(tmp_path)
    async with found.serving():
        await found.publish("1.0.0")
        yield found


async def test_a_rollout_is_paused_resumed_cancelled_and_tried_again(home: house.House) -> None:
    is_busy = True

    def answer(node_id: str, assign: agent_service_pb2.Assign) -> agent_service_pb2.Report:
        return house.work_on(node_id, assign) if is_busy else house.succeed(node_id, assign)

    async with home.nodes("n-1", "n-2", answer=answer):
        await home.instar(*INSTALL, "--name", "first")
        paused = await home.instar("rollout", "pause", "first", *BECAUSE, "-o", "json")
        assert (paused.code, paused.document["state"]) == (0, "PAUSED")
        assert "lunch" in paused.document["waiting_for"]
        assert paused.document["pause_time"]

        shown = await home.instar("rollout", "show", "first")
        assert "paused since" in shown.out
        ended = await home.instar("rollout", "watch", "first", "--exit-on-pause", "-o", "json")
        assert (ended.code, ended.document["state"]) == (4, "PAUSED")
        waited = await home.instar("rollout", "watch", "first", "--timeout", "1s", "-o", "json")
        assert (waited.code, waited.document["state"]) == (6, "PAUSED")
        assert "lunch" in waited.err

        resumed = await home.instar("rollout", "resume", "first", *BECAUSE, "-o", "json")
        assert (resumed.document["state"], resumed.document["pause_time"]) == ("RUNNING", None)
        assert resumed.document["stopped_for"] != "0s"

        assert (await home.instar("rollout", "cancel", "first", *BECAUSE)).code == 0
        cancelled = await home.instar("rollout", "watch", "first", "-o", "json")
        assert (cancelled.code, cancelled.document["state"]) == (5, "CANCELLED")

        is_busy = False
        assert (await home.instar("rollout", "retry", "first", *BECAUSE)).code == 0
        done = await home.instar("rollout", "watch", "first", "-o", "json")
        assert (done.code, done.document["state"]) == (0, "SUCCEEDED")


async def test_a_verb_that_means_nothing_in_a_state_is_refused_and_changes_nothing(home: house.House) -> None:
    async with home.nodes("n-1"):
        done = await home.instar(*INSTALL, "--name", "first", "--watch", "-o", "json")
        assert done.code == 0
        for verb in ("pause", "resume", "promote", "cancel", "retry"):
            refused = await home.instar("rollout", verb, "first", *BECAUSE)
            assert (refused.code, refused.out) == (8, ""), verb
            assert refused.err.startswith("cannot ")
        after = await home.instar("rollout", "show", "first", "-o", "json")
        assert after.document["revision"] == done.document["revision"]


async def test_a_rollout_that_bakes_says_so_and_goes_on_once_it_is_promoted(home: house.House) -> None:
    async with home.nodes("n-1", "n-2"):
        started = await home.instar(*INSTALL, "--name", "first", "--bake", "1h", "-o", "json")
        assert started.document["plan"]["waves"][0]["bake_duration"] == "3600s"
        waited = await home.instar("rollout", "watch", "first", "--timeout", "2s", "-o", "json")
        assert waited.code == 6
        assert "nothing more starts: " in waited.err
        assert waited.document["next_time"]
        explained = await home.instar("rollout", "explain", "first", "--node", waiting(waited))
        assert explained.code == 0
        assert "bake" in explained.out
        whole = await home.instar("rollout", "explain", "first", "-o", "json")
        assert all(one["code"] and one["message"] for one in whole.document["reasons"])
        assert (await home.instar("rollout", "promote", "first", *BECAUSE)).code == 0
        done = await home.instar("rollout", "watch", "first", "-o", "json")
        assert (done.code, done.document["state"]) == (0, "SUCCEEDED")


def waiting(outcome: house.Outcome) -> str:
    """The node whose turn has not come."""
    found = [one["change"]["node_id"] for one in outcome.document["changes"] if one["state"] is None]
    assert len(found) == 1
    return str(found[0])


async def test_each_strategy_goes_its_own_way(home: house.House) -> None:
    async with home.nodes("n-1", "n-2", "n-3", "n-4"):
        for options, sizes in (
            (("--strategy", "immediate"), [4]),
            (("--strategy", "rolling", "--batch", "3"), [3, 1]),
            (("--strategy", "gradual", "--percents", "25,50,100"), [1, 1, 2]),
            (("--strategy", "canary", "--canary-nodes", "2"), [2, 2]),
        ):
            plan = await home.instar("upgrade", "plan", "web", "1.0.0", "--install", *options, "-o", "json")
            assert [len(wave["changes"]) for wave in plan.document["waves"]] == sizes, options
        done = await home.instar(*INSTALL, "--strategy", "rolling", "--batch", "3", "--watch", "-o", "json")
        assert (done.code, len(done.document["plan"]["waves"])) == (0, 2)


async def test_a_saved_plan_is_applied_and_a_second_one_has_nothing_to_do(home: house.House) -> None:
    file = home.folder / "plan.json"
    plan = ("upgrade", "plan", "web", "1.0.0", "--install", *QUICK, "--out", file, "--detailed-exitcode")
    async with home.nodes("n-1", "n-2"):
        saved = await home.instar(*plan, "-o", "json")
        assert saved.code == 10
        done = await home.instar("upgrade", "start", "--plan", file, "--watch", "-o", "json")
        assert (done.code, done.document["plan"]["fingerprint"]) == (0, saved.document["fingerprint"])
        again = await home.instar(*plan)
        assert again.code == 0
        assert "unchanged: n-1, n-2" in again.out


async def test_a_saved_plan_of_another_fleet_is_refused_with_what_has_changed(home: house.House) -> None:
    file = home.folder / "plan.json"
    async with home.nodes("n-1", "n-2"):
        await home.instar("upgrade", "plan", "web", "1.0.0", "--install", "--out", file)
        assert (await home.instar("node", "cordon", "n-2", *BECAUSE)).code == 0
        stale = await home.instar("upgrade", "start", "--plan", file)
        assert (stale.code, stale.out) == (8, "")
        assert stale.err.startswith("cannot apply the saved plan")
        assert "n-2" in stale.err
        assert (await home.instar("rollout", "list", "-o", "json")).document["rollouts"] == []


async def test_an_emergency_takes_the_nodes_back_and_freezes_them(home: house.House) -> None:
    await home.publish("1.1.0")
    async with home.nodes("n-1", "n-2"):
        await home.instar(*INSTALL, "--watch")
        upgraded = await home.instar("upgrade", "start", "web", "1.1.0", *QUICK, "--watch")
        assert upgraded.code == 0, upgraded
        order = ("rollback", "emergency", "--component", "web", "--within", "1m", "--reason", "fire", "--watch")
        done = await home.instar(*order, "-o", "json")
        assert (done.code, [one["state"] for one in done.document["rollouts"]]) == (0, ["REVERTED"]), done
        nodes = (await home.instar("node", "list", "-o", "json")).document["nodes"]
        assert {one["components"][0]["version"] for one in nodes} == {"1.0.0"}

        freezes = (await home.instar("freeze", "list", "-o", "json")).document["freezes"]
        assert [(one["freeze_id"], one["emergency"]) for one in freezes] == [(done.document["freeze_id"], True)]
        await home.instar("component", "restart", "web", "--name", "later", *QUICK)
        waited = await home.instar("rollout", "watch", "later", "--timeout", "1s", "-o", "json")
        assert waited.code == 6
        assert {one["state"] for one in waited.document["changes"]} == {None}
        lifted = await home.instar("freeze", "remove", done.document["freeze_id"], "--reason", "it is out")
        assert lifted.code == 0
        assert (await home.instar("rollout", "watch", "later")).code == 0
