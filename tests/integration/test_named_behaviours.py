"""The one named behaviour that needs real nodes; the others are in `tests.controller.engine.test_named_behaviours`."""

from __future__ import annotations

import pytest

from agent import journal
from agent.core import transitions
from controller.cli.demo import api, bundles, fleet
from instar.v1 import rollout_pb2, rollout_service_pb2
from tests.integration import stage as stages

Phase = transitions.Phase


@pytest.mark.slow
async def test_trigger_emergency_rollback() -> None:
    async with stages.up(nodes=2) as stage:
        rollout = await stage.start_upgrade(bundles.NEXT)
        for node in stage.nodes:
            await stages.phase_reached(node, rollout, Phase.SOAK)
        phases = [_phases(node, rollout) for node in stage.nodes]
        wanted = rollout_service_pb2.RollBackEmergencyRequest(component=bundles.COMPONENT, reason="drill")
        call = stage.link.rollouts.RollBackEmergency
        answer = await stage.link.call(call, wanted, seconds=api.CALL_SECONDS)
        ended = await stage.end_of(rollout)
        versions = [await stages.version_of(node) for node in stage.nodes]
        requests = await stage.requests()

    assert [each.rollout_id for each in answer.rollouts] == [rollout.rollout_id]
    assert answer.freeze_id
    assert ended.state == rollout_pb2.ROLLOUT_STATE_REVERTED
    assert versions == ["1.0.0", "1.0.0"]
    assert not stages.lost(requests)
    for seen in phases:
        assert seen.index(Phase.ROLLBACK_POINT) < seen.index(Phase.SWITCH), "there is a point before anything changes"


def _phases(node: fleet.Node, rollout: rollout_pb2.Rollout) -> list[Phase]:
    """The phases that the node's part of a rollout went through, in order."""
    for history in journal.read(node.state_dir).operations:
        if history.latest.operation.assignment.operation_id.startswith(rollout.rollout_id):
            return list(dict.fromkeys(each.operation.phase for each in history.states))
    raise AssertionError("the node knows nothing of the rollout")
