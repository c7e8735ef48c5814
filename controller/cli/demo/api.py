"""The controller's API as the demo calls it: the connection of the command line, and a watch that does not give up.

Rules kept: a watch that breaks is taken up again behind the last revision, for as long as the caller waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from controller.cli import connection
from controller.core import errors
from instar.v1 import fleet_service_pb2, node_pb2, rollout_pb2, rollout_service_pb2

CALL_SECONDS = 10.0  # a loopback call that takes longer has failed
RETRY_SECONDS = 0.2  # between two attempts to reach a controller that is away
TERMINAL = frozenset(
    {
        rollout_pb2.ROLLOUT_STATE_SUCCEEDED,
        rollout_pb2.ROLLOUT_STATE_FAILED,
        rollout_pb2.ROLLOUT_STATE_CANCELLED,
        rollout_pb2.ROLLOUT_STATE_REVERTED,
        rollout_pb2.ROLLOUT_STATE_STUCK,
    }
)


async def nodes(link: connection.Connection) -> Sequence[node_pb2.Node]:
    """The nodes, as they last reported."""
    answer = await link.call(link.fleet.ListNodes, fleet_service_pb2.ListNodesRequest(), seconds=CALL_SECONDS)
    return answer.nodes


async def start(
    link: connection.Connection, request: rollout_pb2.UpgradeRequest, request_id: str
) -> rollout_pb2.Rollout:
    """Ask for an upgrade; the same request id again gives the same rollout."""
    asked = rollout_service_pb2.StartUpgradeRequest(upgrade=request, request_id=request_id)
    answer = await link.call(link.rollouts.StartUpgrade, asked, seconds=CALL_SECONDS)
    return answer.rollout


async def watch(link: connection.Connection, rollout_id: str) -> AsyncGenerator[rollout_pb2.Rollout, None]:
    """Each state of a rollout from now until its terminal one, across any number of controller lives."""
    seen = 0
    while True:
        asked = rollout_service_pb2.WatchRolloutRequest(rollout=rollout_id, after_revision=seen)
        try:
            async for answer in link.stream(link.rollouts.WatchRollout, asked):
                seen = answer.rollout.revision
                yield answer.rollout
                if answer.rollout.state in TERMINAL:
                    return
        except errors.UnavailableError:
            pass
        await asyncio.sleep(RETRY_SECONDS)
