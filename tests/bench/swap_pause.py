"""What a hot swap costs those who ask: the slowest hundredth of requests from activate to drained, and failures.

A handler of 5 ms with eight at a time; an open loop at half of what saturates it, half new connections, half kept ones.
Twenty swaps, each with a window of the same length before it in which nothing happens (A/A); then swaps under a
saturating load, and swaps that abort: crash at start, never ready, failing probe. In the same run gunicorn and uvicorn
change their workers by HUP and a plain server is restarted, under the same load.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.agent import live_node
from tests.agent.keeper import node as keeper_node
from tests.bench import result

SWAPS = 20
SATURATED_SWAPS = 5
ABORTS = ("crash at start", "never ready", "failing probe")
ABORTED_SWAPS = 10
PEER_CHANGES = 5
CLIENTS = 16  # that saturate it
SATURATE_SECONDS = 3.0
PEER_WINDOW_SECONDS = 2.0  # after a peer was told to change: its slow requests fall into it
SETTLE_SECONDS = 1.0
PAUSE_SECONDS = 0.3  # between two swaps
PERCENTILE = 0.99
SERVICE = b"""\
import asyncio, os
from instar_handover import asyncio_server

ROOM = asyncio.Semaphore(8)
MODE = os.environ.get("MODE", "")

async def attend(reader, writer, client):
    is_last = False
    while not is_last:
        head = await reader.readuntil(b"\\r\\n\\r\\n")
        client.begin()
        status = "200 OK"
        if client.is_probe:
            status = "503 Unwell" if MODE == "failing probe" else status
        else:
            async with ROOM:
                await asyncio.sleep(0.005)
        is_last = client.should_close or b"connection: close" in head.lower()
        word = "close" if is_last else "keep-alive"
        writer.write(f"HTTP/1.1 {status}\\r\\nContent-Length: 2\\r\\nConnection: {word}\\r\\n\\r\\nok".encode())
        await writer.drain()
        client.end()

async def prepare():
    if MODE == "never ready":
        await asyncio.sleep(3600)

if MODE == "crash at start":
    raise SystemExit(1)
asyncio.run(asyncio_server.serve(attend, prepare=prepare))
"""
PEER_APPLICATION = """\
import asyncio, threading, time

ROOM = threading.Semaphore(8)
HEADERS = [("Content-Length", "2")]

def wsgi(environ, start_response):
    with ROOM:
        time.sleep(0.005)
    start_response("200 OK", HEADERS)
    return [b"ok"]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    await asyncio.sleep(0.005)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""

Samples = Sequence[tuple[float, float, str]]


@dataclass(frozen=True, slots=True)
class Window:
    """A span of monotonic time."""

    start_seconds: float
    end_seconds: float

    def of(self, samples: Samples) -> list[float]:
        """Latencies of the requests that were under way in it, in seconds."""
        return [took for due, took, _ in samples if due < self.end_seconds and due + took > self.start_seconds]


@dataclass(slots=True)
class Load:
    """A load that runs; `samples` are there when it has ended."""

    samples: Samples = ()

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return sum(bool(why) for _, _, why in self.samples)


def measure() -> result.Result:
    """Run the swaps, the aborts and the peers."""
    return asyncio.run(_measure())


async def _measure() -> result.Result:
    async with live_node.running() as node:
        (node.root / "deaf").unlink()
        digests = {version: node.bundle(version, service=SERVICE) for version in ("1.0.0", "1.1.0")}
        await _change(node, "1.0.0", digests["1.0.0"], "", "COMMITTED")
        rate = await _saturation_per_second(node.address) / 2
        async with load(node.address, rate=rate) as steady:
            await asyncio.sleep(SETTLE_SECONDS)
            swaps = [await _swap(node, digests, number) for number in range(SWAPS)]
        async with load(node.address, clients=CLIENTS) as saturating:
            await asyncio.sleep(SETTLE_SECONDS)
            for number in range(SATURATED_SWAPS + SATURATED_SWAPS % 2):
                await _swap(node, digests, number)
        async with load(node.address, rate=rate) as aborting:
            for number in range(ABORTED_SWAPS):
                await _abort(node, digests, ABORTS[number % len(ABORTS)])
    peers = await _measure_peers(rate)
    return _result(swaps, (steady, saturating, aborting), peers, rate)


