"""Fixtures of the driver `systemd`: a program that takes its socket from PID 1, under a real systemd."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent import drivers
from agent.core import model
from agent.drivers import conformance
from agent.drivers import systemd as driver
from agent.drivers.systemd import systemctl
from tests.drivers import programs, sources, systemd_container

NAME = driver.NAME
METHODS = driver.METHODS
_edges: dict[Path, systemctl.Systemctl] = {}  # the systemd that stands around each check, by its state directory


def make(rooms: drivers.Rooms) -> drivers.Driver:
    return driver.Systemd(rooms, _edges[rooms.state_dir])


@dataclass(frozen=True)
class Unit(programs.Web):
    """A program on one socket, with a systemd around it."""

    @contextlib.asynccontextmanager
    async def around(self, rooms: drivers.Rooms) -> AsyncIterator[None]:
        async with systemd_container.booted() as edge:
            _edges[rooms.state_dir] = edge
            try:
                yield
            finally:
                del _edges[rooms.state_dir]


def conformance_fixtures(_folder: Path) -> Sequence[conformance.Fixture]:
    if systemd_container.missing():
        return ()
    return tuple(
        Unit(
            method.value.lower(),
            NAME,
            method,
            ("python", "app.py"),
            lambda _version, _behaviour: {"app.py": sources.LISTEN_FDS_SERVICE.encode()},
            model.SystemdOptions(),
            is_exclusive=method is model.Method.RESTART,
        )
        for method in (model.Method.RESTART, model.Method.HOT_SWAP)
    )
