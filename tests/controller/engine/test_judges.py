"""Canary waves that are judged by what their nodes measure, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from controller import engine
from controller.core import errors, judging, model
from controller.core.analysis import samples
from controller.engine import courses, judges
from controller.metrics import prometheus
from controller.store import database, executor, reading
from tests.controller.engine import fleet

S = model.RolloutState
F = model.Finding
NODES, CANARY = 8, 2
PERIOD_SECONDS = 10
REQUESTS = 400  # of a node in a period
MINUTE = timedelta(minutes=1)
ANALYSIS = model.Analysis(
    metrics=(
        model.JudgedMetric(
            "error rate", model.Measure(model.MeasureKind.RATIO, "errors", "requests"), harm_percent=300
        ),
    ),
    past=10 * MINUTE,
    duration=3 * MINUTE,
    inconclusive_after=20 * MINUTE,
    unknown_after=2 * MINUTE,
)


def judged(**changes: object) -> model.UpgradeRequest:
    analysis = replace(ANALYSIS, **changes)  # type: ignore[arg-type]  # names and types are the test's
    return fleet.request(strategy=model.Strategy.CANARY, parameters=model.CanaryParameters(CANARY, analysis))


class Counting:
    """A node whose service counts what it answers, and what of that fails."""

    def __init__(self, agent: fleet.Agent, bad_errors: int) -> None:
        self.agent = agent
        self._bad_errors = bad_errors
        self._requests = self._errors = 0

    async def beat(self, machine: engine.Engine) -> None:
        """Tell what was counted in a period."""
        self._requests += REQUESTS
        self._errors += self._bad_errors if self.agent.version == "1.1.0" else 4
        told = [("requests", self._requests), ("errors", self._errors)]
        metrics = [model.Metric(name, fleet.WEB, float(value), model.SeriesKind.COUNTER, 1) for name, value in told]
        await self.agent.tell(machine, model.NodeReport(metrics=tuple(metrics)))
        await self.agent.obey(machine)


Tale = Callable[[fleet.Controller, Sequence[Counting]], Any]


def told(tmp_path: Path, tale: Tale, bad_errors: int = 4) -> None:
    async def story() -> None:
        controller = fleet.Controller(tmp_path / "store")
        agents = await fleet.upgraded_fleet(controller, nodes=NODES)
        await collect(controller.engine)
        nodes = [Counting(agent, bad_errors) for agent in agents]
        await beats(controller.engine, nodes, 60)
        await tale(controller, nodes)
        await controller.stop()

    fleet.in_virtual_time(story)


async def collect(machine: engine.Engine) -> None:
    await machine.collector.start_collection(timedelta(seconds=PERIOD_SECONDS))


async def beats(machine: engine.Engine, nodes: Sequence[Counting], count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(PERIOD_SECONDS)
        for node in nodes:
            await node.beat(machine)


async def start(machine: engine.Engine, **changes: object) -> None:
    await machine.start_upgrade(judged(**changes), request_id="one", actor="ann")


def record(machine: engine.Engine) -> model.Judging:
    found = machine.rollout("up").judging
    assert found is not None
    return found


def audited(controller: fleet.Controller, action: str) -> list[str]:
    subject = controller.engine.rollout("up").id
    entries = controller.store.read(lambda connection: reading.audit(connection, subject))
    return [each.reason for each in entries if each.action == action]


def test_what_fails_more_requests_is_taken_back_and_remembered(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, nodes: Sequence[Counting]) -> None:
        machine = controller.engine
        await start(machine)
        await beats(machine, nodes, 40)
        found = machine.rollout("up")
        assert (found.state, found.reason, found.wave) == (S.REVERTED, "analysis_worse", 1)
        assert record(machine).decided is not None
        assert [each.agent.version for each in nodes] == ["1.0.0"] * NODES
        left = [node.id for node in machine.nodes() if fleet.DIGESTS["1.1.0"] in node.bad_digests]
        assert len(left) == CANARY
        assert any("WORSE" in each for each in audited(controller, "rollout.judged"))
        assert len(audited(controller, "rollout.judgement_over")) == 1
        journal = controller.store.read(lambda connection: reading.journal(connection, found.id))
        first = fleet.replayed(found, journal)
        assert first.judging == found.judging
        times = [each.at for each in machine.courses("up").courses[0].points]
        changed_at, decided_at = record(machine).began_at, cast("datetime", record(machine).decided_at)
        assert times.index(changed_at) + 1 == courses.SPANS_BEFORE_MIN  # no span lies on both sides of the change
        assert len([each for each in times if each > decided_at]) >= courses.SPANS_BEHIND_MIN

    told(tmp_path, tale, bad_errors=40)


def test_an_absence_of_the_controller_counts_for_nothing_and_passes_nothing(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, nodes: Sequence[Counting]) -> None:
        await start(controller.engine)
        await beats(controller.engine, nodes, 6)
        before = record(controller.engine)
        await controller.crash()
        await asyncio.sleep(100)
        machine = await controller.start()
        await collect(machine)
        for node in nodes:
            await node.agent.connect(machine)
        await beats(machine, nodes, 3)
        assert record(machine).began_at == before.began_at
        assert record(machine).stopped_for >= timedelta(seconds=100)
        assert (machine.rollout("up").state, machine.rollout("up").wave) == (S.RUNNING, 1)

    told(tmp_path, tale)


def test_a_harmless_version_passes_and_its_course_is_shown(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, nodes: Sequence[Counting]) -> None:
        machine = controller.engine
        with pytest.raises(errors.NotFoundError):
            machine.courses("up")
        await start(machine)
        with pytest.raises(errors.RefusedError, match="none of its waves is judged"):
            machine.courses("up")
        await beats(machine, nodes, 40)
        assert machine.rollout("up").state is S.SUCCEEDED
        decided = record(machine).decided
        assert decided is not None
        assert decided.finding is F.NO_WORSE
        shown = machine.courses("up")
        assert (len(shown.canary_nodes), shown.control_nodes) == (CANARY, NODES - CANARY)
        points = [each for each in shown.courses[0].points if each.canary is not None and each.control is not None]
        assert points
        assert {round(cast("float", each.control), 3) for each in points} == {0.01}

    told(tmp_path, tale)


def test_without_figures_it_is_held_and_somebody_promotes_it(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, nodes: Sequence[Counting]) -> None:
        machine = controller.engine
        measure = model.Measure(model.MeasureKind.RATIO, "nobody_reports_this", "requests")
        await start(machine, metrics=(model.JudgedMetric("lost", measure),))
        await beats(machine, nodes, 30)
        assert record(machine).doubt is F.UNKNOWN
        assert machine.rollout("up").wave == 1
        await machine.promote(machine.rollout("up").id, reason="it is well", actor="ann")
        assert record(machine).decided_by == "ann"
        await beats(machine, nodes, 3)
        assert machine.rollout("up").state is S.SUCCEEDED
        assert audited(controller, "rollout.doubt") == ["held: UNKNOWN"]

    told(tmp_path, tale)


def test_a_plan_says_what_is_compared_and_what_will_be_found(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, nodes: Sequence[Counting]) -> None:
        del nodes
        found = (await controller.engine.plan(judged())).forecast
        assert found is not None
        assert (len(found.canary_nodes), found.control_total) == (CANARY, NODES - CANARY)
        assert set(found.canary_nodes).isdisjoint(found.control_nodes)
        assert found.powers[0].found_within is not None
        assert found.basis.startswith("reckoned from what nodes have measured")

    told(tmp_path, tale)


class Server:
    """A Prometheus server that gives no answer, or an odd one."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.asked = 0

    async def samples(self, *_: object, **_question: object) -> Mapping[str, samples.Sample]:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return {}

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("is_known", [True, False])
def test_no_fault_of_a_source_ends_the_looking(tmp_path: Path, *, is_known: bool) -> None:
    server = Server()
    down = errors.SourceError(
        "cannot ask main: it is down", code="down", source="main", blame=errors.Blame.SOURCE, is_retryable=True
    )
    server.fault = down if is_known else RuntimeError("a fault that nobody thought of")

    async def story() -> None:
        store = database.Store(tmp_path / "store", executor.InlineExecutor())
        servers = {"main": cast("prometheus.Prometheus", server)}
        machine = engine.Engine(store, fleet.LoopClock(), fleet.CountedIds(), servers=servers)
        await machine.start()
        for version in fleet.VERSIONS:
            await machine.publish(fleet.release(version))
        nodes = [Counting(fleet.Agent(f"n{number}"), 4) for number in range(NODES)]
        for node in nodes:
            await node.agent.connect(machine)
        await start(machine, source="main")
        await beats(machine, nodes, 5)
        assert server.asked >= 3
        if is_known:
            latest = record(machine).latest
            assert latest is not None
            assert latest.message.endswith("cannot ask main: it is down")
        await machine.stop()
        store.close()

    fleet.in_virtual_time(story)


