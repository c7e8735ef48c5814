"""A real keeper over a directory of its own, and bundles for it."""

import asyncio
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import agent
from agent import processes
from agent.keeper import digest
from controller.cli.demo import ports

PATIENCE_SECONDS = 20.0  # for anything that takes milliseconds on a quiet machine
WORD_TIMEOUT = timedelta(seconds=10)
WEB_SERVICE = Path(__file__).with_name("web_service.py")


class Node:
    """State, run directory, and the keeper's process."""

    def __init__(self, root: Path) -> None:
        self.state = root / "s"
        self.run = root / "r"
        (self.state / "releases").mkdir(parents=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.address = ("127.0.0.1", free_port())
        self._count = 0
        self._clients: list[processes.Keeper] = []

    def start(self, *agent_argv: str, within: Sequence[str] = (), config: Path | None = None) -> None:
        """Start a keeper, within a command that becomes it."""
        source = str(Path(agent.__file__).parents[1])
        argv = [sys.executable, "-S", "-P", "-m", "agent.keeper", "--state", str(self.state), "--run", str(self.run)]
        configured = [] if config is None else ["--config", str(config)]
        environment = {**os.environ, "PYTHONPATH": source}
        self.process = subprocess.Popen([*within, *argv, *configured, "--", *agent_argv], env=environment)

    def kill(self) -> None:
        """Kill the keeper as nothing else can."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    async def client(self) -> processes.Keeper:
        """Connect to the keeper."""
        within = timedelta(seconds=PATIENCE_SECONDS)
        connected = await processes.Keeper.connect(self.run / "keeper.sock", within=within)
        self._clients.append(connected)
        return connected

    async def attached(self) -> processes.Keeper:
        """Connect as the agent does, with the listener of the web service."""
        keeper = await self.client()
        await keeper.attach()
        await keeper.watch()
        await keeper.listen("web.http", f"127.0.0.1:{self.address[1]}")
        return keeper

    def release(
        self, version: str, *, source: str | None = None, name: str = "app.py", mode: int = 0o644
    ) -> processes.InstanceSpec:
        """Unpack a release whose program is the web service, or the source given."""
        self._count += 1
        tree = self.state / f"tree-{self._count}"
        tree.mkdir()
        (tree / name).write_text((source or WEB_SERVICE.read_text()) + f"\n# {version}\n")
        (tree / name).chmod(mode)
        found = digest.tree_digest(tree)
        target = self.state / "releases" / found.removeprefix("sha256:")
        if target.exists():
            shutil.rmtree(tree)
        else:
            tree.rename(target)
        return processes.InstanceSpec(
            id=f"web-{target.name[:8]}-{self._count}",
            component="web",
            version=version,
            digest=found,
            release_dir=target,
            command=["python", name],
            sockets=["web.http"],
            stop_timeout=timedelta(seconds=5),
        )

    async def serving(self, keeper: processes.Keeper, version: str) -> processes.Instance:
        """Start a version and let it serve as the committed one."""
        made = await prepared(keeper, self.release(version))
        await keeper.say(made.id, processes.Word.ACTIVATE, WORD_TIMEOUT)
        await keeper.keep("web", made.id)
        return await find(keeper, made.id)

    async def end(self) -> None:
        """End the keeper and every process that it knows."""
        if self.process is None:
            return
        if self.process.poll() is None:
            with contextlib.suppress(processes.KeeperError):
                keeper = await self.client()
                await keeper.shutdown(processes.OnShutdown.STOP)
            try:
                self.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        for each in self._clients:
            await each.close()


@contextlib.asynccontextmanager
async def running(root: Path, agent_argv: Sequence[str] = ()) -> AsyncIterator[Node]:
    """Run a node with a keeper, and leave nothing behind."""
    made = Node(root)
    made.start(*agent_argv)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is not None:
            made.start()
        await made.end()


async def prepared(keeper: processes.Keeper, spec: processes.InstanceSpec) -> processes.Instance:
    """Start an instance and wait until it is prepared."""
    await keeper.start(spec)
    return await reaches(keeper, spec.id, processes.InstanceState.PREPARED)


async def reaches(keeper: processes.Keeper, instance_id: str, state: processes.InstanceState) -> processes.Instance:
    """Wait until an instance is in a state."""

    async def is_there() -> bool:
        return (await find(keeper, instance_id)).state is state

    await until(is_there)
    return await find(keeper, instance_id)


async def find(keeper: processes.Keeper, instance_id: str) -> processes.Instance:
    """Show one instance."""
    (found,) = [each for each in (await keeper.inspect()).instances if each.id == instance_id]
    return found


async def is_gone(keeper: processes.Keeper, instance_id: str) -> None:
    """Wait until an instance is not alive."""

    async def is_dead() -> bool:
        states = {each.id: each.state for each in (await keeper.inspect()).instances}
        return states.get(instance_id, processes.InstanceState.EXITED) is processes.InstanceState.EXITED

    await until(is_dead)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds, with a deadline."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():  # noqa: ASYNC110  # it lies in another process
            await asyncio.sleep(0.01)


def kill(pid: int) -> None:
    """Kill one process."""
    os.kill(pid, signal.SIGKILL)


def is_over(pid: int) -> bool:
    """Whether a process that is not our child ends in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE_SECONDS)[0])
    finally:
        os.close(descriptor)


def free_port() -> int:
    return ports.free(1)[0]
