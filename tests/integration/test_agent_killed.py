from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest

from agent import processes
from agent.core import transitions
from controller.cli.demo import bundles
from instar.v1 import operation_pb2, rollout_pb2
from tests.integration import stage as stages

State = processes.InstanceState
Phase = transitions.Phase
SHORT_DEADLINE = timedelta(seconds=6)  # after which a keeper without an agent goes back


async def reach_switch(watch: stages.Watch, old: processes.Instance) -> None:
    """The old instance is held still meanwhile, so that the switch cannot be over before the agent dies."""
    await watch.until("1.1.0", State.PREPARED)
    os.kill(old.pid, signal.SIGSTOP)
    await watch.until("1.1.0", State.ACTIVE)


@pytest.mark.slow
@pytest.mark.parametrize("phase", [Phase.PREPARE, Phase.SWITCH, Phase.SOAK, Phase.SETTLING])
async def test_a_killed_agent_costs_no_request_and_leaves_one_version(phase: Phase) -> None:
    async with stages.up(nodes=1) as stage:
        (old,) = await stages.instances(stage.node)
        async with stages.watching(stage.node) as watch:
            rollout = await stage.start_upgrade(bundles.NEXT)
            if phase is Phase.SWITCH:
                await reach_switch(watch, old)
            else:
                await stages.phase_reached(stage.node, rollout, phase)
            stages.kill_agent(stage.node)
            killed_in = stages.journalled(stage.node, rollout)
            if phase is Phase.SWITCH:
                os.kill(old.pid, signal.SIGCONT)
        ended = await stage.end_of(rollout)
        expected = "1.1.0" if ended.state == rollout_pb2.ROLLOUT_STATE_SUCCEEDED else "1.0.0"
        await stage.reported(lambda component: component.version == expected and len(component.instances) == 1)
        held = await stages.inspect(stage.node)
        answered_by = await stages.version_of(stage.node)
        requests = await stage.requests()

    assert killed_in is not None
    assert (killed_in.phase, killed_in.is_drained) == (phase, False)
    assert ended.changes[0].state in (operation_pb2.OPERATION_STATE_PERMANENT, operation_pb2.OPERATION_STATE_ABORTED)
    assert answered_by == expected
    assert not held.marks
    assert not stages.lost(requests)


@pytest.mark.slow
async def test_the_keeper_alone_goes_back_when_the_agent_stays_away() -> None:
    async with stages.up(nodes=1) as stage:
        async with stages.watching(stage.node) as watch:
            await stage.start_upgrade(bundles.NEXT, deadline=SHORT_DEADLINE)
            await watch.until("1.0.0", State.PAUSED)
            stage.node.config_file.rename(stage.root / "away.toml")  # a new agent cannot begin without it
            stages.kill_agent(stage.node)
            await watch.until("1.0.0", State.ACTIVE)
            await watch.until("1.1.0", State.EXITED)
        held = await stages.inspect(stage.node)
        answered_by = await stages.version_of(stage.node)
        requests = await stage.requests()

    assert [outcome.decision for outcome in held.outcomes][-1] is processes.Decision.ROLLED_BACK
    assert answered_by == "1.0.0"
    assert not stages.lost(requests)
