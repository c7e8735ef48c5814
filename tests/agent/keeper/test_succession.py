"""The keeper replaces itself under a load that forgives nothing."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from agent import processes
from agent.keeper import succession_state
from tests.agent.keeper import load, node, trees
from tests.agent.keeper.test_instances import refused
from tests.agent.keeper.test_keeper import RESIDENT_MAX_KIB, resident_kib

TIMES = 5
AGENT = "import time; time.sleep(600)"


async def replaced(keeper: processes.Keeper, digest: str, directory: Path) -> None:
    """Ask until the keeper is not at work on anything."""

    async def is_done() -> bool:
        try:
            await keeper.replace(digest, directory)
        except processes.KeeperError as error:
            if error.code != "busy":
                raise
            return False
        return True

    await node.until(is_done)


async def test_a_keeper_that_replaces_itself_time_and_again_fails_no_request_and_touches_no_process(
    a_node: node.Node,
) -> None:
    a_node.kill()
    a_node.start(sys.executable, "-c", AGENT)
    keeper = await a_node.attached()
    served = await a_node.serving(keeper, "1.0.0")
    before, [agent] = await keeper.hello(), await keeper.agents()
    digests = []
    async with load.on(a_node.address) as seen:
        for count in range(TIMES):
            await seen.until_served("1.0.0", 20)
            digest, directory = trees.release(a_node.state, {"agent/__init__.py": f"\n# {count}\n"}, name=f"k{count}")
            await replaced(keeper, digest, directory)
            digests.append((await keeper.inspect()).keeper_digest)
            assert digests[-1] == digest
        await seen.until_served("1.0.0", 50)
        after = await keeper.hello()  # over the same connection, all the time
        [still] = await keeper.agents()
        serving = await node.reaches(keeper, served.id, processes.InstanceState.ACTIVE)
    assert seen.failures == []
    assert (after.pid, after.instance_token) == (before.pid, before.instance_token)
    assert (serving.pid, serving.restarts, serving.is_kept) == (served.pid, 0, True)
    assert still == agent
    assert len(set(digests)) == TIMES
    assert resident_kib(after.pid) <= RESIDENT_MAX_KIB


async def test_what_was_replaced_goes_on_supervising(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    served = await a_node.serving(keeper, "1.0.0")
    await replaced(keeper, *trees.release(a_node.state, {}, name="new"))
    node.kill(served.pid)

    async def is_back() -> bool:
        seen = await node.find(keeper, served.id)
        return seen.state is processes.InstanceState.ACTIVE and seen.restarts == 1

    await node.until(is_back)
    event = await keeper.events.get()
    assert event.instance.id == served.id
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 20)
    assert seen.failures == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("agent/keeper/loop.py", "\nthis is no Python\n"),
        ("agent/keeper/succession_state.py", "\nSCHEMA_MIN, SCHEMA = 98, 99\n"),
        ("agent/keeper/succession.py", "\nraise SystemExit(0)\n"),
    ],
)
async def test_a_new_keeper_that_does_not_work_leaves_the_old_one_going(
    a_node: node.Node, path: str, text: str
) -> None:
    keeper = await a_node.attached()
    served = await a_node.serving(keeper, "1.0.0")
    digest, directory = trees.release(a_node.state, {path: text}, name="broken")
    with refused("replace_failed"):
        await replaced(keeper, digest, directory)
    assert (await keeper.inspect()).keeper_digest == ""
    assert (await node.find(keeper, served.id)).pid == served.pid
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 20)
    assert seen.failures == []


async def test_a_release_that_was_changed_on_disk_does_not_become_the_keeper(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    digest, directory = trees.release(a_node.state, {}, name="new")
    (directory / "agent" / "__init__.py").write_text("tampered = True\n")
    with refused("replace_failed"):
        await replaced(keeper, digest, directory)
    assert (await keeper.inspect()).keeper_digest == ""


async def test_a_keeper_at_work_is_not_replaced(a_node: node.Node) -> None:
    keeper, other = await a_node.attached(), await a_node.client()
    served = await a_node.serving(keeper, "1.0.0")
    digest, directory = trees.release(a_node.state, {}, name="new")
    os.kill(served.pid, 19)  # SIGSTOP: it does not answer, so that somebody waits
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(other.say(served.id, processes.Word.STATUS, node.WORD_TIMEOUT))
        await asyncio.sleep(0)
        with refused("busy"):
            await keeper.replace(digest, directory)
        os.kill(served.pid, 18)
        await waiting


async def test_releases_stay_pinned_while_a_component_that_such_a_keeper_started_lives(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    first, second = (trees.release(a_node.state, {"agent/__init__.py": f"\n# {n}\n"}, name=n) for n in ("one", "two"))
    await replaced(keeper, *first)
    served = await a_node.serving(keeper, "1.0.0")
    await replaced(keeper, *second)
    assert set((await keeper.inspect()).pinned_digests) == {first[0], second[0]}
    a_node.kill()
    a_node.start()
    keeper = await a_node.client()
    assert set((await keeper.inspect()).pinned_digests) == {first[0], second[0]}  # the next keeper knows it too
    await keeper.stop(served.id, node.WORD_TIMEOUT)
    assert (await keeper.inspect()).pinned_digests == ()


async def test_the_state_of_the_schema_before_is_read(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    served = await a_node.serving(keeper, "1.0.0")
    record = json.loads((a_node.run / f"{served.id}.json").read_text())
    old = {
        "schema": 1,
        "boot_id": record["boot_id"],
        "instance_token": "token",
        "lock": 3,
        "release": {"digest": "", "directory": ""},
        "sockets": [{"name": "web.http", "address": "127.0.0.1:1", "backlog": 8, "descriptor": 5}],
        "instances": [{"record": record, "pidfd": 6, "state": "active", "exit_code": None, "signal": None}],
        "marks": "",
        "agent": None,
    }
    memory = os.memfd_create("state")
    os.write(memory, json.dumps(old).encode())
    state = succession_state.read(memory)
    os.close(memory)
    assert state.descriptors == [3, 5, 6]
    assert [each.pid for each in state.instances] == [served.pid]
    assert (state.connections, state.holds) == (None, ())
