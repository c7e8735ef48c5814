from __future__ import annotations

import pytest

from controller.cli.demo import api, bundles
from instar.v1 import operation_pb2, rollout_pb2
from tests.integration import stage as stages


def is_in_second_wave(rollout: rollout_pb2.Rollout) -> bool:
    return any(
        change.wave == 2
        and change.step == operation_pb2.STEP_SOAK
        and change.state == operation_pb2.OPERATION_STATE_RUNNING
        for change in rollout.changes
    )


@pytest.mark.slow
async def test_a_rollout_goes_on_where_it_was_and_asks_no_node_twice() -> None:
    async with stages.up(nodes=3) as stage:
        rollout = await stage.start_upgrade(bundles.NEXT, rollout_pb2.STRATEGY_CANARY)
        await stage.seen(rollout, is_in_second_wave)
        await stage.controller.running.kill()
        await stage.controller.start()
        ended = await stage.end_of(rollout)
        nodes = await api.nodes(stage.link)
        requests = await stage.requests()

    assert ended.state == rollout_pb2.ROLLOUT_STATE_SUCCEEDED
    assert [change.attempt for change in ended.changes] == [1, 1, 1]
    assert [node.fence for node in nodes] == [2, 2, 2]  # one for the install, one for the upgrade
    assert {component.version for node in nodes for component in node.components} == {"1.1.0"}
    assert not stages.lost(requests)
