"""Two holds in one operation, as a switch of many nodes at once needs them: real processes, under a load."""

import os
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from agent import processes
from agent.core import model
from agent.runner import releases
from tests.agent import live_node
from tests.agent.keeper import load

SWITCH, COMMIT = model.Step.SWITCH, model.Step.COMMIT
ACTIVE, PAUSED = processes.InstanceState.ACTIVE, processes.InstanceState.PAUSED
LIST = """\
import os
with open(os.environ["LOOKS"], "a") as looks:
    looks.write("x")
with open(os.environ["SHOWN"]) as shown:
    print(shown.read())
"""
MANAGED = """\
name = "web"
version = "1.0.0"
driver = "exec"
environment = {{ LOOKS = "{root}/looks", SHOWN = "{root}/shown" }}
[exec]
hot_swap = true
inspect = ["python", "list.py"]
"""
LOOKS = 1000  # requests: some seconds, in which the agent looks at everything more than once


@pytest.fixture
async def a_node() -> AsyncIterator[live_node.LiveNode]:
    async with live_node.running() as made:
        yield made


async def until_held(a_node: live_node.LiveNode, operation_id: str, step: model.Step) -> None:
    def is_held() -> bool:
        told = a_node.status(operation_id)
        assert told["state"] != "ABORTED", told
        return (told["state"], told["step"]) == ("HELD", step.value)

    await a_node.until(is_held)


async def states(a_node: live_node.LiveNode) -> dict[str, processes.InstanceState]:
    return {each.version: each.state for each in await a_node.instances()}


async def held_before_commit(a_node: live_node.LiveNode, seen: load.Load, old: str, deadline_seconds: float) -> str:
    """Bring an operation through its first hold into its second one."""
    await seen.until_served("1.0.0", 50)
    deadline = timedelta(seconds=deadline_seconds)
    operation_id = a_node.assign("1.1.0", a_node.bundle("1.1.0"), old, hold_before=SWITCH, deadline=deadline)
    await until_held(a_node, operation_id, SWITCH)
    a_node.command("proceed", model.Proceed(operation_id, 2, SWITCH, COMMIT))
    await until_held(a_node, operation_id, COMMIT)
    return operation_id


async def test_an_operation_waits_before_its_switch_and_again_before_its_commit_and_fails_no_request(
    a_node: live_node.LiveNode,
) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 50)
        operation_id = a_node.assign("1.1.0", new, old, hold_before=SWITCH)
        await until_held(a_node, operation_id, SWITCH)
        await seen.until_served("1.0.0", 100)
        assert await states(a_node) == {"1.0.0": ACTIVE, "1.1.0": processes.InstanceState.PREPARED}
        a_node.command("proceed", model.Proceed(operation_id, 2, COMMIT, None))  # it does not wait there
        for _ in range(2):
            a_node.command("proceed", model.Proceed(operation_id, 2, SWITCH, COMMIT))
        await until_held(a_node, operation_id, COMMIT)
        await seen.until_served("1.1.0", LOOKS)
        assert await states(a_node) == {"1.0.0": PAUSED, "1.1.0": ACTIVE}
        assert a_node.component()["digest"] == old
        assert a_node.status(operation_id)["state"] == "HELD"
        a_node.command("proceed", model.Proceed(operation_id, 2, COMMIT, None))
        await a_node.until_state(operation_id, "PERMANENT")
        await seen.until_served("1.1.0", 50)
    assert seen.failures == []
    assert a_node.component()["permanent_digest"] == new
    assert await states(a_node) == {"1.1.0": ACTIVE}


async def test_what_is_given_up_before_its_commit_goes_back_to_the_same_process_and_fails_no_request(
    a_node: live_node.LiveNode,
) -> None:
    old = await a_node.installed("1.0.0")
    [before] = await a_node.instances()
    async with load.on(a_node.address) as seen:
        operation_id = await held_before_commit(a_node, seen, old, 60)
        await seen.until_served("1.1.0", 100)
        for _ in range(3):
            a_node.command("cancel", model.Cancel(operation_id, 2, "not well"))
        ended = await a_node.until_state(operation_id, "ABORTED")
        await seen.until_served("1.0.0", 50)
    assert (ended["fault"], ended["reason"]) == ("COMMAND", "cancelled")
    assert seen.failures == []
    assert [(each.version, each.pid, each.state) for each in await a_node.instances()] == [
        ("1.0.0", before.pid, ACTIVE)
    ]
    told = a_node.told()["report"]["steps"]
    assert [each["step"] for each in told if each["operation_id"] == operation_id][-2:] == ["SOAK", "ABORT"]


