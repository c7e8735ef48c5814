"""How long an emergency rollback of a large fleet takes beyond what one node needs for its own way back.

The real engine on a real SQLite file, its transactions on the writer's thread; ten thousand simulated nodes, each of
which begins as soon as its command stands, needs one second for its way back, and says so in one report. Measured is
from the order until the last node is back and the rollout is REVERTED, less that second. NODES says otherwise than ten
thousand, for a quick look.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from controller import clock, cycles, engine
from controller.core import model
from controller.engine import commands
from controller.store import database, executor
from tests.bench import result
from tests.controller.engine import fleet

NODES = int(os.environ.get("NODES", "10000"))
NODE_SECONDS = 1.0  # of one node's way back
TIME_LIMIT = timedelta(minutes=5)
PATIENCE_SECONDS = 600.0
HELLOS_AT_ONCE = 500
HEALTHY_FOR = timedelta(hours=1)
POLICY = model.Policy(min_healthy_duration=timedelta(seconds=1))


@dataclass(slots=True)
class Node:
    """One simulated node."""

    node_id: model.NodeId
    version: str = "1.0.0"
    session_id: model.SessionId | None = None
    done: set[model.OperationId] = field(default_factory=set)

    def report(self) -> model.NodeReport:
        """Say everything."""
        return model.NodeReport(components=(self._runs(),), is_full=True)

    def carry_out(self, command: commands.AssignCommand) -> model.NodeReport:
        """Be done with an operation, and say so."""
        self.version = command.to_version
        self.done.add(command.operation_id)
        told = model.OperationStatus(
            operation_id=command.operation_id,
            fence=command.fence,
            component=command.component,
            state=model.OperationState.PERMANENT,
            step=None,
            fault=None,
            reason="",
            message="",
            changed_at=fleet.EPOCH,
        )
        return model.NodeReport(components=(self._runs(),), operations=(told,))

    def _runs(self) -> model.InstalledComponent:
        return replace(fleet.installed(self.version), healthy_for=HEALTHY_FOR)


class Fleet:
    """All of them, and what wakes them."""

    def __init__(self, machine: engine.Engine, group: asyncio.TaskGroup) -> None:
        self._machine = machine
        self._group = group
        self.nodes = [Node(model.NodeId(f"node-{number:05}")) for number in range(NODES)]
        self.seconds = 0.0  # that each takes for what it is asked

    async def connect(self) -> None:
        """Greet, some hundreds at a time."""
        for start in range(0, NODES, HELLOS_AT_ONCE):
            await asyncio.gather(*(self._greet(node) for node in self.nodes[start : start + HELLOS_AT_ONCE]))

    async def _greet(self, node: Node) -> None:
        hello = model.NodeHello(
            node_id=node.node_id,
            boot_id="boot",
            instance_token=node.node_id,
            agent_version="0.1.0",
            capabilities=frozenset({"driver.handover"}),
            highest_fence=0,
            labels={"zone": f"z{int(node.node_id[-2:]) % 50}"},
            report=node.report(),
        )
        node.session_id = (await self._machine.open_session(hello)).session_id
        self._machine.subscribe(node.node_id, self._waker(node))

    def _waker(self, node: Node) -> Callable[[], None]:
        def wake() -> None:
            for command in self._machine.commands(node.node_id):
                if isinstance(command, commands.AssignCommand) and command.operation_id not in node.done:
                    node.done.add(command.operation_id)
                    self._group.create_task(self._work(node, command))

        return wake

    async def _work(self, node: Node, command: commands.AssignCommand) -> None:
        await asyncio.sleep(self.seconds)
        assert node.session_id is not None
        await self._machine.report(node.node_id, node.session_id, node.carry_out(command))


def measure() -> result.Result:
    """Upgrade the fleet, then take all of it back at once."""
    cycles.seek_seldom()  # as the server does
    with tempfile.TemporaryDirectory(prefix="in-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> result.Result:
    store = database.Store(folder / "store.db", executor.WriterThread())
    machine = engine.Engine(store, clock.SystemClock(), clock.RandomIds())
    await machine.start()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            return await _rolled_back(machine, Fleet(machine, group))
    finally:
        await machine.stop()
        store.close()


async def _rolled_back(machine: engine.Engine, nodes: Fleet) -> result.Result:
    for version in fleet.VERSIONS[:2]:
        await machine.publish(fleet.release(version))
    await nodes.connect()
    started = await machine.start_upgrade(fleet.request(policy=POLICY), request_id="one", actor="bench")
    await _ended(machine, started.id, model.RolloutState.SUCCEEDED)
    nodes.seconds = NODE_SECONDS
    began = time.monotonic()
    await machine.roll_back_emergency(model.ComponentName(""), "", TIME_LIMIT, reason="bench", actor="bench")
    ordered = time.monotonic()
    await _ended(machine, started.id, model.RolloutState.REVERTED)
    seconds = time.monotonic() - began - NODE_SECONDS
    figures = {
        "seconds": round(seconds, 2),
        "order_seconds": round(ordered - began, 2),
        "node_seconds": NODE_SECONDS,
        "nodes": NODES,
    }
    return result.Result("emergency", round(seconds, 2), "s", NODES, figures)


async def _ended(machine: engine.Engine, rollout_id: model.RolloutId, state: model.RolloutState) -> None:
    async for seen in machine.watch(rollout_id):
        if seen.state is state:
            return
    raise AssertionError(f"rollout {rollout_id} did not come to {state.value}")
