"""The agent upgrades itself through the keeper, under a component that must notice nothing."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

import agent
from agent.core import model
from agent.processes import agents
from tests.agent import agent_release, live_node
from tests.agent.keeper import load
from tests.agent.keeper import node as keeper_node

COMPONENT = agent_release.COMPONENT
pytestmark = pytest.mark.slow  # each starts several agents from sources that are not compiled

RUN = "agent/runner/process.py"
CRASH = "\nraise SystemExit('cannot begin')\n"
CRASH_IN_TRIAL = "\nasync def serve(config, make):\n    raise SystemExit('cannot go on')\n"
HANG_IN_TRIAL = "\nasync def serve(config, make):\n    await asyncio.Event().wait()\n"
DIE_IF_TOLD = """
_serve = serve

async def serve(config, make):
    async with asyncio.TaskGroup() as group:
        group.create_task(_die(config.state_dir.parent / "die"))
        await _serve(config, make)

async def _die(told):
    while not told.exists():
        await asyncio.sleep(0.05)
    os._exit(9)
"""


@pytest.fixture
async def a_node() -> AsyncIterator[live_node.LiveNode]:
    async with live_node.running() as made:
        yield made


def release(a_node: live_node.LiveNode, version: str, changed: Mapping[str, str] | None = None) -> str:
    """Publish a version of the agent; returns its digest."""
    return a_node.publish(*agent_release.bundle(version, changed))


def upgrade(a_node: live_node.LiveNode, version: str, digest: str, old: str = "", **changed: Any) -> str:  # noqa: ANN401  # fields differ
    """Order a version of the agent."""
    return a_node.assign(version, digest, old, component=COMPONENT, **changed)


def version(a_node: live_node.LiveNode) -> str:
    """The version that last told of itself."""
    told: str = a_node.told()["hello"]["agent_version"]
    return told


def pointers(a_node: live_node.LiveNode) -> tuple[str, str]:
    """What is current and permanent; empty where the packaged agent is all there is."""
    folder = a_node.keeper.state / "components" / COMPONENT
    if not folder.exists():
        return "", ""
    current, permanent = (f"sha256:{(folder / name).readlink().name}" for name in ("current", "permanent"))
    return current, permanent


async def living(a_node: live_node.LiveNode) -> tuple[agents.AgentProcess, ...]:
    """The agent's processes."""
    client = await a_node.keeper.client()
    seen = await client.agents()
    await client.close()
    return tuple(seen)


async def only_one(a_node: live_node.LiveNode, digest: str) -> None:
    """Wait until exactly one agent lives, and it is of this release."""

    async def is_one() -> bool:
        return [(seen.digest, seen.role) for seen in await living(a_node)] == [(digest, agents.Role.MAIN)]

    await keeper_node.until(is_one)


@contextlib.asynccontextmanager
async def untouched(a_node: live_node.LiveNode) -> AsyncIterator[None]:
    """Put load on a component while the block runs: the same process must answer everything."""
    await a_node.installed("1.0.0")
    [before] = await a_node.instances()
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 20)
        yield
        await seen.until_served("1.0.0", 20)
    [after] = await a_node.instances()
    assert (after.id, after.pid, after.restarts) == (before.id, before.pid, 0)
    assert seen.failures == []


async def test_the_agent_upgrades_itself_and_then_the_keeper_and_no_component_notices(
    a_node: live_node.LiveNode,
) -> None:
    digest = release(a_node, "9.0.0")
    async with untouched(a_node):
        first = a_node.told()["pid"]
        await a_node.until_state(upgrade(a_node, "9.0.0", digest), "PERMANENT")
        assert (version(a_node), pointers(a_node)) == ("9.0.0", (digest, digest))
        assert a_node.told()["pid"] != first
        assert keeper_node.is_over(first)
        await only_one(a_node, digest)
        client = await a_node.keeper.client()

        async def is_replaced() -> bool:
            return (await client.inspect()).keeper_digest == digest

        await keeper_node.until(is_replaced)
        again = release(a_node, "9.1.0")
        await a_node.until_state(upgrade(a_node, "9.1.0", again, digest), "PERMANENT")
        assert (version(a_node), pointers(a_node)) == ("9.1.0", (again, again))
        await only_one(a_node, again)


