"""Fixtures of the driver `exec`: commands that tell a service manager of somebody else what to do."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent import drivers
from agent.config import manifest
from agent.core import model
from agent.drivers import conformance, exec  # noqa: A004  # the driver's name
from tests.drivers import programs, sources, supervisor

NAME = exec.NAME
METHODS = exec.METHODS
make = exec.make

CONTROL = """
import os, socket, sys

e = os.environ
with socket.socket(socket.AF_UNIX) as caller:
    caller.connect(e["SUPERVISOR"])
    facts = (e["INSTAR_DIGEST"], os.getcwd(), e["INSTAR_VERSION"], e["BEHAVIOUR"])
    caller.sendall(" ".join((e["INSTAR_VERB"], e["INSTAR_INSTANCE_ID"], *facts)).encode() + b"\\n")
    while data := caller.recv(4096):
        sys.stdout.write(data.decode())
"""
MANIFEST = """
name = "web"
version = "{version}"
driver = "exec"
prepare_timeout = "20s"
environment = {{ SUPERVISOR = "{control}", BEHAVIOUR = "{behaviour}" }}
sockets = [{{ name = "http" }}]
readiness = {{ http = {{ path = "/" }}, period = "0.1s" }}

[exec]
hot_swap = {is_hot}
timeout = "30s"
{commands}
"""
VERBS = ("prepare", "activate", "pause_old", "resume_old", "drain", "abort", "inspect")


@dataclass(frozen=True)
class Commanded:
    """A program that a service manager runs, and the commands that tell it."""

    name: str
    method: model.Method
    control: Path
    verbs: Sequence[str] = VERBS
    address: tuple[str, int] = field(default_factory=lambda: ("127.0.0.1", programs.free_port()))

    @property
    def is_exclusive(self) -> bool:
        return self.method is model.Method.RESTART

    @property
    def addresses(self) -> Mapping[str, str]:
        return {"http": "{}:{}".format(*self.address)}

    def bundle(self, version: str, behaviour: conformance.Behaviour) -> conformance.Bundle:
        text = MANIFEST.format(
            version=version,
            behaviour=behaviour.value,
            control=self.control,
            is_hot=str(self.method is model.Method.HOT_SWAP).lower(),
            commands="\n".join(f'{verb} = ["python", "control.py"]' for verb in self.verbs),
        )
        files = {"app.py": sources.LISTEN_FDS_SERVICE, "control.py": CONTROL, "instar.toml": text}
        return conformance.Bundle(manifest.parse_toml(text), {name: data.encode() for name, data in files.items()})

    async def serving(self) -> frozenset[str]:
        answers = [await programs.answer(self.address) for _ in range(programs.ASKED)]
        return frozenset(each for each in answers if each)

    @contextlib.asynccontextmanager
    async def around(self, _rooms: drivers.Rooms) -> AsyncIterator[None]:
        self.control.unlink(missing_ok=True)
        argv = (sys.executable, supervisor.__file__, str(self.control), self.addresses["http"])
        process = await asyncio.create_subprocess_exec(*argv)
        try:
            async with asyncio.timeout(20):
                while not self.control.exists():  # noqa: ASYNC110  # another process makes it
                    await asyncio.sleep(0.01)
            yield
        finally:
            process.terminate()
            await process.wait()


def conformance_fixtures(folder: Path) -> Sequence[conformance.Fixture]:
    return (
        Commanded("restart", model.Method.RESTART, folder / "restart"),
        Commanded("hot_swap", model.Method.HOT_SWAP, folder / "hot"),
    )
