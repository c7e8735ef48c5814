"""Asks an instance whether it is well, and reads its metrics.

Rules kept here: every question has a deadline and reads a bounded answer, so no component can hold or fill the agent;
an instance that cannot be asked is not well. `HealthWatch` counts: it is a value, and time is an argument. Left out:
when to ask (`agent.runner`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol, assert_never

from agent.config import layout
from agent.config.errors import ConfigError
from agent.core import model
from agent.probes import grpc_health, http, series
from agent.probes.http import ProbeError
from agent.probes.watch import HealthWatch

__all__ = ["Answer", "HealthWatch", "ProbeError", "Ran", "RunCommand", "ask", "scrape", "target"]

SCRAPE_TIMEOUT_SECONDS = 2.0  # under half of the default period, so that two readings never overlap
OUTPUT_CHARS_MAX = 200  # of a failed command, in the reason: its end says why


class Ran(Protocol):
    """How a command of a release ended."""

    @property
    def exit_code(self) -> int | None:
        """0 where all is well; None where a signal ended it."""
        ...

    @property
    def is_timeout(self) -> bool:
        """It was ended since it took too long."""
        ...

    @property
    def output(self) -> str:
        """The end of what it wrote."""
        ...


RunCommand = Callable[[tuple[str, ...], timedelta], Awaitable[Ran]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one asking found; ``reason`` is empty where the instance is well."""

    is_success: bool
    reason: str = ""


def target(socket: str, manifest: model.Manifest, addresses: Mapping[str, str], run_dir: Path, instance_id: str) -> str:
    """Tell the address at which an instance is asked: "unix:/path" or "host:port"; empty where there is none to ask.

    No name means the private probe socket, or the first socket where the program does not serve that.

    Raises:
        ConfigError: The node has no address for the socket.
    """
    if not socket and serves_private_socket(manifest):
        return f"{http.UNIX}{layout.probe_socket(run_dir, instance_id)}"
    name = socket or next((each.name for each in manifest.sockets), "")
    if name and name not in addresses:
        field, rule = f"sockets.{manifest.name}.{name}", "a socket that is asked has an address on this node"
        raise ConfigError(f"cannot ask {manifest.name}: {field} is missing; {rule}", field=field, rule=rule)
    return addresses[name] if name else ""


def serves_private_socket(manifest: model.Manifest) -> bool:
    """Say whether instances serve a private probe socket: programs that speak the hand-over protocol do."""
    match manifest.options:
        case model.HandoverOptions(is_listen_fds_only=is_plain):
            return not is_plain
        case model.OtherOptions():
            return not manifest.sockets
        case _:
            return False


async def ask(probe: model.Probe, address: str, run: RunCommand) -> Answer:
    """Ask an instance once at what `target` says, or by running a command of its release; any failure is an answer."""
    try:
        async with asyncio.timeout(probe.timeout.total_seconds()):
            await _check(probe, address, run)
    except TimeoutError:
        return Answer(is_success=False, reason=f"no answer within {probe.timeout.total_seconds():g} s")
    except (OSError, ProbeError) as error:
        return Answer(is_success=False, reason=str(error))
    return Answer(is_success=True)


async def scrape(source: model.MetricsSource, component: str, address: str, life: int = 0) -> tuple[model.Metric, ...]:
    """Read the series that the manifest names; a series that is not shown is absent.

    Args:
        source: Where they are.
        component: Whose they are.
        address: Where the instance listens, as `target` says.
        life: Number of its process; 0 where that is not known.

    Raises:
        ProbeError: The answer is no success, or too large, or did not come in time.
    """
    try:
        async with asyncio.timeout(SCRAPE_TIMEOUT_SECONDS), http.connection(address) as (reader, writer):
            body = await http.read_body(await http.get(source.path, reader, writer), reader)
    except TimeoutError as error:
        raise ProbeError(f"cannot read {source.path}: no answer within {SCRAPE_TIMEOUT_SECONDS:g} s") from error
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        raise ProbeError(f"cannot read {source.path}: {error}") from error
    found = series.read(body.decode(errors="replace"), source.series)
    return tuple(model.Metric(each.name, component, each.value, each.kind, life) for each in found)


async def _check(probe: model.Probe, address: str, run: RunCommand) -> None:
    match probe.check:
        case model.TcpCheck():
            async with http.connection(address):
                pass
        case model.HttpCheck(path=path):
            async with http.connection(address) as (reader, writer):
                await http.get(path, reader, writer)
        case model.GrpcCheck(service=service):
            await grpc_health.check(address, service)
        case model.ExecCheck(command=command):
            _judge(command, await run(command, probe.timeout))
        case _:
            assert_never(probe.check)


def _judge(command: tuple[str, ...], ran: Ran) -> None:
    if ran.is_timeout:
        raise ProbeError(f"cannot accept {command[0]}: it did not end in time")
    if ran.exit_code != 0:
        raise ProbeError(f"cannot accept {command[0]}: exit code {ran.exit_code}: {ran.output[-OUTPUT_CHARS_MAX:]}")
