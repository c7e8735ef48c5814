"""What it costs to take what ten thousand nodes measure, in time of one core and in memory, in process without gRPC.

Each node shows twelve series of one component and reports each ten seconds what has changed: eight of its counters, a
gauge, nothing of the rest. Measured is the process's own time for taking the reports alone, once all nodes have told of
themselves, and while the keeper writes to a real SQLite file on the writer's thread; and the bytes of all arrays that
hold half an hour at full resolution, with what each series has come to, room that nobody uses among them. NODES says
otherwise than ten thousand, for a quick look.
"""

from __future__ import annotations

import asyncio
import os
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from controller.core import model
from controller.metrics import collector, limits
from controller.store import database, executor
from tests.bench import result

NODES = int(os.environ.get("NODES", "10000"))
SERIES = 12
PERIOD = timedelta(seconds=10)
PERIODS = 190  # of them 180 fill the windows; written is once every 60
COUNTERS = tuple(f"web_{number}_total" for number in range(8))
STILL = ("web_8_total", "web_9_total", "web_10_total")
GAUGE = "web_memory_bytes"
START = datetime(2026, 1, 1, tzinfo=UTC)
K = model.SeriesKind


class Clock:
    """Stands where the bench puts it."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - START).total_seconds()


def measure() -> result.Result:
    """Let the fleet report for half an hour."""
    with tempfile.TemporaryDirectory(prefix="in-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> result.Result:
    store, clock = database.Store(folder / "store.db", executor.WriterThread()), Clock()
    made = collector.Collector(store, clock, limits.Limits())
    await made.start_collection(PERIOD)
    resident_before = _resident_bytes()
    try:
        seconds, all_seconds = await _live(made, clock)
        run = made._run
        assert run is not None
        assert run.rows.series == NODES * SERIES
        window_hours = limits.Limits().window / timedelta(hours=1)
        per_hour = run.rows.fine_nbytes / run.rows.series / window_hours
        figures = {
            "core_share": round(seconds, 4),
            "core_share_with_keeping": round(all_seconds, 4),
            "bytes_per_series_hour": round(per_hour, 1),
            "bytes_per_series": round(run.rows.nbytes / run.rows.series),
            "resident_bytes_per_series": round((_resident_bytes() - resident_before) / run.rows.series),
            "series": run.rows.series,
        }
        return result.Result("ingest", round(seconds, 4), "cores", NODES * PERIODS, figures)
    finally:
        await made.stop_collection()
        store.close()


async def _live(made: collector.Collector, clock: Clock) -> tuple[float, float]:
    """Return the share of a core that taking all reports used, and the share with what is written of them."""
    draw = np.random.default_rng(1)
    nodes = [model.NodeId(f"node-{number:05}") for number in range(NODES)]
    values = np.zeros((NODES, len(COUNTERS)))
    taken = everything = 0.0
    run = made._run
    assert run is not None
    for number in range(PERIODS):
        clock.at = START + number * PERIOD
        values += draw.poisson(50, values.shape)
        levels = draw.normal(1e8, 1e6, NODES)
        reports = [_report(values[at].tolist(), levels[at], clock.at, is_full=number == 0) for at in range(NODES)]
        received_at = clock.at + timedelta(milliseconds=5)
        began = time.process_time()
        for node_id, report in zip(nodes, reports, strict=True):
            made.take(node_id, report, received_at)
        spent = time.process_time() - began
        await run.keeper.write(run.nodes)
        if number:  # the first one makes all places, as a start of the controller does
            taken += spent
            everything += time.process_time() - began
    passed_seconds = (PERIODS - 1) * PERIOD.total_seconds()
    return taken / passed_seconds, everything / passed_seconds


def _report(counts: list[float], level: float, at: datetime, *, is_full: bool) -> model.NodeReport:
    metrics = [model.Metric(name, "web", count, K.COUNTER, 1) for name, count in zip(COUNTERS, counts, strict=True)]
    metrics.append(model.Metric(GAUGE, "web", float(level), K.GAUGE))
    if is_full:
        metrics += [model.Metric(name, "web", 1.0, K.COUNTER, 1) for name in STILL]
    return model.NodeReport(metrics=tuple(metrics), is_full=is_full, sent_at=at)


def _resident_bytes() -> int:
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