@dataclass(frozen=True, slots=True)
class Swap:
    """One swap: its own window, one as long before it, and how long the switch took."""

    before: Window
    during: Window
    switch_seconds: float


async def _swap(node: live_node.LiveNode, digests: dict[str, str], number: int) -> Swap:
    old, new = ("1.0.0", "1.1.0") if number % 2 == 0 else ("1.1.0", "1.0.0")
    began = time.monotonic()
    steps = await _change(node, new, digests[new], digests[old], "PERMANENT")
    offset = time.monotonic() - time.time()  # noqa: TID251  # steps are stamped by the wall clock
    start, end = (offset + _stamp(steps, step, key) for step, key in (("SWITCH", "started_at"), ("DRAIN", "ended_at")))
    switch_seconds = _stamp(steps, "SWITCH", "ended_at") - _stamp(steps, "SWITCH", "started_at")
    await asyncio.sleep(PAUSE_SECONDS)
    return Swap(Window(began - (end - start), began), Window(start, end), switch_seconds)


def _stamp(steps: Sequence[dict[str, Any]], step: str, key: str) -> float:
    found = next(each for each in steps if each["step"] == step)
    return datetime.fromisoformat(found[key]).timestamp()


async def _change(
    node: live_node.LiveNode, version: str, digest: str, old: str, until: str
) -> Sequence[dict[str, Any]]:
    """Change the node; returns the operation's steps."""
    (node.root / "deaf").touch()
    operation_id = node.assign(
        version, digest, old, soak_duration=timedelta(seconds=0.3), min_healthy_duration=timedelta(seconds=0.3)
    )
    await node.until(lambda: node.status(operation_id)["state"] in {until, "PERMANENT", "ABORTED", "REFUSED"})
    await node.until(lambda: any(_is_drain(each, operation_id) for each in node.told()["report"]["steps"]))
    told = node.told()["report"]
    ended = next(each for each in told["operations"] if each["operation_id"] == operation_id)
    if ended["state"] not in {until, "PERMANENT"}:
        raise AssertionError(f"cannot measure: the swap ended in {ended}")
    (node.root / "deaf").unlink()
    return [each for each in told["steps"] if each["operation_id"] == operation_id]


def _is_drain(step: dict[str, Any], operation_id: str) -> bool:
    return (step["step"], step["operation_id"]) == ("DRAIN", operation_id)


async def _abort(node: live_node.LiveNode, digests: dict[str, str], mode: str) -> None:
    bad = node.bundle("1.2.0", {"MODE": mode}, SERVICE, prepare_timeout="1s")
    (node.root / "deaf").touch()
    operation_id = node.assign("1.2.0", bad, digests["1.0.0"], soak_duration=timedelta(seconds=5))
    await node.until_state(operation_id, "ABORTED")
    (node.root / "deaf").unlink()
    await asyncio.sleep(PAUSE_SECONDS)


