"""A heartbeat touches only the triggers that read what it changes, or whose condition holds already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from controller import conditions
from controller.core import model
from tests.controller.engine import firing, fleet

NOTIFY = model.Notify()


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, float]]:
    """What conditions were given, look by look; the looks are real."""
    seen: list[Mapping[str, float]] = []
    really = conditions.prepare

    def prepare(node: model.Node, metrics: Mapping[str, float]) -> conditions.Prepared:
        seen.append(metrics)
        return really(node, metrics)

    monkeypatch.setattr(conditions, "prepare", prepare)
    return seen


def host(**values: float) -> model.NodeReport:
    return model.NodeReport(metrics=tuple(model.Metric(name, "", value) for name, value in values.items()))


def test_what_nobody_reads_is_looked_at_by_nobody(tmp_path: Path, prepared: list[Mapping[str, float]]) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine, agent = controller.engine, agents[0]
        await agent.tell(machine, host(load=1.0, swap=1.0, other=1.0))
        for name in ("load", "swap"):
            await firing.applied(
                controller, firing.trigger(model.Threshold(f"metrics['{name}'] > 5.0"), NOTIFY, name=name)
            )
        prepared.clear()
        await agent.tell(machine, host(other=2.0))
        assert prepared == []
        await agent.tell(machine, host(load=2.0, other=3.0))
        assert prepared == [{"load": 2.0}]
        await agent.tell(machine, host(load=3.0, swap=3.0))
        assert prepared[1:] == [{"load": 3.0, "swap": 3.0}], "a node is said once for all that look at it"
        await agent.tell(machine, model.NodeReport(gone_metrics=(("swap", ""),)))
        assert prepared[2:] == [{}]
        await agent.tell(machine, host(load=9.0))
        prepared.clear()
        await agent.tell(machine, host(other=4.0))
        assert prepared == [{"load": 9.0}], "where it holds time passes for it with each heartbeat"

    fleet.told(tmp_path, tale)


def test_what_cannot_be_told_beforehand_is_looked_at_with_each_heartbeat(
    tmp_path: Path, prepared: list[Mapping[str, float]]
) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine, agent = controller.engine, agents[0]
        await agent.tell(machine, host(load=1.0))
        every = model.Threshold("metrics.exists(name, metrics[name] > 5.0)")
        await firing.applied(controller, firing.trigger(every, NOTIFY))
        prepared.clear()
        await agent.tell(machine, host(new=1.0))
        assert prepared == [{"load": 1.0, "new": 1.0}]
        await agent.tell(machine, host(new=9.0))
        assert firing.states(controller) == ["SUCCEEDED reported"]

    fleet.told(tmp_path, tale)


def test_labels_and_components_are_looked_at_when_they_change(
    tmp_path: Path, prepared: list[Mapping[str, float]]
) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine, agent = controller.engine, agents[0]
        old = model.Threshold("node.components['web'].version == '1.1.0'")
        await firing.applied(controller, firing.trigger(old, NOTIFY))
        prepared.clear()
        await agent.tell(machine, host(load=1.0))
        assert prepared == []
        agent.version = "1.1.0"
        await agent.tell(machine, model.NodeReport(components=(fleet.installed("1.1.0"),)))
        assert [each.cause.node_ids for each in firing.firings(controller)] == [("n1",)]

    fleet.told(tmp_path, tale)


def test_the_metrics_of_the_component_go_before_those_of_the_host(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        both = (model.Metric("load", "", 9.0), model.Metric("load", fleet.WEB, 1.0), model.Metric("swap", "", 9.0))
        await agents[0].tell(machine, model.NodeReport(metrics=both))
        await firing.applied(controller, firing.trigger(firing.HOT, NOTIFY))
        of_host = replace(firing.HOT, condition="metrics['swap'] > 5.0")
        await firing.applied(controller, firing.trigger(of_host, NOTIFY, name="swap"))
        assert firing.states(controller) == []
        assert firing.states(controller, "swap") == ["SUCCEEDED reported"]

    fleet.told(tmp_path, tale)
