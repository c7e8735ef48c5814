"""What an agent and its keeper cost the host that they look after.

A real controller with a heartbeat of 10 s, over TLS 1.3, and one node with a certificate of its own that trusts signed
releases alone: without components (``bare``), then with two, each probed every 5 s and scraped (200 lines). Resident
memory is the highest that was sampled; processor time is that of the agent and the keeper together over the whole
window, of one core. The bounds are those of G12.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
from google.protobuf import duration_pb2

from controller.cli import connection
from controller.cli.demo import api, fleet, ports, process
from instar.v1 import rollout_pb2
from tests.bench import result
from tests.integration import stage

HEARTBEAT_PERIOD = "10s"
COMPONENTS = ("alpha", "beta")
METRIC_LINES = 200  # what one scrape reads; ten of the series are reported
SERIES_REPORTED = 10
SETTLE_SECONDS = 10.0  # after something was begun, before a window begins
WINDOW_SECONDS = 60.0  # six heartbeats and twelve probes of each component
SAMPLE_SECONDS = 1.0
WAIT_SECONDS = 60.0
MIB = 1024 * 1024
BOUNDS = {"agent_mib_max": 45, "keeper_mib_max": 16, "core_percent_max": 0.5}  # G12

_SERVICE = """\
import asyncio
from instar_handover import asyncio_server

METRICS = "".join(f"series_{number} {number}.5\\n" for number in range(%d))

async def attend(reader, writer, client):
    is_last = False
    while not is_last:
        head = await reader.readuntil(b"\\r\\n\\r\\n")
        client.begin()
        body = METRICS if b"/metrics" in head else "well\\n"
        is_last = client.should_close or b"connection: close" in head.lower()
        word = "close" if is_last else "keep-alive"
        head = f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\nConnection: {word}\\r\\n\\r\\n"
        writer.write((head + body).encode())
        await writer.drain()
        client.end()

asyncio.run(asyncio_server.serve(attend))
"""
_MANIFEST = """\
name = "%s"
version = "1.0.0"
driver = "handover"
command = ["python", "service.py"]

[[sockets]]
name = "http"

[health]
http = { path = "/healthz" }
period = "5s"

[metrics]
path = "/metrics"
series = [%s]
period = "5s"
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process: resident bytes and seconds of processor time so far."""

    resident_bytes: int
    processor_seconds: float


def measure() -> result.Result:
    """Run the load and measure."""
    root = Path(tempfile.mkdtemp(prefix="bench-"))  # short: sockets live in it
    try:
        return asyncio.run(_measure(root))
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def _measure(root: Path) -> result.Result:
    async with AsyncExitStack() as started:
        controller, node = await _set_up(root, started)
        link = await started.enter_async_context(controller.connect())
        await process.until("the node is connected", lambda: _is_connected(link), seconds=WAIT_SECONDS)
        bare, _ = await _window(node)
        for component in COMPONENTS:
            await _publish(component, root, controller)
            await _install(component, link)
        figures, samples = await _window(node)
    without = {f"bare_{name}": value for name, value in bare.items()}
    return result.Result("agent_footprint", figures["agent_mib"], "MiB", samples, {**figures, **without, **BOUNDS})


async def _window(node: fleet.Node) -> tuple[dict[str, float], int]:
    """Look at a node for a while; returns the figures, and of how many looks they are."""
    await asyncio.sleep(SETTLE_SECONDS)
    agent_pid = stage.agent_pid(node)
    if agent_pid is None:
        raise process.ProcessError("cannot measure: the agent does not run")
    agent, keeper = psutil.Process(agent_pid), psutil.Process(node.keeper.pid)
    began_seconds = time.monotonic()
    samples = [(_sample(agent), _sample(keeper))]
    while time.monotonic() - began_seconds < WINDOW_SECONDS:
        await asyncio.sleep(SAMPLE_SECONDS)
        samples.append((_sample(agent), _sample(keeper)))
    return _figures(samples, time.monotonic() - began_seconds), len(samples)


def _figures(samples: list[tuple[Sample, Sample]], window_seconds: float) -> dict[str, float]:
    agent_mib, keeper_mib = (round(max(pair[which].resident_bytes for pair in samples) / MIB, 2) for which in (0, 1))
    spent = sum(samples[-1][which].processor_seconds - samples[0][which].processor_seconds for which in (0, 1))
    core_percent = round(100 * spent / window_seconds, 3)
    return {"agent_mib": agent_mib, "keeper_mib": keeper_mib, "core_percent": core_percent}


def _sample(of: psutil.Process) -> Sample:
    with of.oneshot():
        times = of.cpu_times()
        return Sample(of.memory_info().rss, times.user + times.system)


async def _set_up(root: Path, started: AsyncExitStack) -> tuple[fleet.Controller, fleet.Node]:
    controller = fleet.Controller(root / "controller", None, HEARTBEAT_PERIOD, has_tls=True)
    started.push_async_callback(controller.stop)
    await controller.start()
    node = fleet.Node("bench", root / "n", controller)
    await node.enrol()
    with node.config_file.open("a", encoding="utf-8") as config:
        for component, port in zip(COMPONENTS, ports.free(len(COMPONENTS)), strict=True):
            config.write(f'[sockets.{component}]\nhttp = "{ports.HOST}:{port}"\n')
    started.push_async_callback(node.stop)
    await node.start()
    return controller, node


async def _is_connected(link: connection.Connection) -> bool:
    return any(node.connected for node in await api.nodes(link))


async def _publish(component: str, root: Path, controller: fleet.Controller) -> None:
    tree = root / component
    tree.mkdir()
    series = ", ".join(f'"series_{number}"' for number in range(SERIES_REPORTED))
    (tree / "instar.toml").write_text(_MANIFEST % (component, series), encoding="utf-8")
    (tree / "service.py").write_text(_SERVICE % METRIC_LINES, encoding="utf-8")
    await controller.instar("release", "build", str(tree), "-o", str(root / f"{component}.tar"))
    await controller.publish_bundle(root / f"{component}.tar")


async def _install(component: str, link: connection.Connection) -> None:
    min_healthy = duration_pb2.Duration()
    min_healthy.FromTimedelta(timedelta(seconds=1))
    request = rollout_pb2.UpgradeRequest(
        component=component,
        target_version="1.0.0",
        strategy=rollout_pb2.STRATEGY_IMMEDIATE,
        install=True,
        policy=rollout_pb2.Policy(min_healthy_duration=min_healthy),
    )
    accepted = await api.start(link, request, request_id=component)
    async with asyncio.timeout(WAIT_SECONDS):
        states = [rollout async for rollout in api.watch(link, accepted.rollout_id)]
    if states[-1].state != rollout_pb2.ROLLOUT_STATE_SUCCEEDED:
        raise process.ProcessError(f"cannot measure: {component} was not installed: {states[-1].message}")
