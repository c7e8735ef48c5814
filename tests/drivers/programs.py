"""Fixtures for the conformance suite: programs that answer on a socket, and ones that only run."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from agent import drivers
from agent.core import model
from agent.drivers import conformance
from controller.cli.demo import ports

ASKED = 4  # times; where two versions accept, both answer sooner or later
ANSWER_SECONDS = 1.0
READINESS = model.Probe(model.HttpCheck("/"), timedelta(seconds=0.1), timedelta(seconds=1), 2)
Make = Callable[[str, conformance.Behaviour], Mapping[str, bytes]]


def manifest(version: str, driver: str, command: tuple[str, ...], options: model.Options) -> model.Manifest:
    """A manifest with brisk deadlines."""
    return model.Manifest(
        name="web",
        version=version,
        driver=driver,
        command=command,
        environment={},
        sockets=(model.Socket("http", 128),),
        readiness=READINESS,
        health=None,
        metrics=None,
        prepare_timeout=timedelta(seconds=20),
        drain_timeout=timedelta(seconds=2),
        stop_timeout=timedelta(seconds=2),
        options=options,
    )


@dataclass(frozen=True)
class Web:
    """A program that answers on one socket with its version."""

    name: str
    driver: str
    method: model.Method
    command: tuple[str, ...]
    files: Make
    options: model.Options = field(default_factory=model.HandoverOptions)
    is_exclusive: bool = False
    address: tuple[str, int] = field(default_factory=lambda: ("127.0.0.1", free_port()))
    lacks: frozenset[conformance.Behaviour] = frozenset()

    @property
    def addresses(self) -> Mapping[str, str]:
        return {"http": "{}:{}".format(*self.address)}

    def bundle(self, version: str, behaviour: conformance.Behaviour) -> conformance.Bundle | None:
        if behaviour in self.lacks:
            return None
        made = manifest(version, self.driver, self.command, self.options)
        made.environment["BEHAVIOUR"] = behaviour.value  # type: ignore[index]  # the dict that was just made
        files = {**self.files(version, behaviour), "VERSION": f"{version} {behaviour.value}".encode()}
        return conformance.Bundle(made, files, frozenset(name for name in files if name.endswith(".sh")))

    async def serving(self) -> frozenset[str]:
        answers = [await answer(self.address) for _ in range(ASKED)]
        return frozenset(each for each in answers if each)

    @contextlib.asynccontextmanager
    async def around(self, _rooms: drivers.Rooms) -> AsyncIterator[None]:
        yield


@dataclass(frozen=True)
class Worker:
    """A program without a socket: it holds a lock for as long as it runs."""

    name: str
    source: bytes
    locks: Path
    has_overlap: bool

    method = model.Method.RESTART
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_exclusive(self) -> bool:
        return not self.has_overlap

    def bundle(self, version: str, behaviour: conformance.Behaviour) -> conformance.Bundle:
        options = model.ProcessOptions(has_overlap=self.has_overlap, settle_duration=timedelta(seconds=0.3))
        is_unready = behaviour is conformance.Behaviour.NEVER_READY
        check = model.ExecCheck(("python", "-c", f"raise SystemExit({int(is_unready)})"))
        made = model.Manifest(
            name="worker",
            version=version,
            driver="process",
            command=("python", "app.py"),
            environment={"BEHAVIOUR": behaviour.value, "LOCKS": str(self.locks)},
            sockets=(),
            readiness=model.Probe(check, timedelta(seconds=0.1), timedelta(seconds=5), 2) if is_unready else None,
            health=None,
            metrics=None,
            prepare_timeout=timedelta(seconds=20),
            drain_timeout=timedelta(seconds=2),
            stop_timeout=timedelta(seconds=2),
            options=options,
        )
        return conformance.Bundle(made, {"app.py": self.source, "VERSION": f"{version} {behaviour.value}".encode()})

    async def serving(self) -> frozenset[str]:
        return frozenset(path.name for path in self.locks.iterdir() if _is_locked(path))

    @contextlib.asynccontextmanager
    async def around(self, _rooms: drivers.Rooms) -> AsyncIterator[None]:
        yield


async def answer(address: tuple[str, int], within_seconds: float = ANSWER_SECONDS) -> str:
    """The version that answers on a new connection; empty where nobody does."""
    try:
        async with asyncio.timeout(within_seconds):
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.read(100)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, EOFError, TimeoutError):
        return ""
    return body.split()[0].decode() if b" 200 " in head.splitlines()[0] + b" " and body else ""


def free_port() -> int:
    """A port that nobody has."""
    return ports.free(1)[0]


def _is_locked(path: Path) -> bool:
    with path.open("w") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
