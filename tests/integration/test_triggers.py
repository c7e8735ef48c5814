"""A trigger of each kind changes a real service on real nodes.

Only the command line is used. The versions fail every fiftieth request, but for one that fails every third, which is
what a figure departs from its past by.
"""

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
from tests.integration import zones

NODES = 2
REQUESTS_PER_SECOND = 60.0  # over all nodes
HEARTBEAT_PERIOD = "0.5s"
WAIT_SECONDS = 90.0
FAILS_EVERY, HARMFUL_FAILS_EVERY = 50, 3
VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0")
HARMFUL = "1.5.0"
ENDS = frozenset({"SUCCEEDED", "FAILED", "DROPPED"})
UPGRADE = """\
[triggers.action.upgrade]
component = "web"
target_version = "{version}"
strategy = "immediate"
policy = {{ soak_duration = "0.2s", min_healthy_duration = "0.5s" }}
"""
BUSY = 'threshold = { component = "web", condition = "metrics[\'web_requests_total\'] > 100.0", pending_for = "1s" }'
WORSE = """degradation = { component = "web", worse_percent = 300, clear_percent = 100, window = "5s", past = "60s", \
pending_for = "0s", least_exposure = 50, \
measure = { kind = "RATIO", series = "web_errors_total", per = "web_requests_total" } }"""


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs."""

    house: zones.Zones

    async def apply(self, name: str, when: str, action: str, guards: str = "") -> None:
        """Apply a trigger, enabled; without a guard that is named it acts at once."""
        cooldown = "" if "cooldown" in guards else 'cooldown = "0s"\n'
        head = f'[[triggers]]\nname = "{name}"\nenabled = true\nwhen.{when}\n'
        text = f"{head}{action}\n[triggers.guards]\n{cooldown}{guards}\n"
        file = self.house.root / f"{name}.toml"
        file.write_text(text, encoding="utf-8")
        await self.house.ask("trigger", "apply", "-f", str(file))

    async def firings(self, name: str) -> Any:  # noqa: ANN401  # JSON
        """Those of a trigger, newest first."""
        return (await self.house.ask("trigger", "firings", name))["firings"]

    async def first(self, name: str, states: frozenset[str] = ENDS) -> Any:  # noqa: ANN401  # JSON
        """Wait until the first firing of a trigger is in one of some states."""

        async def is_so() -> bool:
            found = await self.firings(name)
            return bool(found) and found[-1]["state"] in states

        await process.until(f"trigger {name} has fired", is_so, seconds=WAIT_SECONDS)
        return (await self.firings(name))[-1]

    async def leads_to(self, name: str, version: str) -> Any:  # noqa: ANN401  # JSON
        """Wait until a trigger has brought all nodes to a version, by a rollout of its own."""
        fired = await self.first(name)
        assert fired["state"] == "SUCCEEDED", fired
        rollout = await self.house.rollout(fired["rollout_id"])
        assert (rollout["state"], rollout["actor"]) == ("SUCCEEDED", f"trigger:{name}")
        await self.house.runs(version, nodes=NODES)
        return fired

    async def fire(self, name: str) -> str:
        """Fire a trigger by hand; why it stands where it then does."""
        fired = await self.house.ask("trigger", "fire", name, "--reason", "drill")
        return str(fired["reason"])


@asynccontextmanager
async def up() -> AsyncIterator[Stage]:
    """A controller, and two nodes under load that run the first version."""
    root = Path(tempfile.mkdtemp(prefix="iq-"))  # short: sockets live in it
    async with AsyncExitStack() as started:
        started.callback(shutil.rmtree, root, ignore_errors=True)
        controller = fleet.Controller(root / "controller", None, HEARTBEAT_PERIOD)
        started.push_async_callback(controller.stop)
        await controller.start()
        house = zones.Zones(root, controller, [fleet.Node(f"n{i}", root / f"n{i}", controller) for i in range(NODES)])
        for node in house.nodes:
            started.push_async_callback(node.stop)
            await node.enrol()
            await node.start()
        try:
            yield await _set_up(house, started)
        except BaseException as error:
            error.add_note(f"--- controller\n{process.tail(root / 'controller' / 'controller.log')}")
            raise


async def _set_up(house: zones.Zones, started: AsyncExitStack) -> Stage:
    async def are_connected() -> bool:
        found = await house.ask("node", "list")
        return [node.get("connected") for node in found.get("nodes", [])].count(True) == NODES

    await process.until("the nodes are connected", are_connected, seconds=WAIT_SECONDS)
    for version in (*VERSIONS, HARMFUL):
        fails_every = HARMFUL_FAILS_EVERY if version == HARMFUL else FAILS_EVERY
        await house.controller.publish(bundles.Source(version, fails_every=fails_every, scrape_period="0.5s"))
    words = ("web", VERSIONS[0], "--install", "--strategy", "immediate", "--name", "first", *zones.QUICK)
    await house.ask("upgrade", "start", *words)
    assert (await house.ended("first"))["state"] == "SUCCEEDED"
    load = await fleet.start_load(house.nodes, house.root, requests_per_second=REQUESTS_PER_SECOND)
    started.push_async_callback(load.stop)
    return Stage(house)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_trigger_of_each_kind_starts_a_rollout_of_a_real_service() -> None:
    async with up() as stage:
        house = stage.house
        await stage.apply("threshold", BUSY, UPGRADE.format(version="1.1.0"))
        fired = await stage.leads_to("threshold", "1.1.0")
        assert set(fired["cause"]["node_ids"]) <= {"n0", "n1"}
        await house.ask("trigger", "disable", "threshold", "--reason", "seen")

        await stage.apply(
            "schedule", 'schedule.cron = "*/3 * * * * *"', UPGRADE.format(version="1.2.0"), 'cooldown = "1h"'
        )
        await stage.leads_to("schedule", "1.2.0")
        await house.ask("trigger", "disable", "schedule", "--reason", "seen")

        await stage.apply("event", 'event = { type = "build.*" }', UPGRADE.format(version="1.3.0"))
        for _ in range(2):  # the second time it is known already
            await house.ask("event", "send", "--source", "//ci", "--type", "build.done", "--id", "7")
        await stage.leads_to("event", "1.3.0")
        assert len(await stage.firings("event")) == 1

        found = 'version_available = { component = "web", channel = "stable" }'
        await stage.apply("version-available", found, UPGRADE.format(version=""))
        await house.ask("release", "promote", "web", "1.4.0", "stable")
        await stage.leads_to("version-available", "1.4.0")

        await stage.apply("degradation", WORSE, '[triggers.action.rollback]\ncomponent = "web"\n')
        await stage.apply("manual", "by_hand = {}", UPGRADE.format(version=HARMFUL))
        assert await stage.fire("manual") == "acting"
        brought = await stage.first("manual")
        back = await stage.first("degradation")
        assert (back["state"], back["rollout_id"]) == ("SUCCEEDED", brought["rollout_id"]), back
        assert (await house.rollout(back["rollout_id"]))["state"] == "REVERTED"
        await house.runs("1.4.0", nodes=NODES)
