"""What nodes measure, through the engine: taken with each report, counted, and said where it is too much."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import numpy as np

from controller.core import model
from tests.controller.engine import fleet

PERIOD = timedelta(seconds=10)
RATE = (model.JudgedMetric("rate", model.Measure(model.MeasureKind.RATE, "requests_total")),)


def served(count: float, skew: timedelta = timedelta(), **facts: object) -> model.NodeReport:
    metric = model.Metric("requests_total", "web", count, model.SeriesKind.COUNTER, 1)
    sent_at = fleet.LoopClock().now() + skew
    return model.NodeReport(metrics=(metric,), sent_at=sent_at, **facts)  # type: ignore[arg-type]  # names are the test's


def test_each_report_is_a_reading_of_its_node_whatever_its_clock_says(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.collector.start_collection(PERIOD)
        for number in range(60):
            await agents[0].tell(machine, served(100.0 * number, timedelta(hours=3)))
            await agents[1].tell(machine, served(50.0 * number))
            await asyncio.sleep(10)
        now = fleet.LoopClock().now()
        canary, control = {agents[0].node_id: now - timedelta(minutes=2)}, (agents[1].node_id, agents[2].node_id)
        began_at = now - timedelta(minutes=2)
        found = machine.collector.samples(
            fleet.WEB, RATE, canary, control, past=timedelta(minutes=5), began_at=began_at, at=now
        )["rate"]
        assert (found.before / found.before_exposure)[:2].tolist() == [10.0, 5.0]
        assert np.isnan(found.before).tolist() == [False, False, True]
        assert (found.after / found.after_exposure)[:2].tolist() == [10.0, 5.0]
        counts = machine.statistics().metrics
        assert (counts.series, counts.samples, counts.fresh_nodes) == (2, 120, 2)
        await machine.remove_node(agents[0].node_id, reason="gone", actor="ann")
        assert machine.statistics().metrics.series == 1
        await machine.collector.stop_collection()

    fleet.told(tmp_path, tale)


def test_a_hello_and_a_full_report_say_what_is_shown_no_longer(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.collector.start_collection(PERIOD)
        await agents[0].tell(machine, served(5.0))
        assert [each.name for each in machine.metrics(agents[0].node_id)] == ["requests_total"]
        await agents[0].tell(machine, model.NodeReport(gone_metrics=(("requests_total", "web"),)))
        assert machine.metrics(agents[0].node_id) == ()
        await agents[0].tell(machine, served(6.0))
        await agents[0].tell(machine, model.NodeReport(is_full=True))
        assert machine.metrics(agents[0].node_id) == ()
        await agents[0].tell(machine, model.NodeReport(metrics=(model.Metric("load", "", float("nan")),)))
        assert machine.metrics(agents[0].node_id) == ()
        await machine.collector.stop_collection()

    fleet.told(tmp_path, tale)


def test_a_node_with_too_many_series_says_so_where_people_look(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.collector.start_collection(PERIOD)
        many = tuple(model.Metric(f"x{number}", "web", 1.0) for number in range(1_000))
        await agents[0].tell(machine, model.NodeReport(metrics=many))
        assert [each.code for each in machine.node(agents[0].node_id).conditions] == ["metrics_capped"]
        assert "metrics_capped" in [each.code for each in machine.explain_node(agents[0].node_id)]
        assert [bool(each.conditions) for each in machine.nodes()] == [True, False, False]
        started = await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        assert "metrics_capped" in [each.code for each in machine.explain_node(agents[0].node_id)]
        assert machine.rollout(started.id).state is model.RolloutState.RUNNING  # it stands in nobody's way
        assert machine.statistics().metrics.capped_nodes == 1
        await machine.collector.stop_collection()

    fleet.told(tmp_path, tale)


def test_a_large_past_survives_the_controller(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.collector.start_collection(PERIOD)
        for number in range(200):
            await agents[0].tell(machine, served(100.0 * number))
            await asyncio.sleep(10)
        await machine.collector._guard.stop()  # it dies: what was not written is lost, ten minutes at most
        machine = await controller.restart()
        await machine.collector.start_collection(PERIOD)
        await agents[0].connect(machine)
        now = fleet.LoopClock().now()
        for number in range(200, 203):
            await agents[0].tell(machine, served(100.0 * number))
            await asyncio.sleep(10)
        asked = {"past": timedelta(minutes=30), "began_at": now, "at": now + 2 * PERIOD}
        found = machine.collector.samples(fleet.WEB, RATE, {agents[0].node_id: now}, (), **asked)["rate"]  # type: ignore[arg-type]  # as named
        assert found.after.tolist() == [200.0]
        whole = {**asked, "began_at": now + 2 * PERIOD}
        known = machine.collector.samples(fleet.WEB, RATE, {agents[0].node_id: now}, (), **whole)["rate"]  # type: ignore[arg-type]  # as named
        assert known.before_exposure[0] > 1_500
        assert known.before[0] / known.before_exposure[0] == 10.0
        await machine.collector.stop_collection()

    fleet.told(tmp_path, tale)
