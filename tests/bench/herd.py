"""`python -m tests.bench.herd HOST:PORT`: agents in a process of their own, which hold their sessions as agents do.

Each is the agent's own link over gRPC on a connection of its own, with its back-off and its heartbeats; only the node
behind it is none: it runs one component and has nothing to do. Names and tokens come in as lines; after each
change of how many sessions are open a line with that number goes out. It ends when it is told to by a signal.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterable
from datetime import timedelta

from agent.core import model, secret
from agent.link import loop, transport
from controller import clock

LOOK_SECONDS = 0.05


class StillNode:
    """A node on which nothing happens."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._beats = 0

    def hello_facts(self) -> model.HelloFacts:
        """What opens a session."""
        return model.HelloFacts("boot", self._name, "0.1.0", ("driver.handover",), 0)

    def full_report(self) -> model.Report:
        """One healthy component, and metrics as of a small host."""
        self._beats += 1
        digest = "sha256:" + "a" * 64
        well = timedelta(seconds=self._beats)
        web = model.ComponentStatus("web", "1.0.0", digest, digest, model.Health.HEALTHY, well)
        metrics = tuple(model.Metric(f"system.figure.{number}", "", self._beats + number) for number in range(10))
        return model.Report(metrics=metrics, components=(web,))

    def take_command(self, command: model.Order) -> None:
        """Nothing is asked of it."""

    async def read_log(self, asked: model.ReadLog) -> model.LogText:
        """It has written nothing."""
        return model.LogText(asked.request_id, "", "")

    def acknowledged(self, operations: tuple[model.OperationStatus, ...], steps: tuple[model.StepRecord, ...]) -> None:
        """It has no results."""


async def _hold(address: str, lines: Iterable[str]) -> None:
    links: list[loop.Link] = []
    time = clock.SystemClock()
    async with asyncio.TaskGroup() as group:
        for line in lines:
            name, token = line.split()
            shown = secret.Secret(token)
            way = transport.GrpcTransport(address, lambda shown=shown: shown)  # type: ignore[misc]  # of a default
            link = loop.Link(way, node_id=name, now=time.now, draw=random.random)
            links.append(link)
            group.create_task(link.run(StillNode(name)))
        told = -1
        while True:
            count = sum(link.is_open for link in links)
            if count != told:
                sys.stdout.write(f"{count}\n")
                sys.stdout.flush()
                told = count
            await asyncio.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    asyncio.run(_hold(sys.argv[1], sys.stdin.read().splitlines()))
