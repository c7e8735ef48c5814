"""Triggers over the small fleet: how they are written, and how nodes measure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from controller import engine
from controller.core import errors, model
from controller.store import reading
from tests.controller.engine import fleet

HEARTBEAT = timedelta(seconds=10)
HOT = model.Threshold("metrics['load'] > 5.0", component=fleet.WEB)
UPGRADE = model.Upgrade(fleet.request())
AT_ONCE = model.Guards(cooldown=timedelta(0), firings_per_hour_max=100)
BY_HAND = model.ByHand()


def trigger(
    when: model.When = BY_HAND,
    action: model.TriggerAction = UPGRADE,
    guards: model.Guards = AT_ONCE,
    name: str = "t",
    **changes: object,
) -> model.Trigger:
    made = model.Trigger(model.TriggerId(""), name, when, action, guards, is_enabled=True)
    return replace(made, **changes)  # type: ignore[arg-type]  # names and types are the test's


async def applied(controller: fleet.Controller, wanted: model.Trigger) -> model.Trigger:
    return await controller.engine.apply_trigger(wanted, actor="ann")


async def beat(machine: engine.Engine, agent: fleet.Agent, load: float | None = None) -> None:
    """One heartbeat; with a load, or one that says that nothing has changed."""
    metrics = () if load is None else (model.Metric("load", fleet.WEB, load),)
    agent.metrics = metrics or agent.metrics
    await agent.tell(machine, model.NodeReport(metrics=metrics))


async def beats(controller: fleet.Controller, agent: fleet.Agent, seconds: float, load: float | None = None) -> None:
    """Heartbeats for so long, the first of them with a load."""
    for _ in range(int(seconds / HEARTBEAT.total_seconds())):
        await beat(controller.engine, agent, load)
        load = None
        await asyncio.sleep(HEARTBEAT.total_seconds())


def firings(controller: fleet.Controller, name: str = "t") -> list[model.Firing]:
    """All of them, oldest first."""
    return list(controller.engine.firings(name, 100, only_open=False))[::-1]


def states(controller: fleet.Controller, name: str = "t") -> list[str]:
    """How they stand and why, oldest first."""
    return [f"{each.state.value} {each.reason.code}" for each in firings(controller, name)]


async def settled(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
    """Let agents do what is asked until nothing is."""
    for _ in range(50):
        await asyncio.sleep(1)
        for agent in agents:
            await agent.obey(controller.engine)


async def until(condition: Callable[[], bool], seconds: float = 600) -> None:
    """Wait in virtual time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # virtual time
            await asyncio.sleep(1)


async def refusal_of(asked: Awaitable[object]) -> str:
    """The code under which something is refused."""
    with pytest.raises(errors.InstarError, match=r"^cannot ") as caught:
        await asked
    return caught.value.code


def audit(controller: fleet.Controller, subject: str) -> list[str]:
    return [each.action for each in controller.store.read(lambda connection: reading.audit(connection, subject))]