async def test_a_commit_that_nobody_lets_go_is_undone_by_the_agent_at_the_deadline_and_fails_no_request(
    a_node: live_node.LiveNode,
) -> None:
    old = await a_node.installed("1.0.0")
    async with load.on(a_node.address) as seen:
        operation_id = await held_before_commit(a_node, seen, old, 8)
        ended = await a_node.until_state(operation_id, "ABORTED")
        await seen.until_served("1.0.0", 50)
    assert (ended["fault"], ended["reason"]) == ("COMMAND", "hold_expired")
    assert seen.failures == []
    assert await states(a_node) == {"1.0.0": ACTIVE}


async def test_an_agent_killed_in_the_second_hold_hears_every_command_again_and_goes_back(
    a_node: live_node.LiveNode,
) -> None:
    old = await a_node.installed("1.0.0")
    async with load.on(a_node.address) as seen:
        operation_id = await held_before_commit(a_node, seen, old, 60)
        await a_node.agent_is_back(a_node.kill_agent())
        ended = await a_node.until_state(operation_id, "ABORTED")
        await seen.until_served("1.0.0", 50)
    assert (ended["fault"], ended["reason"]) == ("INFRASTRUCTURE", "agent_restarted")
    assert seen.failures == []
    assert await states(a_node) == {"1.0.0": ACTIVE}


async def test_a_restart_waits_before_its_switch_though_nothing_was_started_yet(a_node: live_node.LiveNode) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    operation_id = a_node.assign("1.1.0", new, old, method=model.Method.RESTART, hold_before=SWITCH)
    async with load.on(a_node.address) as seen:
        await until_held(a_node, operation_id, SWITCH)
        await seen.until_served("1.0.0", LOOKS)
        await until_held(a_node, operation_id, SWITCH)
    a_node.command("proceed", model.Proceed(operation_id, 2, SWITCH, COMMIT))
    await until_held(a_node, operation_id, COMMIT)
    assert {each.version for each in await a_node.instances() if each.pid} == {"1.1.0"}
    a_node.command("proceed", model.Proceed(operation_id, 2, COMMIT, None))
    await a_node.until_state(operation_id, "PERMANENT")


async def test_a_prepared_version_that_dies_in_its_hold_is_undone_and_blamed(a_node: live_node.LiveNode) -> None:
    old = await a_node.installed("1.0.0")
    operation_id = a_node.assign("1.1.0", a_node.bundle("1.1.0"), old, hold_before=SWITCH)
    await until_held(a_node, operation_id, SWITCH)
    [fresh] = [each for each in await a_node.instances() if each.version == "1.1.0"]
    os.kill(fresh.pid, 9)
    ended = await a_node.until_state(operation_id, "ABORTED")
    assert (ended["fault"], ended["reason"]) == ("VERSION", "instance_died")


async def test_only_what_was_there_in_the_hold_can_be_lost_in_it(a_node: live_node.LiveNode) -> None:
    async def is_looked_at() -> None:
        goal = looks.stat().st_size + 10 if looks.exists() else 10
        await a_node.until(lambda: looks.exists() and looks.stat().st_size >= goal)

    looks, shown = a_node.root / "looks", a_node.root / "shown"
    shown.touch()
    digest = a_node.publish(MANAGED.format(root=a_node.root), {"list.py": LIST.encode()})
    operation_id = a_node.assign("1.0.0", digest, hold_before=SWITCH)
    await until_held(a_node, operation_id, SWITCH)
    await is_looked_at()
    await until_held(a_node, operation_id, SWITCH)
    instance_id = releases.instance_id("web", digest, operation_id)
    shown.write_text(f"{instance_id} {digest} {os.getpid()} PREPARED")
    await is_looked_at()
    await until_held(a_node, operation_id, SWITCH)
    shown.write_text("")
    ended = await a_node.until_state(operation_id, "ABORTED")
    assert (ended["fault"], ended["reason"]) == ("VERSION", "instance_died")


async def test_a_removal_waits_through_both_holds_while_everything_serves(a_node: live_node.LiveNode) -> None:
    old = await a_node.installed("1.0.0")
    async with load.on(a_node.address) as seen:
        operation_id = a_node.assign("", "", old, kind=model.ChangeKind.REMOVE, hold_before=SWITCH)
        await until_held(a_node, operation_id, SWITCH)
        a_node.command("proceed", model.Proceed(operation_id, 2, SWITCH, COMMIT))
        await until_held(a_node, operation_id, COMMIT)
        await seen.until_served("1.0.0", 100)
    assert seen.failures == []
    a_node.command("proceed", model.Proceed(operation_id, 2, COMMIT, None))
    await a_node.until_state(operation_id, "PERMANENT")
    assert await a_node.instances() == ()
