"""Instances that the keeper does not run: their commands, their environment, and when they are ready.

Rules kept here: a command of a release runs through the keeper, which checks the release's digest again. Left out: who
runs the instances (`exec`, `systemd`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path

from agent import drivers, probes, processes
from agent.config import errors
from agent.core import model
from agent.drivers import readiness
from agent.keeper import digest as trees
from agent.keeper import errors as keeper_errors

POLL_SECONDS = 0.05  # between two looks at an instance that is about to serve
TAIL_CHARS = 400  # of a command's output, in an error

IsAlive = Callable[[], Awaitable[bool]]


def check_addresses(launch: drivers.Launch) -> None:
    """Check that the node has an address for each socket of the manifest.

    Raises:
        drivers.DriverError: It has not.
    """
    for socket in launch.manifest.sockets:
        if socket.name not in launch.addresses:
            field = f"sockets.{launch.manifest.name}.{socket.name}"
            raise drivers.DriverError(
                f"cannot listen: {field} is missing in the node's configuration",
                fault=model.Fault.COMMAND,
                reason="socket_address_missing",
            )


async def check_digest(launch: drivers.Launch) -> None:
    """Read the whole release again, as the keeper does before it starts anything.

    Raises:
        drivers.DriverError: It is not what its digest says.
    """
    try:
        found = await asyncio.to_thread(trees.tree_digest, launch.release_dir.resolve())
    except (keeper_errors.RequestError, OSError) as error:
        message = f"cannot read {launch.release_dir}: {error}"
        raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason="release_damaged") from error
    if found != launch.digest:
        message = f"cannot start from {launch.release_dir}: its digest is {found}, not {launch.digest}"
        raise drivers.DriverError(message, fault=model.Fault.INFRASTRUCTURE, reason="release_damaged")


async def run(
    keeper: processes.Keeper,
    component: str,
    launch: drivers.Launch,
    command: tuple[str, ...],
    within: timedelta,
    environment: Mapping[str, str],
) -> processes.TaskEnd:
    """Run a command of a release to its end.

    Raises:
        drivers.DriverError: The keeper cannot run it.
    """
    task = processes.Task(
        component=component,
        version=launch.manifest.version,
        digest=launch.digest,
        release_dir=launch.release_dir,
        command=command,
        timeout=within,
        environment={**launch.manifest.environment, **environment},
        secrets=launch.manifest.secrets,
        environment_dir=launch.environment_dir,
    )
    try:
        return await keeper.run(task)
    except processes.KeeperError as error:
        fault = model.Fault.VERSION if error.code == "command_outside" else model.Fault.INFRASTRUCTURE
        raise drivers.DriverError(error.message, fault=fault, reason=error.code) from error


async def ready(
    keeper: processes.Keeper, component: str, launch: drivers.Launch, run_dir: Path, is_alive: IsAlive
) -> None:
    """Wait until a living instance passes its readiness probe, for as long as the manifest gives it.

    Raises:
        drivers.DriverError: It ended, or does not pass in time.
    """
    limit = launch.manifest.prepare_timeout
    try:
        async with asyncio.timeout(limit.total_seconds()):
            while not await _is_ready(keeper, component, launch, run_dir):
                if not await is_alive():
                    message = f"cannot use {launch.instance_id}: it ended before it was ready"
                    raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="crashed_at_start")
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        message = f"cannot use {launch.instance_id}: not ready within {limit.total_seconds():g} s"
        raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="never_ready") from error


def tail(output: str) -> str:
    """The end of what a command printed, on one line."""
    return " | ".join(output[-TAIL_CHARS:].split("\n")).strip(" |")


async def _is_ready(keeper: processes.Keeper, component: str, launch: drivers.Launch, run_dir: Path) -> bool:
    probe = launch.manifest.readiness
    if probe is None:
        return True
    try:
        address = probes.target(probe.socket, launch.manifest, launch.addresses, run_dir, launch.instance_id)
    except errors.ConfigError as error:
        raise drivers.DriverError(str(error), fault=model.Fault.COMMAND, reason="socket_address_missing") from error

    async def execute(command: tuple[str, ...], within: timedelta) -> readiness.Ran:
        end = await run(keeper, component, launch, command, within, {})
        code = readiness.EXIT_BY_SIGNAL if end.exit_code is None else end.exit_code
        return readiness.Ran(code, end.is_timeout, end.output)

    return (await probes.ask(probe, address, execute)).is_success