@contextlib.asynccontextmanager
async def load(address: tuple[str, int], *, rate: float = 0.0, clients: int = 0) -> AsyncIterator[Load]:
    """Put a load on an address while the block runs."""
    command = [sys.executable, "-m", "tests.bench.load", f"{address[0]}:{address[1]}"]
    command += ["--rate", str(rate)] if rate else ["--clients", str(clients)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    made = Load()
    try:
        yield made
    finally:
        out, _ = await process.communicate(b"")  # the end of its input ends it
        made.samples = [tuple(each) for each in json.loads(out)]


async def _saturation_per_second(address: tuple[str, int]) -> float:
    """Requests that a closed loop gets answered in a second."""
    async with load(address, clients=CLIENTS) as seen:
        await asyncio.sleep(SATURATE_SECONDS)
    times = [due + took for due, took, why in seen.samples if not why]
    return len(times) / (max(times) - min(times))


# Peers.


async def _measure_peers(rate: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="in-") as folder:
        root = Path(folder)
        (root / "peer.py").write_text(PEER_APPLICATION)
        return {
            "gunicorn_hup": await _measure_peer(root, rate, _gunicorn, _hang_up),
            "uvicorn_hup": await _measure_peer(root, rate, _uvicorn, _hang_up),
            "plain_restart": await _measure_peer(root, rate, _plain, None),
        }


def _gunicorn(port: int) -> list[str]:
    return [
        "gunicorn",
        "-b",
        f"127.0.0.1:{port}",
        "-k",
        "gthread",
        "--threads",
        "16",
        "--keep-alive",
        "30",
        "peer:wsgi",
    ]


def _uvicorn(port: int) -> list[str]:
    return ["uvicorn", "--port", str(port), "--workers", "2", "--log-level", "error", "peer:asgi"]


def _plain(port: int) -> list[str]:
    return ["uvicorn", "--port", str(port), "--log-level", "error", "peer:asgi"]


def _hang_up(process: asyncio.subprocess.Process) -> None:
    os.kill(process.pid, signal.SIGHUP)


async def _measure_peer(
    root: Path,
    rate: float,
    command_for: Callable[[int], list[str]],
    change: Callable[[asyncio.subprocess.Process], None] | None,
) -> dict[str, float]:
    """Change a peer a few times under the load; without a way to change it is stopped and started again."""
    port = keeper_node.free_port()
    process = await _start(root, command_for(port), port)
    windows = []
    try:
        async with load(("127.0.0.1", port), rate=rate) as seen:
            await asyncio.sleep(SETTLE_SECONDS)
            for _ in range(PEER_CHANGES):
                began = time.monotonic()
                if change is not None:
                    change(process)
                else:
                    await _end(process)
                    process = await _start(root, command_for(port), port)
                await asyncio.sleep(PEER_WINDOW_SECONDS)
                windows.append(Window(began, began + PEER_WINDOW_SECONDS))
    finally:
        await _end(process)
    pooled = [took for window in windows for took in window.of(seen.samples)]
    return {"failed": seen.failed, "total": len(seen.samples), "p99_ms": _percentile_ms(pooled)}


async def _start(root: Path, command: list[str], port: int) -> asyncio.subprocess.Process:
    quiet = asyncio.subprocess.DEVNULL
    program = str(Path(sys.executable).with_name(command[0]))
    process = await asyncio.create_subprocess_exec(
        program, *command[1:], cwd=root, stdout=quiet, stderr=quiet, start_new_session=True
    )
    async with asyncio.timeout(live_node.PATIENCE_SECONDS):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return process
            await asyncio.sleep(0.01)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(live_node.PATIENCE_SECONDS):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


# Figures.


def _result(swaps: Sequence[Swap], loads: tuple[Load, Load, Load], peers: dict[str, Any], rate: float) -> result.Result:
    steady, saturating, aborting = loads
    during = [took for swap in swaps for took in swap.during.of(steady.samples)]
    before = [took for swap in swaps for took in swap.before.of(steady.samples)]
    ours_ms, floor_ms = _percentile_ms(during), _percentile_ms(before)
    figures = {
        "floor": floor_ms,
        "ratio": round(ours_ms / floor_ms, 3),
        "failed": sum(each.failed for each in loads),
        "total": sum(len(each.samples) for each in loads),
        "switch_ms": round(1000 * statistics.median(swap.switch_seconds for swap in swaps), 2),
        "switch_max_ms": round(1000 * max(swap.switch_seconds for swap in swaps), 2),
        "failed_saturated": saturating.failed,
        "failed_aborted": aborting.failed,
        "rate_per_second": round(rate, 1),
        "peers": peers,
    }
    return result.Result("swap_pause", ours_ms, "ms", len(swaps), figures)


def _percentile_ms(seconds: Sequence[float]) -> float:
    ordered = sorted(seconds)
    return round(1000 * ordered[min(len(ordered) - 1, int(len(ordered) * PERCENTILE))], 2)
