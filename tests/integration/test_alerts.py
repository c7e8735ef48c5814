"""An alert of a real Prometheus server starts a rollout on real nodes, once, and what it heals ends the alert."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.cli.demo import bundles, fleet, process
from tests.integration import alerting, scraping, zones

NODES = 2
REQUESTS_PER_SECOND = 40.0  # over all nodes
HEARTBEAT_PERIOD = "0.5s"
WAIT_SECONDS = 90.0
BROKEN = bundles.Source("1.0.0", fails_every=10)
MENDED = bundles.Source("1.1.0")
TRIGGERS = """\
[[triggers]]
name = "mend"
kind = "event"
enabled = true
when.event = { type = "alertmanager.firing", filter = "event.data.labels.alertname == 'WebFails'" }
guards.cooldown = "0s"
[triggers.action.upgrade]
component = "web"
target_version = "1.1.0"
strategy = "rolling"
policy = { soak_duration = "0.2s", min_healthy_duration = "0.5s" }

[[triggers]]
name = "over"
kind = "event"
enabled = true
when.event = { type = "alertmanager.resolved" }
action.notify.message = "it is well again"
"""
needed = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("prometheus-alertmanager")),
    reason="no prometheus and no prometheus-alertmanager are installed",
)


@dataclass(frozen=True, slots=True)
class Alerted:
    """What runs."""

    house: zones.Zones
    alertmanager: alerting.Alertmanager

    async def firings(self, trigger: str) -> Any:  # noqa: ANN401  # JSON
        return (await self.house.ask("trigger", "firings", trigger))["firings"]

    async def until(self, what: str, trigger: str, states: set[str]) -> None:
        """Wait until the newest firing of a trigger is in a state."""

        async def is_so() -> bool:
            found = await self.firings(trigger)
            return bool(found) and found[0]["state"] in states

        await process.until(what, is_so, seconds=WAIT_SECONDS)


@asynccontextmanager
async def up() -> AsyncIterator[Alerted]:
    """A controller, two nodes that run what fails requests, under load, and who notices that."""
    root = Path(tempfile.mkdtemp(prefix="ia-"))  # short: sockets live in it
    async with AsyncExitStack() as started:
        started.callback(shutil.rmtree, root, ignore_errors=True)
        controller = alerting.Controller(root / "controller", HEARTBEAT_PERIOD)
        started.push_async_callback(controller.stop)
        await controller.start()
        house = zones.Zones(root, controller, [fleet.Node(f"n{i}", root / f"n{i}", controller) for i in range(NODES)])
        for node in house.nodes:
            started.push_async_callback(node.stop)
            await node.enrol()
            await node.start()
        try:
            yield await _set_up(house, controller, started)
        except BaseException as error:
            for log in ("controller/controller.log", "alertmanager/alertmanager.log", "prometheus/prometheus.log"):
                error.add_note(f"--- {log}\n{process.tail(root / log)}")
            raise


async def _set_up(house: zones.Zones, controller: alerting.Controller, started: AsyncExitStack) -> Alerted:
    async def are_connected() -> bool:
        found = await house.ask("node", "list")
        return [node["connected"] for node in found["nodes"]].count(True) == NODES

    await process.until("the nodes are connected", are_connected, seconds=WAIT_SECONDS)
    for source in (BROKEN, MENDED):
        await controller.publish(source)
    words = ("web", BROKEN.version, "--install", "--strategy", "immediate", "--name", "first", *zones.QUICK)
    await house.ask("upgrade", "start", *words)
    assert (await house.ended("first"))["state"] == "SUCCEEDED"
    (house.root / "triggers.toml").write_text(TRIGGERS, encoding="utf-8")
    await house.ask("trigger", "apply", "-f", str(house.root / "triggers.toml"))
    alertmanager = alerting.Alertmanager(house.root / "alertmanager")
    started.push_async_callback(alertmanager.stop)
    await alertmanager.start(controller)
    prometheus = scraping.Prometheus(house.root / "prometheus")
    started.push_async_callback(prometheus.stop)
    await prometheus.start(house.nodes, alertmanager.asked())
    load = await fleet.start_load(house.nodes, house.root, requests_per_second=REQUESTS_PER_SECOND)
    started.push_async_callback(load.stop)
    return Alerted(house, alertmanager)


@needed
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_an_alert_starts_the_rollout_that_ends_it_and_is_told_once_however_often_it_is_repeated() -> None:
    async with up() as alerted:
        await alerted.until("the rollout has ended", "mend", {"SUCCEEDED", "FAILED", "DROPPED"})
        [mended] = await alerted.firings("mend")
        assert mended["state"] == "SUCCEEDED", mended
        assert mended["cause"]["event_source"] == "alertmanager/instar"
        rollout = await alerted.house.rollout(mended["rollout_id"])
        assert (rollout["state"], rollout["actor"]) == ("SUCCEEDED", "trigger:mend")
        await alerted.house.runs(MENDED.version, nodes=NODES)
        await alerted.until("the alert is over", "over", {"SUCCEEDED"})
        assert await alerted.alertmanager.notified() > 2
        assert len(await alerted.firings("mend")) == 1
