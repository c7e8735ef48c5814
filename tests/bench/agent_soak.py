"""Whether an agent grows with what it has done: a thousand operations on one node, hot swaps to and fro.

Resident memory of the agent and of the keeper after the first tenth, when caches and the allocator have settled, and
after the last, and all the way: what leaks goes on growing, what settles does not. One in ten operations is an abort.
OPERATIONS says otherwise than a thousand, for a quick look.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
from datetime import timedelta
from typing import Any

import psutil

from tests.agent import live_node
from tests.bench import result

OPERATIONS = int(os.environ.get("OPERATIONS", "1000"))
STRETCH = max(1, OPERATIONS // 10)
ABORT_EACH = 10
SAMPLES = 20  # looks at the end of each stretch: the median leaves out what a collection is about to free
SAMPLE_SECONDS = 0.1
MIB = 1024 * 1024
QUICK: dict[str, Any] = {"soak_duration": timedelta(seconds=0.05), "min_healthy_duration": timedelta(seconds=0.1)}


def measure() -> result.Result:
    """Run the operations."""
    return asyncio.run(_measure())


async def _measure() -> result.Result:
    async with live_node.running() as node:
        (node.root / "deaf").unlink()
        digests = [node.bundle(version) for version in ("1.0.0", "1.1.0")]
        bad = node.bundle("1.2.0", service=b"raise SystemExit(1)\n")
        await _ended(node, node.assign("1.0.0", digests[0], **QUICK))
        seen: list[tuple[float, float]] = []
        at = 0
        for number in range(OPERATIONS):
            if number and number % STRETCH == 0:
                seen.append(await _resident_mib(node))
            if number % ABORT_EACH == 0:
                await _ended(node, node.assign("1.2.0", bad, digests[at], **QUICK))
            else:
                at = 1 - at
                version = ("1.0.0", "1.1.0")[at]
                await _ended(node, node.assign(version, digests[at], digests[1 - at], **QUICK))
            if number % 50 == 0:
                print(f"{number} of {OPERATIONS} operations", file=sys.stderr, flush=True)  # noqa: T201  # progress
        seen.append(await _resident_mib(node))
    agents, keepers = zip(*seen, strict=True)
    growth = [round(each[-1] - each[0], 2) for each in (agents, keepers)]
    figures = {
        "growth_mib": growth[0],
        "second_half_growth_mib": round(agents[-1] - agents[len(agents) // 2], 2),
        "keeper_growth_mib": growth[1],
        "operations": OPERATIONS,
        "agent_mib": agents[-1],
        "agent_mib_by_tenth": agents,
        "keeper_mib_by_tenth": keepers,
    }
    return result.Result("agent_soak", growth[0], "MiB", OPERATIONS, figures)


async def _ended(node: live_node.LiveNode, operation_id: str) -> None:
    """Wait until the leader has acknowledged how it ended, and the agent has forgotten it."""
    fence = int(operation_id.removeprefix("op-"))
    await node.until(lambda: _is_forgotten(node.told(), operation_id, fence))


def _is_forgotten(told: dict[str, Any], operation_id: str, fence: int) -> bool:
    is_known = any(each["operation_id"] == operation_id for each in told["report"]["operations"])
    return not is_known and told.get("hello", {}).get("highest_fence", 0) >= fence


async def _resident_mib(node: live_node.LiveNode) -> tuple[float, float]:
    assert node.keeper.process is not None
    watched = psutil.Process(node.told()["pid"]), psutil.Process(node.keeper.process.pid)
    samples = []
    for _ in range(SAMPLES):
        samples.append(tuple(each.memory_info().rss / MIB for each in watched))
        await asyncio.sleep(SAMPLE_SECONDS)
    agent, keeper = (round(statistics.median(column), 2) for column in zip(*samples, strict=True))
    return agent, keeper