def test_control_nodes_run_what_the_canary_left_and_nothing_changes_on_them(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, nodes: Sequence[Counting]) -> None:
        machine = controller.engine
        await start(machine)
        canary = {each.node_id for each in machine.rollout("up").plan.waves[0].changes}
        others = sorted(node.agent.node_id for node in nodes if node.agent.node_id not in canary)
        await machine.cordon_node(others[0], reason="it", actor="ann")
        await next(node for node in nodes if node.agent.node_id == others[1]).agent.disconnect(machine)
        await beats(machine, [node for node in nodes if node.agent.node_id != others[1]], 2)
        world, found = machine._desk.world, machine.rollout("up")
        case = judging.case(found, fleet.LoopClock().now())
        assert case is not None
        assert sorted(judges.control(world, found, case)) == others[2:]

    told(tmp_path, tale)


def test_what_is_no_number_is_not_stored() -> None:
    evidence = model.Evidence(
        "m", F.EARLY, model.Comparison.NODES, 1, 1, float("nan"), 1.0, float("inf"), 0.5, None, 0.2, 0.01, 0, ""
    )
    at = datetime(2026, 1, 1, tzinfo=fleet.EPOCH.tzinfo)
    found = judges._storable(model.Judgement(at, MINUTE, 1, F.EARLY, (evidence,), ""))
    assert found.evidence[0] == replace(evidence, canary_value=None, lift=None)
    assert np.isfinite(found.evidence[0].control_value or np.nan)
