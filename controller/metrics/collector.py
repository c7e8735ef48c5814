"""Collects what nodes measure, and answers what it came to.

Theory of operation. Each message of a node is one reading of all that it shows: what it does not tell has not changed.
The reading counts as of the instant at which it was sent, on this clock. Until `start_collection`, and after
`stop_collection`, nothing is taken and everything is unknown; what was taken before is in the store, thinned out, and a
node that tells of itself again goes on from there.

Rules kept: taking a reading costs the same whatever is kept, and waits for nothing; missing, vanished and stale is
unknown, never zero; what cannot be written is said and tried again, and holds nobody up. Left out: judging.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from controller import clock as clocks
from controller import tasks
from controller.core import errors, model
from controller.core.analysis import samples
from controller.metrics import comparison, figures, intake, keeping, limits, recorded, shelves

# Before the first tick lies so much more than can be read again.
MARGIN = timedelta(hours=1)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Run:
    """What there is between a start and a stop."""

    interval: timedelta
    epoch: keeping.Epoch
    rows: shelves.Shelves
    taking: intake.Intake
    keeper: keeping.Keeping
    nodes: dict[model.NodeId, intake.NodeSeries] = field(default_factory=dict)
    samples: int = 0


class Collector:
    """The windows of all nodes.

    Args:
        archive: Where the thin past is stored.
        clock: What time it is.
        kept: How much is kept.
    """

    def __init__(self, archive: keeping.Archive, clock: clocks.Clock, kept: limits.Limits) -> None:
        self._archive = archive
        self._clock = clock
        self._kept = kept
        self._run: _Run | None = None
        self._guard = tasks.Guard()
        self._turn = asyncio.Lock()  # one start or stop at a time

    async def start_collection(self, interval: timedelta) -> bool:
        """Begin to take readings; say whether that is new.

        Args:
            interval: Time between two readings of a node; what is due is written as often.

        Raises:
            RefusedError: It collects already, at another interval; code ``collection_runs``.
            UnavailableError: The store cannot be written to; code ``store_unavailable``.
        """
        async with self._turn:
            if self._run is not None:
                _check_interval(self._run.interval, interval)
                return False
            run = self._begun(interval)
            try:
                await run.keeper.prune(self._clock.now() - self._kept.retention)
            except Exception as error:  # whatever a driver raises, the answer is the same
                raise _unwritable("begin to collect", error) from error
            self._run = run
            self._guard.start(self._keep(run), "series keeper")
            return True

    async def stop_collection(self) -> bool:
        """Take no more readings, and write what is not written yet; say whether any were taken before.

        Raises:
            UnavailableError: The rest could not be written; it is lost, and collection has stopped all the same.
        """
        async with self._turn:
            run, self._run = self._run, None
            if run is None:
                return False
            await self._guard.stop()
            try:
                await run.keeper.write_all(run.nodes)
            except Exception as error:  # as above
                raise _unwritable("keep the latest readings", error) from error
            return True

    def _begun(self, interval: timedelta) -> _Run:
        epoch = keeping.epoch(self._clock.now() - self._kept.past - MARGIN, self._kept)
        rows = shelves.Shelves(self._kept.extent(interval))
        return _Run(interval, epoch, rows, intake.Intake(rows), keeping.Keeping(self._archive, epoch))

    async def _keep(self, run: _Run) -> None:
        while True:
            await asyncio.sleep(run.interval.total_seconds())
            try:
                await run.keeper.write(run.nodes)
                await run.keeper.prune(self._clock.now() - self._kept.retention)
            except Exception as error:  # noqa: BLE001 whatever a driver raises, it is tried again
                _log.warning("cannot keep series: %s", error)

    def take(self, node_id: model.NodeId, report: model.NodeReport, received_at: datetime) -> None:
        """Take what a message of a node says of its series; the messages of a node come in their order.

        Args:
            node_id: Whose message.
            report: What it says.
            received_at: When it came, on this clock.
        """
        run = self._run
        if run is None:
            return
        node = run.nodes.get(node_id)
        if node is None:
            places = run.keeper.remember(node_id, received_at - self._kept.past, run.rows)
            node = run.nodes[node_id] = intake.NodeSeries(places=places)
        seconds = received_at.timestamp()
        if report.sent_at is not None:
            seconds = node.clock.corrected(report.sent_at.timestamp(), seconds)
        tick = run.epoch.tick(seconds)
        is_new = tick > node.heard_tick
        run.taking.take(node, report, tick, received_at)
        run.keeper.note(node_id, node)
        run.samples += len(node.places) * is_new

    async def forget(self, node_id: model.NodeId) -> None:
        """Forget a node, and all that is stored of it."""
        run = self._run
        if run is None:
            return
        node = run.nodes.pop(node_id, None)
        if node is not None:
            run.taking.forget(node)
        try:
            await run.keeper.forget(node_id)
        except Exception as error:  # noqa: BLE001 whatever a driver raises, what is stored goes with its age
            _log.warning("cannot forget the series of node %s: %s", node_id, error)

    def samples(  # noqa: PLR0913 each is one fact of the question
        self,
        component: model.ComponentName,
        metrics: tuple[model.JudgedMetric, ...],
        canary: Mapping[model.NodeId, datetime],
        control: Collection[model.NodeId],
        *,
        past: timedelta,
        began_at: datetime,
        at: datetime,
    ) -> dict[str, samples.Sample]:
        """Say what the judge looks at, of each metric by its name: canary nodes first, in the order given.

        Args:
            component: Whose series.
            metrics: What is compared.
            canary: Nodes that run the new version, each with the instant from which its evidence counts.
            control: Untouched nodes; their evidence counts from the earliest of those instants.
            past: How much of the time before ``began_at`` is each node's own past.
            began_at: When the first node began to change.
            at: Now.
        """
        question = comparison.Question(component, metrics, canary, control, past, began_at, at)
        run = self._run
        if run is None:
            return comparison.unknown(question)
        known = comparison.Known(run.nodes, run.epoch, self._kept, run.interval)
        return comparison.answer(question, known)

    def over(
        self,
        component: model.ComponentName,
        metrics: tuple[model.JudgedMetric, ...],
        nodes: tuple[model.NodeId, ...],
        bounds: Sequence[datetime],
    ) -> dict[str, figures.Figure]:
        """Say how each metric went over spans of time that follow each other, [node, span], by its name.

        Args:
            component: Whose series.
            metrics: What is asked for.
            nodes: Of which nodes.
            bounds: Where each span begins, and where the last one ends.
        """
        run = self._run
        if run is None:
            return {each.name: figures.unknown(len(nodes), len(bounds) - 1) for each in metrics}
        known = comparison.Known(run.nodes, run.epoch, self._kept, run.interval)
        return comparison.over(component, metrics, nodes, bounds, known)

    @property
    def period(self) -> timedelta:
        """Time between two readings of a node; nothing while it does not collect."""
        return timedelta() if self._run is None else self._run.interval

    def replay(self, component: str, since: datetime, until: datetime) -> AsyncIterator[keeping.Replayed]:
        """Tell again what all nodes told of a component, in the order of time, as far as it is stored.

        Args:
            component: Whose series; empty for the hosts.
            since: First instant.
            until: Last instant.
        """
        return (self._run or self._begun(self._kept.step)).keeper.replay(component, since, until)

    def recorded(self) -> recorded.Recorded:
        """Give what is stored, to be loaded and asked as the windows are."""
        return recorded.Recorded(self._archive, self._kept, self.period or self._kept.step)

    def recorded_since(self, component: str) -> datetime | None:
        """Tell how far back what is stored of a component reaches; None for nothing.

        Args:
            component: Whose series; empty for the hosts.
        """
        return (self._run or self._begun(self._kept.step)).keeper.oldest(component)

    @property
    def step(self) -> timedelta:
        """Time between two readings that are stored."""
        return self._kept.step

    def conditions(self, node_id: model.NodeId) -> tuple[model.Condition, ...]:
        """Say what is wrong with what a node shows."""
        run = self._run
        node = None if run is None else run.nodes.get(node_id)
        if run is None or node is None or node.capped is None or not self._is_lasting(run, node.capped):
            return ()
        return (node.capped.condition,)

    def counts(self) -> model.MetricCounts:
        """Count what is collected."""
        run = self._run
        if run is None:
            return model.MetricCounts()
        fresh = limits.STALE_PERIODS * run.interval
        fresh_from = run.epoch.tick((self._clock.now() - fresh).timestamp())
        nodes = run.nodes.values()
        return model.MetricCounts(
            is_collecting=True,
            series=run.rows.series,
            samples=run.samples,
            refused=run.taking.refused,
            fresh_nodes=sum(node.heard_tick >= fresh_from for node in nodes),
            capped_nodes=sum(node.capped is not None and self._is_lasting(run, node.capped) for node in nodes),
        )

    def _is_lasting(self, run: _Run, capped: intake.Capped) -> bool:
        """Tell whether series were refused as lately as anything is kept at full resolution."""
        return capped.latest_tick >= run.epoch.tick((self._clock.now() - self._kept.window).timestamp())


def _check_interval(runs: timedelta, wanted: timedelta) -> None:
    if runs != wanted:
        raise errors.RefusedError(
            f"cannot collect each {wanted.total_seconds():g} s: it collects each {runs.total_seconds():g} s; stop that "
            "first",
            code="collection_runs",
            field="interval",
            value=f"{wanted.total_seconds():g}s",
            rule="one interval at a time",
        )


def _unwritable(what: str, error: Exception) -> errors.UnavailableError:
    return errors.UnavailableError(
        f"cannot {what}: {error}",
        code="store_unavailable",
        field="store",
        rule="what is collected outlives the controller",
    )
