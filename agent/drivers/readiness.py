"""When a started instance counts as ready: its probe passes, or it has lived for long enough.

Rules kept here: a dead instance is never ready; a probe may run a command of the release. Left out: the deadline,
which whoever waits puts around it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from agent import drivers, probes, processes
from agent.config import errors
from agent.core import model
from agent.drivers import instances

SETTLE_DEFAULT = timedelta(seconds=1)  # what cannot start ends within this; as the manifest's settle_duration
EXIT_BY_SIGNAL = -1  # a command that a signal ended has no exit code, and did not succeed


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command of the release ended."""

    exit_code: int
    is_timeout: bool
    output: str


async def ready(on: instances.Instances, component: str, launch: drivers.Launch, run_dir: Path) -> None:
    """Wait until the instance of a launch has started and passes its readiness probe.

    Raises:
        drivers.DriverError: It ended, or the node cannot ask it.
    """
    await on.started(launch.instance_id)
    probe = launch.manifest.readiness
    if probe is None:
        return
    address = _address(probe, launch, run_dir)

    async def run(command: tuple[str, ...], timeout: timedelta) -> Ran:  # noqa: ASYNC109  # the keeper keeps it
        return await _run(on.keeper, component, launch, command, timeout)

    while not (await probes.ask(probe, address, run)).is_success:
        await on.started(launch.instance_id)
        await asyncio.sleep(min(probe.period.total_seconds(), instances.POLL_SECONDS))
    await on.started(launch.instance_id)  # on a shared socket another instance may have answered


async def settled(on: instances.Instances, instance_id: str, duration: timedelta) -> None:
    """Wait until the present life of an instance is so old; starting takes no part in it.

    Raises:
        drivers.DriverError: It ended.
    """
    seen = await on.started(instance_id)
    until = asyncio.get_running_loop().time() + duration.total_seconds()
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(instances.POLL_SECONDS)
        now = await on.started(instance_id)
        if now.pid != seen.pid:
            message = f"cannot use {instance_id}: it ended within {duration.total_seconds():g} s and was started again"
            raise drivers.DriverError(message, fault=model.Fault.VERSION, reason="crashed_at_start")


async def ready_or_settled(
    on: instances.Instances, component: str, launch: drivers.Launch, run_dir: Path, duration: timedelta
) -> None:
    """Wait for the readiness probe, or where there is none until the instance has lived for so long."""
    if launch.manifest.readiness is None:
        await settled(on, launch.instance_id, duration)
    else:
        await ready(on, component, launch, run_dir)


def _address(probe: model.Probe, launch: drivers.Launch, run_dir: Path) -> str:
    try:
        return probes.target(probe.socket, launch.manifest, launch.addresses, run_dir, launch.instance_id)
    except errors.ConfigError as error:
        raise drivers.DriverError(str(error), fault=model.Fault.COMMAND, reason="socket_address_missing") from error


async def _run(
    keeper: processes.Keeper,
    component: str,
    launch: drivers.Launch,
    command: tuple[str, ...],
    timeout: timedelta,  # noqa: ASYNC109  # the keeper keeps it
) -> Ran:
    task = processes.Task(
        component=component,
        version=launch.manifest.version,
        digest=launch.digest,
        release_dir=launch.release_dir,
        command=command,
        timeout=timeout,
        environment=launch.manifest.environment,
        secrets=launch.manifest.secrets,
        environment_dir=launch.environment_dir,
        is_repeated=True,
    )
    end = await keeper.run(task)
    return Ran(EXIT_BY_SIGNAL if end.exit_code is None else end.exit_code, end.is_timeout, end.output)
