"""The controller is killed in the middle of an upgrade, once.

Rules kept: it is killed while a node is on its way, so that something is left to go on with; how long nobody answered
is measured from the kill to the first answer. Left out: how another comes to lead (`replicas`).
"""

from __future__ import annotations

from controller import clock
from controller.cli.demo import fleet, stage
from instar.v1 import operation_pb2, rollout_pb2


class Outage:
    """One that is to come.

    Args:
        controller: Who is killed.
        say: Takes each line of progress.
    """

    def __init__(self, controller: fleet.Controller, say: stage.Say) -> None:
        self._controller = controller
        self._say = say
        self._ticks = clock.SystemClock()
        self.seconds: float | None = None

    async def __call__(self, rollout: rollout_pb2.Rollout) -> None:
        """Kill it where a node is on its way, and wait until a controller answers again."""
        if self.seconds is not None or not _is_under_way(rollout):
            return
        killed = self._controller.running.pid
        self._say(f"the controller is killed, process {killed}")
        began_seconds = self._ticks.monotonic()
        await self._controller.kill()
        self.seconds = self._ticks.monotonic() - began_seconds
        self._say(f"a controller answers again after {self.seconds:.1f} s, process {self._controller.running.pid}")


def _is_under_way(rollout: rollout_pb2.Rollout) -> bool:
    """Whether a node serves by the new version, and has not committed to it."""
    return any(
        change.step == operation_pb2.STEP_SOAK and change.state == operation_pb2.OPERATION_STATE_RUNNING
        for change in rollout.changes
    )
