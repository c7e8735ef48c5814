"""How long it takes from the report of a breach to the first command for a node, in process without gRPC.

A real engine on a real SQLite file, its transactions on the writer's thread; a thousand nodes that all report each ten
seconds, and two hundred triggers, each of which upgrades one node when the load of that node is too high. The breaches
come one after the other. An agent tells of a breach with its next heartbeat, which comes on top.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np

from controller import clock, engine, tasks
from controller.core import model
from controller.store import database, executor
from tests.bench import result
from tests.controller.engine import fleet

NODES = 1_000
BREACHES = 200
REPORTS_PER_SECOND = NODES / 10
PATIENCE_SECONDS = 30.0


def measure() -> result.Result:
    """Let one node after the other be too busy."""
    with tempfile.TemporaryDirectory(prefix="in-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> result.Result:
    store = database.Store(folder / "store.db", executor.WriterThread())
    machine = engine.Engine(store, clock.SystemClock(), clock.RandomIds())
    await machine.start()
    await machine.start_triggers()
    others = tasks.Guard()
    try:
        agents = await _connected(machine)
        for agent in agents[:BREACHES]:
            await machine.apply_trigger(_trigger(agent.node_id), actor="bench")
        others.start(_heartbeats(machine, agents), "heartbeats")
        seconds = [await _breach(machine, agent) for agent in agents[:BREACHES]]
    finally:
        await others.stop()
        await machine.stop()
        store.close()
    p50, p99 = (round(float(np.percentile(seconds, percent)) * 1_000, 1) for percent in (50, 99))
    figures = {"p50_ms": p50, "max_ms": round(max(seconds) * 1_000, 1), "nodes": NODES, "triggers": BREACHES}
    return result.Result("trigger_latency", p99, "ms", len(seconds), figures)


async def _connected(machine: engine.Engine) -> list[fleet.Agent]:
    for version in fleet.VERSIONS[:2]:
        await machine.publish(fleet.release(version))
    agents = [fleet.Agent(f"n{number:04}", node=f"n{number:04}") for number in range(NODES)]
    for agent in agents:
        agent.metrics = (model.Metric("load", fleet.WEB, 1.0),)
        await agent.connect(machine)
    return agents


def _trigger(node_id: model.NodeId) -> model.Trigger:
    own = f"node={node_id}"
    when = model.Threshold("metrics['load'] > 5.0", component=fleet.WEB, selector=own)
    action = model.Upgrade(fleet.request(selector=own, name=f"up-{node_id}"))
    return model.Trigger(model.TriggerId(""), f"hot-{node_id}", when, action, is_enabled=True)


async def _heartbeats(machine: engine.Engine, agents: list[fleet.Agent]) -> None:
    for number in itertools.count():
        load = model.Metric("load", fleet.WEB, 1.0 + number % 7 / 10)
        await agents[BREACHES + number % (NODES - BREACHES)].tell(machine, model.NodeReport(metrics=(load,)))
        await asyncio.sleep(1 / REPORTS_PER_SECOND)


async def _breach(machine: engine.Engine, agent: fleet.Agent) -> float:
    """Report one, and wait for the command."""
    woken = asyncio.Event()
    unsubscribe = machine.subscribe(agent.node_id, woken.set)
    began = time.perf_counter()
    try:
        await agent.tell(machine, model.NodeReport(metrics=(model.Metric("load", fleet.WEB, 9.0),)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not agent.assigned(machine):
                woken.clear()
                await woken.wait()
    finally:
        unsubscribe()
    return time.perf_counter() - began
