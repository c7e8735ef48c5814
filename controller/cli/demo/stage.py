"""What runs while the demo does its work, and what can be done with all of it: a rollout, a wait for requests.

Rules kept: what is waited for has a deadline. Left out: what is rolled out (`scenario`, `self_upgrade`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from google.protobuf import duration_pb2

from controller.cli import connection
from controller.cli.demo import api, bundles, fleet, process, receiver, record, report
from instar.v1 import rollout_pb2

MIN_HEALTHY = timedelta(seconds=2)
ROLLOUT_SECONDS = 120.0  # for one rollout to end; on a busy machine the agents of many nodes take their time
LOAD_SECONDS = 30.0  # for the load client to have sent what is wanted

Say = Callable[[str], None]
Meanwhile = Callable[[rollout_pb2.Rollout], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """A rollout that shall be made.

    Args:
        soak: Time under watch before COMMIT.
        min_healthy: Time that the new version must have been healthy for when the change is permanent.
        ends: The state that it should end in.
    """

    source: bundles.Publishable
    strategy: rollout_pb2.Strategy.ValueType
    soak: timedelta
    min_healthy: timedelta = MIN_HEALTHY
    is_install: bool = False
    ends: rollout_pb2.RolloutState.ValueType = rollout_pb2.ROLLOUT_STATE_SUCCEEDED

    def request(self) -> rollout_pb2.UpgradeRequest:
        """What the controller is asked for."""
        return rollout_pb2.UpgradeRequest(
            component=self.source.component,
            target_version=self.source.version,
            strategy=self.strategy,
            install=self.is_install,
            name=f"{self.source.component}-{self.source.version}",
            policy=rollout_pb2.Policy(
                soak_duration=_duration(self.soak),
                min_healthy_duration=_duration(self.min_healthy),
            ),
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs."""

    nodes: Sequence[fleet.Node]
    link: connection.Connection
    spans: receiver.Receiver
    root: Path
    say: Say

    @property
    def node_ids(self) -> frozenset[str]:
        """Every node."""
        return frozenset(node.id for node in self.nodes)

    @property
    def records(self) -> Path:
        """What the load client has noted."""
        return self.root / "requests.tsv"

    async def is_connected(self) -> bool:
        """Whether every node is."""
        return {node.node_id for node in await api.nodes(self.link) if node.connected} >= self.node_ids

    async def roll_out(self, step: Step, meanwhile: Meanwhile | None = None) -> report.Ended:
        """Start a rollout and follow it to its end.

        Args:
            step: What shall be made.
            meanwhile: Is shown each state that the rollout comes into; the watch waits for it.

        Raises:
            process.ProcessError: It did not end within ROLLOUT_SECONDS.
        """
        request = step.request()
        accepted = await api.start(self.link, request, request_id=f"demo-{request.name}")
        rollout, said = accepted, ""
        try:
            async with asyncio.timeout(ROLLOUT_SECONDS):
                async for rollout in api.watch(self.link, accepted.rollout_id):
                    if (line := report.progress(rollout)) != said:
                        self.say(line)
                        said = line
                    if meanwhile is not None:
                        await meanwhile(rollout)
        except TimeoutError as error:
            raise process.ProcessError(f"cannot wait any longer than {ROLLOUT_SECONDS:g} s for: {said}") from error
        return report.Ended(rollout, step.ends)

    async def requests_sent(self, load: process.Process, number: int) -> None:
        """Wait until the load client has sent so many.

        Raises:
            process.ProcessError: It ended, or took longer than LOAD_SECONDS.
        """

        async def is_so() -> bool:
            if not load.is_running:
                raise load.failure("send requests")
            return record.number(self.records) >= number

        await process.until(f"{number} requests were sent", is_so, seconds=LOAD_SECONDS)


def _duration(span: timedelta) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromTimedelta(span)
    return message
