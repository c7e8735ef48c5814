from __future__ import annotations

import os
import signal

import pytest

from agent import processes
from controller.cli.demo import bundles, process
from instar.v1 import rollout_pb2
from tests.integration import stage as stages

State = processes.InstanceState


async def is_answered_by(stage: stages.Stage, version: str) -> None:
    async def is_so() -> bool:
        return await stages.version_of(stage.node) == version

    await process.until(f"{version} answers", is_so, seconds=stages.WAIT_SECONDS)


async def kill_tree(stage: stages.Stage) -> None:
    """Everything of the node at once: the keeper first, so that it starts nothing again."""
    pids = [one.pid for one in await stages.instances(stage.node)]
    agent = stages.agent_pid(stage.node)
    stage.node.keeper.send(signal.SIGKILL)
    for pid in (*pids, *([agent] if agent else [])):
        os.kill(pid, signal.SIGKILL)
    await stage.node.keeper.ended()


@pytest.mark.slow
async def test_a_component_serves_on_without_keeper_and_agent_and_is_adopted() -> None:
    async with stages.up(nodes=1) as stage:
        (before,) = await stages.instances(stage.node)
        agent = stages.agent_pid(stage.node)
        assert agent is not None
        await stage.node.keeper.kill()
        os.kill(agent, signal.SIGKILL)
        await is_answered_by(stage, "1.0.0")
        await stage.node.start()
        await stage.reported(lambda component: [one.pid for one in component.instances] == [before.pid])
        (after,) = await stages.instances(stage.node)
        upgraded = await stage.end_of(await stage.start_upgrade(bundles.NEXT))
        answered_by = await stages.version_of(stage.node)
        requests = await stage.requests()

    assert (after.id, after.pid) == (before.id, before.pid)
    assert after.state is State.ACTIVE
    assert answered_by == "1.1.0", upgraded
    assert not stages.lost(requests)


@pytest.mark.slow
async def test_the_committed_version_starts_again_without_the_controller() -> None:
    async with stages.up(nodes=1) as stage:
        async with stages.watching(stage.node) as watch:
            rollout = await stage.start_upgrade(bundles.NEXT)
            await watch.until("1.0.0", State.PAUSED)
        await stage.controller.running.kill()
        await kill_tree(stage)
        await stage.node.start()
        await is_answered_by(stage, "1.0.0")  # 1.1.0 took traffic, but was not committed

        await stage.controller.start()
        ended = await stage.end_of(rollout)
        assert ended.state == rollout_pb2.ROLLOUT_STATE_SUCCEEDED, ended
        await stage.controller.stop()
        await kill_tree(stage)
        await stage.node.start()
        await is_answered_by(stage, "1.1.0")
