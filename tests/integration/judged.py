"""Real nodes under load, and the judge: releases that fail more or as many requests as the one before.

Rules kept: times are scaled by what an operator can set, and by nothing else; who fails is known to nobody but the
service's own counters, for every probe is answered well. A release of this test always fails some requests, each by
chance, so that there is something to compare; one that does harm fails more of them (`trials`).

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

from controller.cli.demo import api, bundles, fleet, process, record
from tests.integration import notes, scraping, trials, zones

HEARTBEAT_PERIOD = "1s"
SCRAPE_PERIOD = "1s"
READY_SECONDS = 90.0  # for nodes to come up on two busy cores
SETTLED_SECONDS = 1.0  # more than the past: what changed last, and is not to be a part of it, has been heard of by then
CARRIED_OUT_SECONDS = 180.0  # for a rollout, beside what the judge takes


class Source(enum.Enum):
    """Where the judge has its figures from."""

    HEARTBEATS = "heartbeats"
    PROMETHEUS = "prometheus"


@dataclass(slots=True)
class Judged:
    """What runs, and how many versions there are.

    Args:
        prometheus: The server that may be asked; None where there is none.
        requests: What became of them, once the load has begun.
    """

    house: zones.Zones
    trial: trials.Trial
    prometheus: scraping.Prometheus | None
    requests: notes.Notes
    published: int = 0

    @property
    def newest(self) -> str:
        """The version that was published last."""
        return f"1.{self.published}.0"

    async def roll_out(self, fails_percent: float, source: Source) -> Any:  # noqa: ANN401  # JSON
        """Publish the next version, roll it out behind the judge, and follow it to its end."""
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(self.publish(fails_percent))
            # The past is a part of what is compared.
            group.create_task(asyncio.sleep(self.trial.past_seconds + SETTLED_SECONDS))
        version = publishing.result()
        name = f"web-{version}"
        options = ("--canary-nodes", str(self.trial.canary), "--analysis", str(self._analysis(source)))
        await self.house.ask("upgrade", "start", "web", version, "--name", name, *options, *zones.QUICK)
        return await self.house.ended(name, self.trial.inconclusive_seconds + CARRIED_OUT_SECONDS)

    async def publish(self, fails_percent: float) -> str:
        """Publish a version that fails so many requests in a hundred."""
        self.published += 1
        source = bundles.Source(self.newest, fails_percent=fails_percent, scrape_period=SCRAPE_PERIOD)
        await self.house.controller.publish(source)
        return source.version

    def _analysis(self, source: Source) -> Path:
        file = self.house.root / f"{source.value}.json"
        named = {"source": scraping.SOURCE} if source is Source.PROMETHEUS else {}
        file.write_text(json.dumps(self.trial.analysis | named), encoding="utf-8")
        return file


@asynccontextmanager
async def up(trial: trials.Trial, *, is_scraped: bool) -> AsyncIterator[Judged]:
    """A controller and nodes that run a first version, under load.

    Args:
        is_scraped: Whether there is a Prometheus server too.
    """
    root = Path(tempfile.mkdtemp(prefix="ij-"))  # short: sockets live in it
    async with AsyncExitStack() as started:
        started.callback(shutil.rmtree, root, ignore_errors=True)
        server = scraping.Prometheus(root / "prometheus") if is_scraped else None
        controller = _controller(root / "controller", server)
        started.push_async_callback(controller.stop)
        await controller.start()
        nodes = [fleet.Node(f"n{i}", root / f"n{i}", controller) for i in range(trial.nodes)]
        house = zones.Zones(root, controller, nodes)
        if server is not None:
            started.push_async_callback(server.stop)
            await server.start(nodes)
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                started.push_async_callback(node.stop)
                group.create_task(_start(node))
        told = notes.Notes([root / node.id / "requests.tsv" for node in nodes])
        try:
            yield await _set_up(Judged(house, trial, server, told), started)
        except BaseException as error:
            error.add_note(f"--- controller\n{process.tail(root / 'controller' / 'controller.log')}")
            raise


def _controller(folder: Path, server: scraping.Prometheus | None) -> fleet.Controller:
    if server is None:
        return fleet.Controller(folder, None, HEARTBEAT_PERIOD)
    return scraping.Controller(folder, HEARTBEAT_PERIOD, server.url)


async def _start(node: fleet.Node) -> None:
    await node.enrol()
    await node.start()


async def _set_up(judged: Judged, started: AsyncExitStack) -> Judged:
    house, trial = judged.house, judged.trial

    async with house.controller.connect() as link:

        async def are_connected() -> bool:
            return sum(node.connected for node in await api.nodes(link)) == trial.nodes

        await process.until("the nodes are connected", are_connected, seconds=READY_SECONDS)
    version = await judged.publish(trial.harmless_percent)
    words = ("web", version, "--install", "--strategy", "immediate", "--name", "first", *zones.QUICK)
    await house.ask("upgrade", "start", *words)
    assert (await house.ended("first"))["state"] == "SUCCEEDED"
    # Each node has a client of its own: one for all of them would be the first to starve on a busy machine.
    for node, path in zip(house.nodes, judged.requests.paths, strict=True):
        load = await fleet.start_load([node], path.parent, requests_per_second=trial.requests_per_second)
        started.push_async_callback(load.stop)

    async def is_under_load() -> bool:
        return all(map(record.number, judged.requests.paths))

    await process.until("the first requests are answered", is_under_load, seconds=READY_SECONDS)
    judged.requests.since()  # those of the start are nobody's
    return judged
