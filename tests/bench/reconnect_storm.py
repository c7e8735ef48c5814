"""A controller is killed with a thousand agents on it, and started again at once: until when are all of them back, and
how fast does the API answer meanwhile?

The controller is a process of its own with a store on disk; the agents are the agent's own links, each on its own
connection, in two further processes; whoever uses the API is this process: an open loop of reads and orders, from the
moment when the controller answers again until all agents are back. The time of a call counts from when it was due; one
that is turned away is asked again when it was told to, one that fails at once, and their time goes on.
Figures are of one storm.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from grpc import aio

from controller.cli.demo import ports
from controller.config import settings
from controller.rpc import errors as rpc_errors
from controller.rpc import principals, register
from instar.v1 import (
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
)
from tests.bench import result

AGENTS = 1_000
PROCESSES = 2
CALLS_PER_SECOND = 20.0
CALLS_MIN = 100  # also where everybody is back sooner
BACK_BAR_SECONDS = 30.0
API_BAR_MS = 500.0
GIVE_UP_SECONDS = 240.0
AGAIN_SECONDS = 0.1  # after a call that nobody has answered
INSTAR = str(Path(sysconfig.get_path("scripts")) / "instar")
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 1000))
_Call = Callable[[], Awaitable[object]]


@dataclass
class Herd:
    """The agents' processes, and how many sessions each has open."""

    children: list[asyncio.subprocess.Process] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self, number: int) -> None:
        """Follow what one of the processes says."""
        reader = self.children[number].stdout
        assert reader is not None
        while line := await reader.readline():
            self.open[number] = int(line)
            self.changed.set()

    async def until(self, count: int) -> float:
        """Wait until so many are open; when that was seen, by the monotonic clock."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while sum(self.open) != count:
                self.changed.clear()
                await self.changed.wait()
        return time.monotonic()


@dataclass
class Asked:
    """How the calls went."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    is_over: bool = False


def measure() -> result.Result:
    """One storm."""
    return asyncio.run(_measured())


async def _measured() -> result.Result:
    with tempfile.TemporaryDirectory(prefix="in-") as name:
        state_dir = Path(name) / "state"
        enrolled = register.Register(state_dir / "tokens" / "principals")
        lines = [
            f"n-{number} {enrolled.make_token(principals.Principal(principals.Kind.AGENT, f'n-{number}')).reveal()}"
            for number in range(AGENTS)
        ]
        (port,) = ports.free(1)
        address = f"127.0.0.1:{port}"
        controller = await _controller(state_dir, address)
        try:
            async with _herd(address, lines) as herd:
                await herd.until(AGENTS)
                killed_at = time.monotonic()
                controller.kill()
                await controller.wait()
                controller = await _controller(state_dir, address)
                answers_at = time.monotonic()
                token = settings.operator_token_file(state_dir).read_text(encoding="utf-8").strip()
                asked = Asked()
                async with asyncio.TaskGroup() as group:
                    group.create_task(_ask(address, token, asked))
                    await herd.until(0) if sum(herd.open) == AGENTS else None
                    back_at = await herd.until(AGENTS)
                    asked.is_over = True
        finally:
            controller.terminate()
            await controller.wait()
    p99_ms = 1000 * sorted(asked.seconds)[int(0.99 * (len(asked.seconds) - 1))]
    figures = {
        "bar": BACK_BAR_SECONDS,
        "away_seconds": round(answers_at - killed_at, 2),
        "since_it_answers_seconds": round(back_at - answers_at, 2),
        "api_p99_ms": round(p99_ms, 1),
        "api_bar_ms": API_BAR_MS,
        "api_p50_ms": round(1000 * sorted(asked.seconds)[len(asked.seconds) // 2], 1),
        "api_max_ms": round(1000 * max(asked.seconds), 1),
        "api_calls": len(asked.seconds),
        "api_turned_away": asked.refused,
        "api_failed": asked.failed,
    }
    return result.Result("reconnect_storm", round(back_at - killed_at, 2), "s", AGENTS, figures)


async def _controller(state_dir: Path, address: str) -> asyncio.subprocess.Process:
    words = ("controller", "serve", "--listen", address, "--state-dir", str(state_dir), "-o", "json")
    child = await asyncio.create_subprocess_exec(
        INSTAR, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert child.stdout is not None
    json.loads(await child.stdout.readuntil(b"}\n"))
    return child


@contextlib.asynccontextmanager
async def _herd(address: str, lines: list[str]) -> AsyncIterator[Herd]:
    herd = Herd()
    async with asyncio.TaskGroup() as group:
        try:
            for number in range(PROCESSES):
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "tests.bench.herd", address),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                )
                herd.children.append(child)
                herd.open.append(0)
                assert child.stdin is not None
                child.stdin.write("\n".join(lines[number::PROCESSES]).encode())
                child.stdin.close()
                group.create_task(herd.listen(number))
            yield herd
        finally:
            for child in herd.children:
                child.kill()
                await child.wait()


async def _ask(address: str, token: str, asked: Asked) -> None:
    """Ask at a steady rate, however late the answers are."""
    shown = (("authorization", f"Bearer {token}"),)
    async with aio.insecure_channel(address, options=_OPTIONS) as channel, asyncio.TaskGroup() as group:
        calls = _calls(channel, shown)
        began, count = time.monotonic(), 0
        while not asked.is_over or count < CALLS_MIN:
            due = began + count / CALLS_PER_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(_timed(calls[count % len(calls)], due, asked))
            count += 1


async def _timed(call: _Call, due: float, asked: Asked) -> None:
    while True:
        try:
            await call()
        except aio.AioRpcError as failure:
            wait = rpc_errors.retry_after(failure)
            asked.refused += bool(wait)
            asked.failed += not wait
            await asyncio.sleep(wait.total_seconds() or AGAIN_SECONDS)
            continue
        asked.seconds.append(time.monotonic() - due)
        return


def _calls(channel: aio.Channel, shown: tuple[tuple[str, str], ...]) -> list[_Call]:
    """What users of the API ask: the whole fleet twice a second, one node, figures, rollouts, and to store an order."""
    nodes = fleet_service_pb2_grpc.FleetServiceStub(channel)
    rollouts = rollout_service_pb2_grpc.RolloutServiceStub(channel)
    label = fleet_service_pb2.LabelNodeRequest(node_id="n-0", labels={"zone": "a"})
    small: list[_Call] = [
        lambda: nodes.GetNode(fleet_service_pb2.GetNodeRequest(node_id="n-1"), metadata=shown),
        lambda: nodes.GetStatistics(fleet_service_pb2.GetStatisticsRequest(), metadata=shown),
        lambda: rollouts.ListRollouts(rollout_service_pb2.ListRolloutsRequest(), metadata=shown),
        lambda: nodes.LabelNode(label, metadata=shown),
    ]
    whole: list[_Call] = [lambda: nodes.ListNodes(fleet_service_pb2.ListNodesRequest(), metadata=shown)]
    return [*whole, *small, *small, small[0]]
