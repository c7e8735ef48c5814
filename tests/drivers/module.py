"""Fixtures of the driver `module`: a component that lives in a host process, which the driver `handover` runs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from agent import drivers
from agent.core import model
from agent.drivers import conformance, handover, module
from agent.drivers.conformance import stage
from tests.drivers import programs

NAME = module.NAME
METHODS = module.METHODS
make = module.make

HOST = """
import asyncio

from instar_handover import asyncio_server, module_cell, module_host

host = module_host.ModuleHost()
greeting = host.cell("greeting")


async def on_connection(reader, writer, accepted):
    await reader.readuntil(b"\\r\\n\\r\\n")
    accepted.begin()
    try:
        status, body = "200 OK", greeting.call("greet")
    except module_cell.ModuleMissingError:
        status, body = "503 Missing", ""
    head = f"HTTP/1.1 {status}\\r\\nContent-Length: {len(body)}\\r\\nConnection: close"
    writer.write(f"{head}\\r\\n\\r\\n{body}".encode())
    await writer.drain()
    accepted.end()


asyncio.run(asyncio_server.serve(on_connection, words={"module": host.answer}))
"""
VERSION = """
import time

if "{behaviour}" == "crashes_at_start":
    raise RuntimeError("a bug")
if "{behaviour}" == "never_ready":
    time.sleep(60)
STATE_SCHEMA = {{"greeted": "int"}}
STATE_FROM = ">=1.0.0,<2.0.0"
_state = {{"greeted": 0}}


def greet():
    _state["greeted"] += 1
    return "{version} " + str(_state["greeted"])


def export_state():
    return _state


def import_state(state):
    _state.update(state)


def code_change(state, from_version):
    return state
"""


@dataclass(frozen=True)
class Hosted:
    """A module that greets."""

    name: str = "hosted"
    method: model.Method = model.Method.HOT_SWAP
    is_exclusive: bool = False
    addresses: Mapping[str, str] = field(default_factory=dict)
    address: tuple[str, int] = field(default_factory=lambda: ("127.0.0.1", programs.free_port()))
    stands: list[drivers.Rooms] = field(default_factory=list)

    def bundle(self, version: str, behaviour: conformance.Behaviour) -> conformance.Bundle | None:
        if behaviour is conformance.Behaviour.NEVER_DRAINS:
            return None
        options = model.ModuleOptions(host="host", file="greeting.py", suspend_timeout=timedelta(seconds=1))
        made = programs.manifest(version, NAME, ("python", "greeting.py"), options)
        made = replace(made, name="greeting", sockets=(), readiness=None)
        text = VERSION.format(version=version, behaviour=behaviour.value)
        return conformance.Bundle(made, {"greeting.py": text.encode()})

    async def serving(self) -> frozenset[str]:
        await self._keep_host()
        answers = [await programs.answer(self.address) for _ in range(programs.ASKED)]
        return frozenset(each for each in answers if each)

    @contextlib.asynccontextmanager
    async def around(self, rooms: drivers.Rooms) -> AsyncIterator[None]:
        self.stands.append(rooms)
        await self._keep_host()
        try:
            yield
        finally:
            self.stands.clear()

    async def _keep_host(self) -> None:
        """Bring the host up, as the node does all the time; the keeper may be another one than before."""
        rooms = replace(self.stands[-1], keeper=await stage.connect(self.stands[-1].run_dir.parent))
        manifest = replace(
            programs.manifest("1.0.0", handover.NAME, ("python", "host.py"), model.HandoverOptions()),
            name="host",
            readiness=None,
        )
        release = stage.unpack(conformance.Bundle(manifest, {"host.py": HOST.encode()}), rooms.state_dir / "releases")
        addresses = {"http": "{}:{}".format(*self.address)}
        launch = drivers.Launch("host-1", f"sha256:{release.name}", release, manifest, addresses)
        try:
            await handover.make(rooms).bring_up("host", launch)
        finally:
            await rooms.keeper.close()


def conformance_fixtures(_folder: Path) -> Sequence[conformance.Fixture]:
    return (Hosted(),)
