"""Nodes that report, on a clock that stands where a test puts it, to a collector over a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from controller.core import model
from controller.metrics import collector, limits
from controller.store import database, executor

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
PERIOD = timedelta(seconds=10)
WEB = model.ComponentName("web")
COUNTER, GAUGE = model.SeriesKind.COUNTER, model.SeriesKind.GAUGE


class Clock:
    """Stands still."""

    def __init__(self) -> None:
        self.at = EPOCH

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - EPOCH).total_seconds()


def metric(name: str, value: float, *, component: str = "web", life: int = 1) -> model.Metric:
    kind = GAUGE if name.startswith("load") else COUNTER
    return model.Metric(name, component, value, kind, life if kind is COUNTER else 0)


def report(
    values: Mapping[str, float], *, sent_at: datetime | None = None, life: int = 1, **facts: object
) -> model.NodeReport:
    metrics = tuple(metric(name, value, life=life) for name, value in values.items())
    return model.NodeReport(metrics=metrics, sent_at=sent_at, **facts)  # type: ignore[arg-type]  # names are the test's


class Fleet:
    """A collector, and nodes that tell it of themselves."""

    def __init__(self, store: database.Store, clock: Clock, kept: limits.Limits) -> None:
        self.clock = clock
        self.collector = collector.Collector(store, clock, kept)
        self.told: dict[str, dict[str, float]] = {}

    def tell(self, node: str, values: Mapping[str, float], **facts: object) -> None:
        """Let a node tell this, now, on a clock that is right."""
        facts = {"sent_at": self.clock.at, **facts}
        self.collector.take(model.NodeId(node), report(values, **facts), self.clock.at)  # type: ignore[arg-type]  # as above

    def live(self, periods: int, rates: Mapping[str, Mapping[str, float]]) -> None:
        """Let nodes serve on: each counter grows by so much each period, each gauge stands where it is said."""
        for _ in range(periods):
            self.clock.at += PERIOD
            for node, each in rates.items():
                known = self.told.setdefault(node, {})
                for name, rate in each.items():
                    known[name] = rate if name.startswith("load") else known.get(name, 0.0) + rate
                self.tell(node, {name: known[name] for name in each})

    def sample(self, measure: model.Measure, canary: Mapping[str, datetime], control: tuple[str, ...], **span: object):  # type: ignore[no-untyped-def]  # noqa: ANN201 a Sample
        """Ask for one figure."""
        facts = {"past": timedelta(minutes=10), "began_at": self.clock.at, "at": self.clock.at, **span}
        nodes = {model.NodeId(name): at for name, at in canary.items()}
        others = tuple(map(model.NodeId, control))
        metrics = (model.JudgedMetric("figure", measure),)
        return self.collector.samples(WEB, metrics, nodes, others, **facts)["figure"]  # type: ignore[arg-type]  # as above


@asynccontextmanager
async def collecting(
    path: Path | None = None, kept: limits.Limits | None = None, at: datetime = EPOCH
) -> AsyncIterator[Fleet]:
    """A collector that runs, and stops at the end."""
    store, clock = database.Store(path, executor.InlineExecutor()), Clock()
    clock.at = at
    fleet = Fleet(store, clock, kept or limits.Limits())
    await fleet.collector.start_collection(PERIOD)
    try:
        yield fleet
    finally:
        await fleet.collector.stop_collection()
        store.close()
