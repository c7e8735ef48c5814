"""The real keeper, agent and service as processes, under a load that forgives nothing."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from agent import processes
from agent.core import model
from tests.agent import live_node
from tests.agent.keeper import load
from tests.agent.keeper import node as keeper_node


@pytest.fixture
async def a_node() -> AsyncIterator[live_node.LiveNode]:
    async with live_node.running() as made:
        yield made


async def test_an_upgrade_under_load_fails_no_request_and_becomes_permanent(a_node: live_node.LiveNode) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 50)
        operation_id = a_node.assign("1.1.0", new, old, soak_requests_min=10)
        await a_node.until_state(operation_id, "PERMANENT")
        await seen.until_served("1.1.0", 50)
    assert seen.failures == []
    told = a_node.component()
    assert (told["version"], told["digest"], told["permanent_digest"]) == ("1.1.0", new, new)
    assert [each.version for each in await a_node.instances()] == ["1.1.0"]


async def test_a_release_that_was_damaged_on_disk_is_fetched_anew(a_node: live_node.LiveNode) -> None:
    digest = a_node.bundle("1.0.0")
    damaged = a_node.keeper.state / "releases" / digest.removeprefix("sha256:")
    damaged.mkdir(parents=True)
    (damaged / "instar.toml").write_text("not what was published")
    operation_id = a_node.assign("1.0.0", digest)
    await a_node.until_state(operation_id, "PERMANENT")
    assert (damaged / "instar.toml").read_text() != "not what was published"
    assert [each.version for each in await a_node.instances()] == ["1.0.0"]


async def test_what_is_current_accepts_again_when_no_operation_wants_it_paused(a_node: live_node.LiveNode) -> None:
    await a_node.installed("1.0.0")
    keeper = await a_node.keeper.client()
    (serving,) = await a_node.instances()
    await keeper.say(serving.id, processes.Word.PAUSE, timedelta(seconds=5))
    await keeper_node.reaches(keeper, serving.id, processes.InstanceState.ACTIVE)
    assert [each.pid for each in await a_node.instances()] == [serving.pid]


async def test_a_version_that_goes_bad_in_use_is_undone_by_itself_and_fails_no_request(
    a_node: live_node.LiveNode,
) -> None:
    old = await a_node.installed("1.0.0")
    bad = a_node.bundle("1.2.0", {"UNWELL_AFTER_SECONDS": "1"})
    async with load.on(a_node.address) as seen:
        operation_id = a_node.assign("1.2.0", bad, old, soak_duration=timedelta(seconds=20))
        ended = await a_node.until_state(operation_id, "ABORTED")
        await seen.until_served("1.0.0", 50)
    assert (ended["fault"], ended["reason"]) == (model.Fault.VERSION.value, "health_probe_failed")
    assert seen.failures == []
    assert seen.by_version["1.2.0"] > 0
    assert a_node.component()["digest"] == old
    assert [each.version for each in await a_node.instances()] == ["1.0.0"]


@pytest.mark.parametrize(
    ("step", "ends", "serves"),
    [
        ("PREPARE", "ABORTED", "1.0.0"),
        ("SWITCH", "ABORTED", "1.0.0"),
        ("SOAK", "ABORTED", "1.0.0"),
        ("DRAIN", "PERMANENT", "1.1.0"),
    ],
)
async def test_an_agent_killed_in_a_step_fails_no_request_and_leaves_one_version(
    a_node: live_node.LiveNode, step: str, ends: str, serves: str
) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    [served_by] = await a_node.instances()
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 50)
        is_switch = step == "SWITCH"
        soak = timedelta(seconds=5 if step == "SOAK" else 0.2)
        hold = model.Step.SWITCH if is_switch else None
        operation_id = a_node.assign("1.1.0", new, old, soak_duration=soak, hold_before=hold)
        if is_switch:  # a switch takes milliseconds; an old instance that cannot answer makes it last
            await a_node.until_state(operation_id, "HELD")
            os.kill(served_by.pid, signal.SIGSTOP)
            a_node.command("proceed", model.Proceed(operation_id, 2, model.Step.SWITCH, None))
            await a_node.until(lambda: a_node.status(operation_id)["state"] == "RUNNING")
        await a_node.until(lambda: a_node.status(operation_id)["step"] == step)
        killed = a_node.kill_agent()
        if is_switch:
            os.kill(served_by.pid, signal.SIGCONT)
        await a_node.agent_is_back(killed)
        ended = await a_node.until_state(operation_id, "ABORTED", "PERMANENT")
        await seen.until_served(serves, 50)
    assert ended["state"] == ends
    assert ended["fault"] == (model.Fault.INFRASTRUCTURE.value if ends == "ABORTED" else None)
    assert seen.failures == []
    assert [each.version for each in await a_node.instances()] == [serves]


async def test_agent_and_keeper_killed_together_leave_the_component_serving_under_the_same_pid(
    a_node: live_node.LiveNode,
) -> None:
    await a_node.installed("1.0.0")
    [before] = await a_node.instances()
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 50)
        a_node.keeper.kill()
        killed = a_node.told()["pid"]
        with contextlib.suppress(ProcessLookupError):
            os.kill(killed, signal.SIGKILL)
        a_node.start()
        await a_node.agent_is_back(killed)
        await a_node.until(lambda: a_node.component()["health"] == "HEALTHY")
        await seen.until_served("1.0.0", 50)
    [after] = await a_node.instances()
    assert (after.pid, after.is_kept) == (before.pid, True)
    assert seen.failures == []


async def test_after_everything_was_killed_the_committed_version_starts(a_node: live_node.LiveNode) -> None:
    digest = await a_node.installed("1.0.0")
    [before] = await a_node.instances()
    killed = await _cut_power(a_node)
    await a_node.agent_is_back(killed)
    await a_node.until(lambda: a_node.component()["health"] == "HEALTHY")
    [after] = await a_node.instances()
    assert (after.version, after.digest) == ("1.0.0", digest)
    assert after.pid != before.pid
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 20)
    assert seen.failures == []


async def test_a_version_that_is_killed_in_the_soak_is_undone_and_blamed(a_node: live_node.LiveNode) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    operation_id = a_node.assign("1.1.0", new, old, soak_duration=timedelta(seconds=20))
    await a_node.until(lambda: a_node.status(operation_id)["step"] == "SOAK")
    [fresh] = [each for each in await a_node.instances() if each.version == "1.1.0"]
    os.kill(fresh.pid, signal.SIGKILL)
    ended = await a_node.until_state(operation_id, "ABORTED")
    assert (ended["fault"], ended["reason"]) == ("VERSION", "instance_died")
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 20)
    assert seen.failures == []


@pytest.mark.parametrize(
    ("service", "reason"),
    [(b"raise SystemExit(3)\n", "crashed_at_start"), (b"import time\ntime.sleep(60)\n", "never_prepared")],
)
async def test_a_version_that_never_gets_ready_is_undone_without_touching_the_old_one(
    a_node: live_node.LiveNode, service: bytes, reason: str
) -> None:
    old = await a_node.installed("1.0.0")
    bad = a_node.bundle("1.1.0", service=service, prepare_timeout="1.5s")
    async with load.on(a_node.address) as seen:
        ended = await a_node.until_state(a_node.assign("1.1.0", bad, old), "ABORTED")
        await seen.until_served("1.0.0", 20)
    assert (ended["fault"], ended["reason"]) == ("VERSION", reason)
    assert seen.failures == []
    assert set(seen.by_version) == {"1.0.0"}


async def test_a_bundle_that_is_refused_is_the_versions_fault_and_one_that_came_wrong_is_not(
    a_node: live_node.LiveNode,
) -> None:
    bad = a_node.bundle("1.0.0", {}, extra="surprise = 1\n")
    ended = await a_node.until_state(a_node.assign("1.0.0", bad), "ABORTED")
    assert (ended["fault"], ended["reason"], ended["step"]) == ("VERSION", "manifest_invalid", "ABORT")
    assert "surprise" in ended["message"]
    good = a_node.bundle("1.0.0")
    (a_node.root / "bundles" / good.removeprefix("sha256:")).write_bytes(b"something else")
    ended = await a_node.until_state(a_node.assign("1.0.0", good), "ABORTED")
    assert (ended["fault"], ended["reason"]) == ("INFRASTRUCTURE", "digest_mismatch")
    assert a_node.told()["report"]["components"] == []


async def test_commands_hold_release_and_cancel_an_operation(a_node: live_node.LiveNode) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    held = a_node.assign("1.1.0", new, old, hold_before=model.Step.COMMIT)
    await a_node.until_state(held, "HELD")
    assert a_node.component()["digest"] == old
    assert {each.version: each.state for each in await a_node.instances()} == {
        "1.0.0": processes.InstanceState.PAUSED,
        "1.1.0": processes.InstanceState.ACTIVE,
    }
    a_node.command("cancel", model.Cancel(held, 2, "not today"))
    ended = await a_node.until_state(held, "ABORTED")
    assert (ended["fault"], ended["reason"]) == ("COMMAND", "cancelled")
    held = a_node.assign("1.1.0", new, old, hold_before=model.Step.COMMIT)
    await a_node.until_state(held, "HELD")
    a_node.command("proceed", model.Proceed(held, 2, model.Step.COMMIT, None))  # of another fence: changes nothing
    a_node.command("proceed", model.Proceed(held, 3, model.Step.COMMIT, None))
    await a_node.until_state(held, "PERMANENT")
    assert a_node.component()["version"] == "1.1.0"


async def test_an_assignment_that_does_not_fit_is_refused_and_a_duplicate_gets_the_recorded_outcome(
    a_node: live_node.LiveNode,
) -> None:
    digest = a_node.bundle("1.0.0")
    ended = await a_node.until_state(a_node.assign("1.0.0", digest, "sha256:" + "0" * 64), "REFUSED")
    assert (ended["fault"], ended["reason"]) == ("COMMAND", "not_installed")
    await a_node.installed("1.0.0")
    again = await a_node.until_state(a_node.assign("1.0.0", digest, operation_id="op-2", fence=2), "PERMANENT")
    stale = await a_node.until_state(a_node.assign("1.0.0", digest, operation_id="stale", fence=2), "REFUSED")
    assert (again["fence"], stale["reason"]) == (2, "fence_stale")
    (a_node.root / "deaf").unlink()
    await a_node.until(lambda: a_node.told()["report"]["operations"] == [])
    (a_node.root / "deaf").touch()
    a_node.assign("1.0.0", digest, operation_id="op-2", fence=2)
    assert (await a_node.until_state("op-2", "PERMANENT"))["changed_at"] == again["changed_at"]
    a_node.assign("1.0.0", digest, operation_id="older", fence=1)
    assert (await a_node.until_state("older", "EXPIRED"))["reason"] == "outcome_expired"


async def test_what_was_installed_can_be_removed_without_failing_a_request_that_has_begun(
    a_node: live_node.LiveNode,
) -> None:
    old = await a_node.installed("1.0.0")
    operation_id = a_node.assign("", "", old, kind=model.ChangeKind.REMOVE)
    await a_node.until_state(operation_id, "PERMANENT")
    await a_node.until(lambda: a_node.told()["report"]["components"] == [])
    assert await a_node.instances() == ()
    assert not (a_node.keeper.state / "components" / "web").exists()


async def test_a_rollback_ordered_while_the_old_instance_still_drains_fails_no_request(
    a_node: live_node.LiveNode,
) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 50)
        forward = a_node.assign("1.1.0", new, old, soak_duration=timedelta(seconds=0.2))
        await a_node.until_state(forward, "COMMITTED")
        back = a_node.assign("1.0.0", old, new)
        await a_node.until_state(back, "PERMANENT")
        await seen.until_served("1.0.0", 20)
    assert a_node.status(forward)["state"] == "COMMITTED"
    assert seen.failures == []
    assert [each.version for each in await a_node.instances()] == ["1.0.0"]


async def kill_everything(a_node: live_node.LiveNode) -> int:
    """As a power cut would; returns the agent's pid."""
    pids = [each.pid for each in await a_node.instances()]
    a_node.keeper.kill()
    agent: int = a_node.told()["pid"]
    for pid in (agent, *pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return agent


@pytest.mark.parametrize("is_bad", [False, True])
async def test_a_power_cut_in_the_bake_goes_on_with_the_new_version_unless_that_fails_its_trial(
    a_node: live_node.LiveNode, *, is_bad: bool
) -> None:
    marker = a_node.root / "die"
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0", {"DIE_IF_EXISTS": str(marker)})
    operation_id = a_node.assign("1.1.0", new, old, min_healthy_duration=timedelta(seconds=3))
    await a_node.until(lambda: a_node.status(operation_id)["step"] == "BAKE")
    if is_bad:
        marker.touch()
    await a_node.agent_is_back(await _cut_power(a_node))
    if is_bad:
        await a_node.until(lambda: a_node.status(operation_id)["fault"] == "VERSION")
    else:
        await a_node.until_state(operation_id, "PERMANENT")
    await a_node.until(lambda: a_node.component()["health"] == "HEALTHY")
    told = a_node.component()
    assert (told["version"], told["digest"]) == (("1.0.0", old) if is_bad else ("1.1.0", new))
    assert a_node.status(operation_id)["state"] == ("COMMITTED" if is_bad else "PERMANENT")


async def _cut_power(a_node: live_node.LiveNode) -> int:
    killed = await kill_everything(a_node)
    a_node.start()
    return killed


async def test_a_committed_version_that_dies_in_the_bake_is_reported_and_started_again(
    a_node: live_node.LiveNode,
) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    operation_id = a_node.assign("1.1.0", new, old, min_healthy_duration=timedelta(seconds=30))
    await a_node.until(lambda: a_node.status(operation_id)["step"] == "BAKE")
    [fresh] = await a_node.instances()
    os.kill(fresh.pid, signal.SIGKILL)
    await a_node.until(lambda: a_node.status(operation_id)["reason"] == "instance_died")
    told = a_node.status(operation_id)
    assert (told["state"], told["fault"]) == ("COMMITTED", "VERSION")
    await a_node.until(lambda: a_node.component()["health"] == "HEALTHY")
    [again] = await a_node.instances()
    assert (again.version, again.restarts) == ("1.1.0", 1)


async def test_steps_metrics_and_health_are_told(a_node: live_node.LiveNode) -> None:
    await a_node.installed("1.0.0")
    report = a_node.told()["report"]
    assert [record["step"] for record in report["steps"]][:2] == ["FETCH", "VERIFY"]
    assert int(report["steps"][0]["evidence"]["fetched_bytes"]) > 0
    assert all(record["is_success"] for record in report["steps"])
    await a_node.until(
        lambda: (
            {metric["name"] for metric in a_node.told()["report"]["metrics"]}
            >= {"web_requests_total", "system.cpu.utilization"}
        )
    )
    assert a_node.component()["health"] == "HEALTHY"
    assert "driver.handover" in a_node.told()["hello"]["capabilities"]


async def test_series_are_those_of_the_instance_that_serves_before_and_after_a_commit(
    a_node: live_node.LiveNode,
) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")

    def served() -> tuple[float, int]:
        shown = a_node.metrics().get("web_requests_total", {"value": 0.0, "life": 0})
        return shown["value"], shown["life"]

    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 200)
        await a_node.until(lambda: served()[0] >= 100)
        before, old_life = served()
        operation_id = a_node.assign("1.1.0", new, old, hold_before=model.Step.COMMIT)
        await a_node.until_state(operation_id, "HELD")
        await a_node.until(lambda: served()[1] > old_life)  # a younger process counts, though nothing is committed
        assert served()[0] < before + 100
        _, new_life = served()
        a_node.command("cancel", model.Cancel(operation_id, 2, "wanted back"))
        await a_node.until_state(operation_id, "ABORTED")
        await a_node.until(lambda: served()[1] == old_life)
        assert served()[0] >= before
        assert new_life > old_life > 0
    assert a_node.metrics()["web_requests_total"]["kind"] == "COUNTER"


async def test_a_component_that_shows_nothing_any_more_has_no_series_but_those_of_its_probe(
    a_node: live_node.LiveNode,
) -> None:
    mute = a_node.root / "mute"
    await a_node.installed("1.0.0", environment={"MUTE_IF_EXISTS": str(mute), "UNWELL_IF_EXISTS": str(mute)})
    await a_node.until(lambda: "web_requests_total" in a_node.metrics())
    mute.touch()
    await a_node.until(lambda: set(a_node.metrics()) == {"instar.probe.checks", "instar.probe.failures"})
    await a_node.until(lambda: a_node.metrics()["instar.probe.failures"]["value"] > 0)
    probed = a_node.metrics()
    assert probed["instar.probe.failures"]["value"] < probed["instar.probe.checks"]["value"]
    assert {each["kind"] for each in probed.values()} == {"COUNTER"}
    mute.unlink()
    await a_node.until(lambda: "web_requests_total" in a_node.metrics())
