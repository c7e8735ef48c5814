"""What a thousand triggers cost while ten thousand nodes report, in time of one core, in process without gRPC.

Two real engines on real SQLite files, one with triggers and one without, take the same heartbeats in turns. Of each
node a heartbeat changes nine series, and either none that a trigger reads, or one that five triggers read; each
thousandth of those is above what the triggers allow. The figure is what the triggers add to a second of a thousand
heartbeats, of which each changes what five triggers read; beside it what they add to a heartbeat that none reads.
NODES says otherwise than ten thousand, for a quick look.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from controller import clock, engine
from controller.core import model
from controller.store import database, executor
from tests.bench import result

NODES = int(os.environ.get("NODES", "10000"))
TRIGGERS = 1_000
READERS = 5  # triggers that read one series
SERIES = TRIGGERS // READERS  # that are read at all; each node shows one of them
UNREAD = 9  # series of a node that nobody reads
A_SECOND = 1_000  # heartbeats
ROUNDS = 21  # of a second each, of either kind
AT_ONCE = 64  # heartbeats that wait for one transaction
HOT_EVERY = 1_000
LIMIT = 90.0


def measure() -> result.Result:
    """Let the fleet report to both."""
    with tempfile.TemporaryDirectory(prefix="in-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> result.Result:
    async with _running(folder / "bare") as bare, _running(folder / "triggered") as triggered:
        for number in range(TRIGGERS):
            await triggered.machine.apply_trigger(_trigger(number), actor="bench")
        spent: dict[tuple[str, bool], list[float]] = {}
        for round_number in range(ROUNDS):
            for is_read in (False, True):
                for name, each in (("bare", bare), ("triggered", triggered)):
                    spent.setdefault((name, is_read), []).append(await each.second(round_number, is_read=is_read))
        seconds = {key: statistics.median(found) for key, found in spent.items()}
        added = seconds["triggered", True] - seconds["bare", True]
        fired = len(triggered.machine.firings("", 10_000, only_open=False))
        figures = {
            "unread_ratio": round(seconds["triggered", False] / seconds["bare", False], 3),
            "core_share_of_all": round(seconds["triggered", True], 4),
            "core_share_without_triggers": round(seconds["bare", True], 4),
            "us_per_evaluation": round(added / A_SECOND / READERS * 1e6, 1),
            "triggers": TRIGGERS,
            "nodes": NODES,
            "firings": fired,
        }
        return result.Result("trigger_eval", round(added, 4), "cores", ROUNDS * A_SECOND, figures)


class Fleet:
    """An engine, and the nodes that report to it."""

    def __init__(self, machine: engine.Engine) -> None:
        self.machine = machine
        self._nodes: list[tuple[model.NodeId, model.SessionId]] = []
        self._next = 0

    async def connect(self) -> None:
        """Let every node say what it shows."""
        for number in range(NODES):
            node_id = model.NodeId(f"node-{number:05}")
            report = model.NodeReport(metrics=_metrics(number, 0, is_read=True), is_full=True)
            hello = model.NodeHello(node_id, "boot", f"keeper of {node_id}", "0.1.0", frozenset(), 0, {}, report)
            granted = await self.machine.open_session(hello)
            self._nodes.append((node_id, granted.session_id))

    async def second(self, round_number: int, *, is_read: bool) -> float:
        """Take as many heartbeats as come in a second; give the time of the processor that it took."""
        numbers = [(self._next + index) % NODES for index in range(A_SECOND)]
        self._next += A_SECOND
        reports = [model.NodeReport(metrics=_metrics(each, round_number, is_read=is_read)) for each in numbers]
        began = time.process_time()
        for first in range(0, A_SECOND, AT_ONCE):
            some = zip(numbers[first : first + AT_ONCE], reports[first : first + AT_ONCE], strict=True)
            await asyncio.gather(*(self.machine.report(*self._nodes[number], report) for number, report in some))
        return time.process_time() - began


@contextlib.asynccontextmanager
async def _running(path: Path) -> AsyncIterator[Fleet]:
    store = database.Store(path, executor.WriterThread())
    machine = engine.Engine(store, clock.SystemClock(), clock.RandomIds())
    await machine.start()
    await machine.start_triggers()
    try:
        made = Fleet(machine)
        await made.connect()
        yield made
    finally:
        await machine.stop()
        store.close()


def _metrics(number: int, round_number: int, *, is_read: bool) -> tuple[model.Metric, ...]:
    told = [model.Metric(f"unread_{each}", "", float(round_number + each)) for each in range(UNREAD)]
    if is_read:
        value = LIMIT + 1 if round_number and (number + round_number) % HOT_EVERY == 0 else float(number % 50)
        told[-1] = model.Metric(f"series_{number % SERIES}", "", value + round_number / 100)
    return tuple(told)


def _trigger(number: int) -> model.Trigger:
    condition = f"metrics['series_{number // READERS}'] > {LIMIT + number % READERS / 10}"
    when = model.Threshold(condition, pending_for=timedelta(seconds=30), keep_firing_for=timedelta(minutes=1))
    return model.Trigger(model.TriggerId(""), f"t-{number}", when, model.Notify(), is_enabled=True)
