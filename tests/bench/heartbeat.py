"""What a heartbeat costs the controller, in time of the processor: with TLS and authorisation, and without.

A real controller is a process of its own; agents of this process hold one stream each, and send their heartbeats one
after another as fast as every third is acknowledged, which means durable. Measured is the controller's own time from
the first heartbeat to the last acknowledgement, by the heartbeat; what it takes to connect and open the streams stands
apart. Both kinds run in pairs, in turns, each on a store of its own; the ratio is the median of seven.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from grpc import aio

from controller.cli.demo import ports
from controller.rpc import principals, register
from instar.v1 import agent_service_pb2, agent_service_pb2_grpc
from tests.bench import result
from tests.security import house, nodes

AGENTS = 40
BEATS = 151  # of each: the first is acknowledged at once, then every third
ACKNOWLEDGED_EACH = 3
PAIRS = 7
INSTAR = str(Path(sysconfig.get_path("scripts")) / "instar")
_Request = agent_service_pb2.ConnectRequest


@dataclass(frozen=True)
class Cost:
    """Of one run, by heartbeat and by stream, in microseconds of the processor; and heartbeats a second."""

    beat_us: float
    stream_us: float
    per_second: float


def measure() -> result.Result:
    """Without TLS alone."""
    costs = [asyncio.run(_plain()) for _ in range(PAIRS)]
    beat_us = statistics.median(each.beat_us for each in costs)
    per_second = statistics.median(each.per_second for each in costs)
    return result.Result("heartbeat", round(beat_us, 1), "us", PAIRS, {"per_second": round(per_second)})


def measure_tls() -> result.Result:
    """With TLS and authorisation, over the same without."""
    pairs: list[tuple[Cost, Cost]] = []
    for number in range(PAIRS):
        if number % 2:
            secured = asyncio.run(_secured())
            pairs.append((secured, asyncio.run(_plain())))
        else:
            plain = asyncio.run(_plain())
            pairs.append((asyncio.run(_secured()), plain))
    ours, floor = ([pair[side] for pair in pairs] for side in (0, 1))
    figures = {
        "floor": round(statistics.median(each.beat_us for each in floor), 1),
        "ratio": round(statistics.median(one.beat_us / other.beat_us for one, other in pairs), 3),
        "ratios": sorted(round(one.beat_us / other.beat_us, 3) for one, other in pairs),
        "per_second": round(statistics.median(each.per_second for each in ours)),
        "stream_us": round(statistics.median(each.stream_us for each in ours)),
        "floor_stream_us": round(statistics.median(each.stream_us for each in floor)),
    }
    beat_us = round(statistics.median(each.beat_us for each in ours), 1)
    return result.Result("heartbeat", beat_us, "us", PAIRS, figures)


async def _plain() -> Cost:
    with tempfile.TemporaryDirectory(prefix="in-") as name:
        folder = Path(name)
        enrolled = register.Register(folder / "state" / "tokens" / "principals")
        tokens = [
            enrolled.make_token(principals.Principal(principals.Kind.AGENT, f"n-{number}")) for number in range(AGENTS)
        ]
        async with _controller(folder / "state", "") as (process, address):
            channels = [aio.insecure_channel(address, options=_OPTIONS) for _ in tokens]
            shown = [(("authorization", f"Bearer {token.reveal()}"),) for token in tokens]
            return await _cost(process, channels, shown)


async def _secured() -> Cost:
    with tempfile.TemporaryDirectory(prefix="in-") as name:
        (port,) = ports.free(1)
        home = house.House(Path(name), enrol_listen=f"127.0.0.1:{port}")
        async with _controller(home.state_dir, f'[tls]\nenrol_listen = "127.0.0.1:{port}"\n') as (process, address):
            home.address = address
            hosts = [nodes.Host(home, f"n-{number}") for number in range(AGENTS)]
            for host in hosts:
                await host.enrol(await nodes.token(home, host.node_id))
            roots = home.roots
            channels = [
                aio.secure_channel(
                    address,
                    grpc.ssl_channel_credentials(roots, host.pair.key, host.pair.certificate),
                    options=_OPTIONS,
                )
                for host in hosts
            ]
            return await _cost(process, channels, [() for _ in hosts])


_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


@contextlib.asynccontextmanager
async def _controller(state_dir: Path, config: str) -> AsyncIterator[tuple[psutil.Process, str]]:
    file = state_dir.parent / "controller.toml"
    file.write_text(config, encoding="utf-8")
    words = ("controller", "serve", "--listen", "127.0.0.1:0", "--state-dir", str(state_dir), "--config", str(file))
    child = await asyncio.create_subprocess_exec(
        INSTAR, *words, "-o", "json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert child.stdout is not None
    try:
        said = json.loads(await child.stdout.readuntil(b"}\n"))
        yield psutil.Process(child.pid), said["listen"]
    finally:
        child.terminate()
        await child.wait()


async def _cost(
    process: psutil.Process, channels: Sequence[aio.Channel], shown: Sequence[tuple[tuple[str, str], ...]]
) -> Cost:
    loop, begun = asyncio.get_running_loop(), _busy_seconds(process)
    calls = [
        await _open(channel, f"n-{number}", metadata)
        for number, (channel, metadata) in enumerate(zip(channels, shown, strict=True))
    ]
    opened, at_seconds = _busy_seconds(process), loop.time()
    await asyncio.gather(*(_beat(call) for call in calls))
    busy_seconds, took_seconds = _busy_seconds(process) - opened, loop.time() - at_seconds
    for call, channel in zip(calls, channels, strict=True):
        call.cancel()
        await channel.close()
    beats = AGENTS * BEATS
    return Cost(busy_seconds / beats * 1e6, (opened - begun) / AGENTS * 1e6, beats / took_seconds)


async def _open(
    channel: aio.Channel, node_id: str, metadata: tuple[tuple[str, str], ...]
) -> aio.StreamStreamCall[_Request, agent_service_pb2.ConnectResponse]:
    call = agent_service_pb2_grpc.AgentServiceStub(channel).Connect(metadata=metadata)
    hello = agent_service_pb2.Hello(
        node_id=node_id, boot_id="boot", instance_token=node_id, protocol_versions=[1], agent_version="0.1.0"
    )
    await call.write(_Request(sequence=1, hello=hello))
    await call.read()
    return call


async def _beat(call: aio.StreamStreamCall[_Request, agent_service_pb2.ConnectResponse]) -> None:
    for sequence in range(2, BEATS + 2):
        beat = agent_service_pb2.Heartbeat()
        beat.send_time.GetCurrentTime()
        beat.report.metrics.add(name="system.cpu.utilization", value=sequence / 1000)
        await call.write(_Request(sequence=sequence, heartbeat=beat))
        if (sequence - 2) % ACKNOWLEDGED_EACH == 0:
            await _acknowledged(call, sequence)


async def _acknowledged(call: aio.StreamStreamCall[_Request, agent_service_pb2.ConnectResponse], sequence: int) -> None:
    while True:
        said = await call.read()
        assert isinstance(said, agent_service_pb2.ConnectResponse), "the stream has ended"
        if said.acknowledgement.sequence >= sequence:
            return


def _busy_seconds(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)