async def test_a_held_self_upgrade_waits_in_the_old_agent_before_its_switch_and_in_the_new_one_before_its_commit(
    a_node: live_node.LiveNode,
) -> None:
    def is_held(step: model.Step) -> bool:
        told = a_node.status(ordered)
        assert told["state"] != "ABORTED", told
        return (told["state"], told["step"]) == ("HELD", step.value)

    digest = release(a_node, "9.0.0")
    async with untouched(a_node):
        first = a_node.told()["pid"]
        ordered = upgrade(a_node, "9.0.0", digest, hold_before=model.Step.SWITCH)
        await a_node.until(lambda: is_held(model.Step.SWITCH))
        assert a_node.told()["pid"] == first
        a_node.command("proceed", model.Proceed(ordered, 2, model.Step.SWITCH, model.Step.COMMIT))
        await a_node.until(lambda: is_held(model.Step.COMMIT))
        assert (version(a_node), pointers(a_node)) == ("9.0.0", ("", ""))
        assert {seen.role for seen in await living(a_node)} == {agents.Role.PARKED, agents.Role.TRIAL}
        a_node.command("proceed", model.Proceed(ordered, 2, model.Step.COMMIT, None))
        await a_node.until_state(ordered, "PERMANENT")
        assert (version(a_node), pointers(a_node)) == ("9.0.0", (digest, digest))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"agent/__init__.py": CRASH}, "self_check_failed"), ({RUN: CRASH_IN_TRIAL}, "instance_died")],
)
async def test_a_new_agent_that_crashes_is_undone_and_the_old_one_goes_on(
    a_node: live_node.LiveNode, changed: dict[str, str], reason: str
) -> None:
    async with untouched(a_node):
        first = a_node.told()["pid"]
        bad = release(a_node, "9.0.0", changed)
        ended = await a_node.until_state(upgrade(a_node, "9.0.0", bad), "ABORTED")
        assert (ended["fault"], ended["reason"]) == ("VERSION", reason)
        assert (a_node.told()["pid"], pointers(a_node)) == (first, ("", ""))
        await only_one(a_node, "")


async def test_a_new_agent_that_hangs_is_ended_at_the_deadline(a_node: live_node.LiveNode) -> None:
    async with untouched(a_node):
        first = a_node.told()["pid"]
        bad = release(a_node, "9.0.0", {RUN: HANG_IN_TRIAL})
        ordered = upgrade(a_node, "9.0.0", bad, deadline=timedelta(seconds=8))
        ended = await a_node.until_state(ordered, "ABORTED")
        assert (ended["fault"], ended["reason"]) == ("VERSION", "instance_died")
        assert (a_node.told()["pid"], pointers(a_node)) == (first, ("", ""))
        await only_one(a_node, "")


async def test_a_version_that_dies_early_three_times_after_its_commit_is_left_for_the_permanent_one(
    a_node: live_node.LiveNode,
) -> None:
    good, bad = release(a_node, "9.0.0"), release(a_node, "9.1.0", {RUN: DIE_IF_TOLD})
    async with untouched(a_node):
        await a_node.until_state(upgrade(a_node, "9.0.0", good), "PERMANENT")
        ordered = upgrade(a_node, "9.1.0", bad, good, min_healthy_duration=timedelta(seconds=60))
        await a_node.until(lambda: a_node.status(ordered)["step"] == "BAKE")
        (a_node.root / "die").touch()
        await only_one(a_node, good)
        (a_node.root / "die").unlink()
        await a_node.until(lambda: a_node.status(ordered)["fault"] == "VERSION")
        await a_node.until(lambda: pointers(a_node) == (good, good))
        client = await a_node.keeper.client()
        assert (await client.inspect()).bad_agent_digests == (bad,)
        refused = await a_node.until_state(upgrade(a_node, "9.1.0", bad, good), "REFUSED")
        assert refused["reason"] == "digest_bad"


async def test_a_new_agent_that_is_killed_once_after_its_commit_is_not_blamed_and_bakes_from_the_beginning(
    a_node: live_node.LiveNode,
) -> None:
    digest = release(a_node, "9.0.0")
    async with untouched(a_node):
        ordered = upgrade(a_node, "9.0.0", digest, min_healthy_duration=timedelta(seconds=2))
        await a_node.until(lambda: a_node.status(ordered)["step"] == "BAKE" and version(a_node) == "9.0.0")
        killed = a_node.kill_agent()
        ended = await a_node.until_state(ordered, "PERMANENT")
        assert (ended["fault"], a_node.told()["pid"] != killed) == (None, True)
        await only_one(a_node, digest)


@pytest.mark.parametrize("victim", ["keeper", "new", "old"])
async def test_whatever_is_killed_during_a_trial_one_agent_is_left_and_the_operation_is_decided(
    a_node: live_node.LiveNode, victim: str
) -> None:
    digest = release(a_node, "9.0.0")
    async with untouched(a_node):
        ordered = upgrade(a_node, "9.0.0", digest, soak_duration=timedelta(seconds=4))
        await a_node.until(lambda: a_node.status(ordered)["step"] == "SOAK")
        by_role = {seen.role: seen.pid for seen in await living(a_node)}
        if victim == "keeper":
            a_node.keeper.kill()
            a_node.start()
        else:
            os.kill(by_role[agents.Role.TRIAL if victim == "new" else agents.Role.PARKED], signal.SIGKILL)
        ended = await a_node.until_state(ordered, "ABORTED", "PERMANENT")
        assert ended["state"] == ("PERMANENT" if victim == "old" else "ABORTED")
        assert ended["fault"] == {"keeper": "INFRASTRUCTURE", "new": "VERSION", "old": None}[victim]
        await only_one(a_node, digest if victim == "old" else "")


async def test_an_agent_removed_as_a_component_gives_way_to_the_packaged_one(a_node: live_node.LiveNode) -> None:
    digest = release(a_node, "9.0.0")
    async with untouched(a_node):
        await a_node.until_state(upgrade(a_node, "9.0.0", digest), "PERMANENT")
        await a_node.until_state(
            a_node.assign("", "", digest, component=COMPONENT, kind=model.ChangeKind.REMOVE), "PERMANENT"
        )
        await only_one(a_node, "")
        await a_node.until(lambda: version(a_node) == agent.__version__)
