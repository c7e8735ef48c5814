"""A keeper in a directory of its own, with releases from a fixture: what each check is tried on.

Rules kept here: the driver is made anew from nothing before every verb, so whatever it remembers is lost; nothing is
left running. Left out: what is checked (`checks`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import agent
from agent import drivers, processes
from agent.core import model
from agent.drivers import conformance, process_table
from agent.keeper import digest

PATIENCE_SECONDS = 20.0  # for anything that takes milliseconds on a quiet machine
POLL_SECONDS = 0.02
TIME_LEFT = timedelta(minutes=2)  # until an operation must be decided; longer than any check takes

Condition = Callable[[], Awaitable[bool]]


class CheckError(Exception):
    """The driver does not do what a driver must; the message says what."""


class SkippedError(Exception):
    """The fixture has no such program."""


@dataclass(slots=True)
class Stage:
    """One keeper, one fixture, one driver.

    Args:
        pids: Every process that the driver has shown, so that what it forgets is still found.
    """

    module: conformance.FixtureModule
    fixture: conformance.Fixture
    root: Path
    process: subprocess.Popen[bytes]
    connected: list[processes.Keeper] = field(default_factory=list)
    pids: dict[int, int] = field(default_factory=dict)
    count: int = 0

    @property
    def keeper(self) -> processes.Keeper:
        """The connection to the keeper that runs now."""
        return self.connected[-1]

    @property
    def rooms(self) -> drivers.Rooms:
        """What the driver is made from."""
        return drivers.Rooms(keeper=self.keeper, run_dir=self.root / "r", state_dir=self.root / "s")

    @property
    def driver(self) -> drivers.Driver:
        """A driver that knows nothing."""
        return self.module.make(self.rooms)

    def launch(self, version: str, behaviour: conformance.Behaviour = conformance.Behaviour.GOOD) -> drivers.Launch:
        """Unpack a release, and name an instance that it can be started as.

        Raises:
            SkippedError: The fixture has none.
        """
        bundle = self.fixture.bundle(version, behaviour)
        if bundle is None:
            raise SkippedError(f"the fixture has no release that {behaviour.value.replace('_', ' ')}")
        self.count += 1
        release = unpack(bundle, self.root / "s" / "releases")
        return drivers.Launch(
            instance_id=f"{bundle.manifest.name[:10]}-{release.name[:6]}-{self.count}",
            digest=f"sha256:{release.name}",
            release_dir=release,
            manifest=bundle.manifest,
            addresses=self.fixture.addresses,
        )

    def change(self, new: drivers.Launch | None, old: drivers.Launch | None) -> drivers.Change:
        """Make a change; the old side is any instance of its release."""
        self.count += 1
        launch = new or old
        if launch is None:
            raise ValueError("cannot change nothing to nothing")
        return drivers.Change(
            operation_id=f"operation-{self.count}",
            component=launch.manifest.name,
            method=self.fixture.method,
            new=new,
            old=replace(old, instance_id="") if old else None,
            time_left=TIME_LEFT,
        )

    async def switch(self, change: drivers.Change, *, times: int = 1) -> None:
        """Call all verbs up to COMMIT, each so often."""
        for verb in BEFORE_COMMIT:
            for _ in range(times):
                await self.call(verb, change)

    async def call(self, verb: str, change: drivers.Change) -> drivers.Evidence:
        """Call one verb of a driver that knows nothing, and look at what it did."""
        evidence: drivers.Evidence = await getattr(self.driver, verb)(change)
        expect(_is_evidence(evidence), f"{verb} returns {evidence!r}, which is no evidence: text by text")
        await self.look(change.component)
        return evidence

    async def installed(
        self, version: str, behaviour: conformance.Behaviour = conformance.Behaviour.GOOD
    ) -> drivers.Launch:
        """Let a release serve as the committed one."""
        launch = self.launch(version, behaviour)
        change = self.change(launch, None)
        await self.switch(change)
        await self.committed(change)
        await self.call("drain", change)
        await self.serves(version)
        return launch

    async def committed(self, change: drivers.Change) -> None:
        """Commit, and expect that it is."""
        verdict = await self.driver.commit(change)
        expect(verdict.outcome is drivers.Outcome.COMMITTED, f"commit rolled back: {verdict.message}")
        await self.look(change.component)

    async def look(self, component: str) -> tuple[model.Instance, ...]:
        """Ask what there is, and expect no more than two living instances."""
        seen = await self.driver.inspect(component)
        living = [each for each in seen if each.pid]
        expect(
            len({each.pid for each in living}) <= (1 if self.fixture.is_exclusive else 2), f"too many live: {living}"
        )
        for each in living:
            found = process_table.read(each.pid)
            if found is not None:
                self.pids[each.pid] = found.start_ticks
        return seen

    async def serves(self, *versions: str) -> None:
        """Wait until exactly these versions serve.

        Raises:
            CheckError: They do not in time.
        """
        wanted = frozenset(versions)
        found: frozenset[str] = frozenset()

        async def is_so() -> bool:
            nonlocal found
            found = await self.fixture.serving()
            return found == wanted

        if not await until(is_so):
            raise CheckError(f"{sorted(found)} serve, not {sorted(wanted)}")

    def living(self) -> list[int]:
        """Processes that the driver has shown once and that live still."""
        seen = ((pid, ticks, process_table.read(pid)) for pid, ticks in self.pids.items())
        return [pid for pid, ticks, found in seen if found is not None and found.start_ticks == ticks]

    async def left(self, component: str) -> list[int]:
        """Those processes of them that belong to no other component, such as the host of a module."""
        others = {each.pid for each in (await self.keeper.inspect()).instances if each.component != component}
        return [pid for pid in self.living() if pid not in others]

    async def restart_keeper(self) -> None:
        """Kill the keeper and every process that was seen, as a power cut would, and start the next keeper."""
        self.process.kill()
        self.process.wait()
        for pid in self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process = start_keeper(self.root)
        self.connected.append(await connect(self.root))


BEFORE_COMMIT = ("plan", "stage", "prepare", "activate", "pause_old")


@contextlib.asynccontextmanager
async def on(module: conformance.FixtureModule, fixture: conformance.Fixture) -> AsyncIterator[Stage]:
    """Run a keeper for one check, and leave nothing behind."""
    root = Path(tempfile.mkdtemp(prefix="idc-"))  # a socket path has at most 107 bytes
    try:
        (root / "s" / "releases").mkdir(parents=True)
        made = Stage(module, fixture, root, start_keeper(root))
        try:
            made.connected.append(await connect(root))
            async with fixture.around(made.rooms):
                yield made
        finally:
            await _end(made)
    finally:
        shutil.rmtree(root)


def start_keeper(root: Path) -> subprocess.Popen[bytes]:
    """Start a keeper without an agent; this program is attached as one."""
    directories = ["--state", str(root / "s"), "--run", str(root / "r")]
    environment = {**os.environ, "PYTHONPATH": str(Path(agent.__file__).parents[1])}
    argv = [sys.executable, "-S", "-P", "-m", "agent.keeper", *directories]
    return subprocess.Popen(argv, env=environment)  # noqa: S603  # our own program


async def connect(root: Path) -> processes.Keeper:
    """Connect to the keeper as its agent."""
    keeper = await processes.Keeper.connect(root / "r" / "keeper.sock", within=timedelta(seconds=PATIENCE_SECONDS))
    await keeper.attach()
    return keeper


def unpack(bundle: conformance.Bundle, releases: Path) -> Path:
    """Lay a release out as the verifier does; the same again is the same directory."""
    with tempfile.TemporaryDirectory(dir=releases.parent) as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        for name, data in bundle.files.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755 if name in bundle.programs else 0o644)
        target = releases / digest.tree_digest(tree).removeprefix("sha256:")
        if not target.exists():
            tree.rename(target)
    return target


def expect(condition: bool, message: str) -> None:  # noqa: FBT001  # reads as a sentence
    """Raise `CheckError` unless a condition holds."""
    if not condition:
        raise CheckError(message)


async def until(condition: Condition) -> bool:
    """Wait for a condition with a deadline; say whether it came true."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await condition():  # noqa: ASYNC110  # it lies in other processes
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        return False
    return True


def _is_evidence(evidence: drivers.Evidence) -> bool:
    return all(isinstance(each, str) for pair in evidence.items() for each in pair)


async def _end(made: Stage) -> None:
    """End the keeper with all that it knows, and by force what it does not end."""
    with contextlib.suppress(processes.KeeperError, IndexError):
        await made.keeper.shutdown(processes.OnShutdown.STOP)
    for each in made.connected:
        await each.close()
    try:
        made.process.wait(PATIENCE_SECONDS if made.connected else 0)
    except subprocess.TimeoutExpired:
        made.process.kill()
        made.process.wait()
    for pid in made.living():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
