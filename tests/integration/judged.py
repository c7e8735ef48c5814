"""Six real nodes under load, and the judge: releases that fail more or as many requests as the one before.

Rules kept: times are scaled by what an operator can set, and by nothing else; who fails is known to nobody but the
service's own counters, for every probe is answered well. A release of this test always fails some requests, every
hundredth, so that there is something to compare; one that does harm fails every twentieth, five percent.

The arms: 2 canary and 4 untouched nodes, 40 requests a second each, 20 s of the past. So a canary that fails every
twentieth is found after some ten seconds, and five times as many errors as before are excluded after fifteen. Errors
come at even distances here, so chance moves the counts by no more than one or two: of a thousand harmless rollouts
fewer than ten would be taken back, and of as many that do harm fewer than fifty would pass.

The figures come from what the nodes report themselves, or from a Prometheus server that scrapes them.
"""

from __future__ import annotations

import asyncio
import enum
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.cli.demo import bundles, fleet, process
from tests.integration import scraping, zones

NODES = 6
CANARY = 2
REQUESTS_PER_SECOND = 240.0  # over all nodes
HARMLESS_FAILS_EVERY = 100
HARMFUL_FAILS_EVERY = 20
HEARTBEAT_PERIOD = "0.5s"
PAST_SECONDS = 20.0
READY_SECONDS = 60.0  # for nodes to come up on two busy cores
ANALYSIS = {
    "metrics": [
        {
            "name": "error rate",
            "measure": {"kind": "RATIO", "series": "web_errors_total", "per": "web_requests_total"},
            "harm_percent": 400,
        }
    ],
    "duration": "15s",
    "past": f"{PAST_SECONDS:g}s",
    "warm_up": "1s",
    "first_look": "3s",
    "inconclusive_after": "90s",
    "unknown_after": "30s",
}


class Source(enum.Enum):
    """Where the judge has its figures from."""

    HEARTBEATS = "heartbeats"
    PROMETHEUS = "prometheus"


@dataclass(slots=True)
class Judged:
    """What runs, and how many versions there are.

    Args:
        prometheus: The server that is asked; None where the nodes' own reports are.
    """

    house: zones.Zones
    prometheus: scraping.Prometheus | None
    published: int = 0

    async def roll_out(self, fails_every: int) -> Any:  # noqa: ANN401  # JSON
        """Publish the next version, roll it out behind the judge, and follow it to its end."""
        version = await self.publish(fails_every)
        await asyncio.sleep(PAST_SECONDS)  # the past is a part of what is compared
        name = f"web-{version}"
        options = ("--canary-nodes", str(CANARY), "--analysis", str(self.house.root / "analysis.json"))
        await self.house.ask("upgrade", "start", "web", version, "--name", name, *options, *zones.QUICK)
        return await self.house.ended(name)

    async def publish(self, fails_every: int) -> str:
        """Publish a version that fails every so-manieth request."""
        self.published += 1
        source = bundles.Source(f"1.{self.published}.0", fails_every=fails_every, scrape_period="0.5s")
        await self.house.controller.publish(source)
        return source.version


@asynccontextmanager
async def up(source: Source) -> AsyncIterator[Judged]:
    """A controller and nodes that run a first version, under load; where it is asked, a Prometheus server too."""
    root = Path(tempfile.mkdtemp(prefix="ij-"))  # short: sockets live in it
    async with AsyncExitStack() as started:
        started.callback(shutil.rmtree, root, ignore_errors=True)
        server = scraping.Prometheus(root / "prometheus") if source is Source.PROMETHEUS else None
        controller = _controller(root / "controller", server)
        started.push_async_callback(controller.stop)
        await controller.start()
        house = zones.Zones(root, controller, [fleet.Node(f"n{i}", root / f"n{i}", controller) for i in range(NODES)])
        if server is not None:
            started.push_async_callback(server.stop)
            await server.start(house.nodes)
        asked = ANALYSIS if server is None else ANALYSIS | {"source": scraping.SOURCE}
        (root / "analysis.json").write_text(json.dumps(asked), encoding="utf-8")
        for node in house.nodes:
            started.push_async_callback(node.stop)
            await node.enrol()
            await node.start()
        try:
            yield await _set_up(Judged(house, server), started)
        except BaseException as error:
            error.add_note(f"--- controller\n{process.tail(root / 'controller' / 'controller.log')}")
            raise


def _controller(folder: Path, server: scraping.Prometheus | None) -> fleet.Controller:
    if server is None:
        return fleet.Controller(folder, None, HEARTBEAT_PERIOD)
    return scraping.Controller(folder, HEARTBEAT_PERIOD, server.url)


async def _set_up(judged: Judged, started: AsyncExitStack) -> Judged:
    house = judged.house

    async def are_connected() -> bool:
        found = await house.ask("node", "list")
        return [node["connected"] for node in found["nodes"]].count(True) == NODES

    await process.until("the nodes are connected", are_connected, seconds=READY_SECONDS)
    version = await judged.publish(HARMLESS_FAILS_EVERY)
    words = ("web", version, "--install", "--strategy", "immediate", "--name", "first", *zones.QUICK)
    await house.ask("upgrade", "start", *words)
    assert (await house.ended("first"))["state"] == "SUCCEEDED"
    load = await fleet.start_load(house.nodes, house.root, requests_per_second=REQUESTS_PER_SECOND)
    started.push_async_callback(load.stop)
    return judged
