"""A real node whose processes can be hit: started from a saved state, traced, killed as a host dies, and judged.

Rules kept here: each case has folders and a port of its own; nothing is left running; a boot is a new boot id, an empty
run directory and the same disk.
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
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import agent
from agent import journal
from agent.core import operation, transitions
from agent.keeper import digest
from tests.agent import live_node
from tests.faults import points

TRACER = Path(__file__).with_name("tracer")
PATIENCE_SECONDS = 30.0  # for what takes two or three on a quiet machine
ANSWER_SECONDS = 2.0  # for which a client waits where nothing else is said
POLL_SECONDS = 0.02
WRITTEN_FIRST = 5  # numbers that a service is given before anything happens
FIRST_FENCE = 100  # above every fence of a saved state
BOOT_ID = "/proc/sys/kernel/random/boot_id"
LISTED_MAX = 5  # of what is wrong, in one message


class Violation(Exception):  # noqa: N818  # it is what the checks look for, not an error of the harness
    """The node is not as it must be."""


def obstacle() -> str:
    """Say why this machine cannot play faults; empty where it can."""
    for words in (["strace", "-o", os.devnull, "true"], ["unshare", "--mount", "true"]):
        try:
            subprocess.run(words, check=True, capture_output=True)
        except FileNotFoundError:
            return f"{words[0]} is not installed"
        except subprocess.CalledProcessError:
            return f"{words[0]} is not allowed here"
    return ""


@dataclass(frozen=True, slots=True)
class Answer:
    """Who answered a request."""

    version: str
    pid: int


class FaultNode(live_node.LiveNode):
    """A live node over a saved state."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._boot_file = root / "boot_id"
        self._faults = root / "faults"
        self._faults.mkdir()
        self._keeper_trace: Sequence[str] = ()
        self.environment: dict[str, str] = {}
        self.new_boot()
        (root / "deaf").touch()  # so that it can be seen how operations ended

    @property
    def places(self) -> points.Places:
        """Its folders."""
        return points.Places(self.keeper.state, self.keeper.run)

    def load(self, saved: Path) -> None:
        """Begin with a saved state directory; what is ordered from here on is told apart by its fence."""
        self._fence = FIRST_FENCE
        shutil.rmtree(self.keeper.state)
        shutil.copytree(saved, self.keeper.state, symlinks=True)

    def save(self, target: Path) -> None:
        """Keep a copy of the state directory for `load`."""
        shutil.copytree(self.keeper.state, target, symlinks=True)

    async def write_some(self) -> None:
        """Let the service write down some numbers."""
        for number in range(1, WRITTEN_FIRST + 1):
            if await self.answer(number) is None:
                raise Violation(f"the service does not take {number}")

    def forget_finished(self) -> None:
        """Let the leader acknowledge from now on, so that the journal is empty in the end."""
        (self.root / "deaf").unlink()

    def trace(self, role: str, arguments: Sequence[str]) -> None:
        """Trace the next process of a role; the keeper is its own role."""
        if role == "keeper":
            self._keeper_trace = arguments
        else:
            (self._faults / f"{role}.trace").write_text("\n".join(arguments))

    def new_boot(self) -> None:
        """Let the next start see another boot."""
        self._boot_file.write_text(f"{uuid.uuid4()}\n")  # noqa: TID251  # a boot id is random

    def start(self) -> None:
        """Start the keeper, and with it the agent, in a mount namespace that has the boot id."""
        source = str(Path(agent.__file__).parents[1])
        run = ["--state", str(self.keeper.state), "--run", str(self.keeper.run), "--config", str(self.config)]
        keeper = [sys.executable, "-S", "-P", "-m", "agent.keeper", *run]
        led = [sys.executable, "-m", "tests.faults.led_agent", str(self.config), str(self.root)]
        trace, self._keeper_trace = self._keeper_trace, ()
        traced = ["strace", "-DDD", *trace] if trace else []
        mounted = f'mount --bind "{self._boot_file}" {BOOT_ID} && exec "$@"'
        boot = ["unshare", "--mount", "sh", "-c", mounted, "sh"]
        path = os.pathsep.join([str(TRACER), source, str(Path(agent.__file__).parent.parent / "generated")])
        environment = {**os.environ, "PYTHONPATH": path, "FAULTS_DIR": str(self._faults), **self.environment}
        with (self.root / "node.log").open("ab") as log:
            self.keeper.process = subprocess.Popen(
                [*boot, *traced, *keeper, "--", *led], env=environment, stdout=log, stderr=log, cwd=source
            )

    def processes(self) -> Mapping[int, str]:
        """Every process of this node by pid, with its command line; tracers are none of it."""
        found = _commands()
        return {pid: text for pid, text in found if str(self.root) in text and not text.startswith("strace")}

    async def die(self) -> None:
        """Kill everything at once, as the end of a host does, and boot with the same disk."""
        if self.keeper.process is not None:
            self.keeper.process.kill()  # by its handle: until it has become the keeper nothing else tells it apart
        for _ in range(10):  # what was just being started is found in the next round
            alive = self.processes()
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not alive:
                break
            await asyncio.sleep(POLL_SECONDS)
        if self.keeper.process is not None:
            self.keeper.process.wait(PATIENCE_SECONDS)
        shutil.rmtree(self.keeper.run, ignore_errors=True)
        self.new_boot()

    def revive_keeper(self) -> None:
        """Start the keeper again if it has died, as the host's init does."""
        if self.keeper.process is None or self.keeper.process.poll() is not None:
            self.start()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, with a deadline; a keeper that has died meanwhile is started again."""

        def is_so() -> bool:
            self.revive_keeper()
            return condition()

        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not is_so():  # noqa: ASYNC110  # it lies in other processes
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            told = self.told()["report"]
            steps = [(each["step"], each["is_success"], each["evidence"]) for each in told["steps"][-2:]]
            short = {"operations": told["operations"], "steps": steps, "conditions": told["conditions"]}
            raise Violation(f"not within {PATIENCE_SECONDS:g} s; last told: {short}") from error

    # What must hold.

    def check_disk(self) -> None:
        """G1: each installed component has a whole ``current`` and a whole ``permanent``."""
        components = self.keeper.state / "components"
        for directory in components.iterdir() if components.is_dir() else ():
            if directory.name.startswith("."):
                continue
            for pointer in ("current", "permanent"):
                target = (directory / pointer).resolve()
                if not target.is_dir() or digest.tree_digest(target) != f"sha256:{target.name}":
                    raise Violation(f"{pointer} of {directory.name} does not lead to a whole release")

    async def settle(self) -> None:
        """Wait until every operation has ended and everything serves that is current.

        Raises:
            Violation: It does not come to that.
        """
        missing: str | None = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (missing := await self._missing()) is not None:
                    self.revive_keeper()
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise Violation(f"{missing}; not within {PATIENCE_SECONDS:g} s") from error

    async def _missing(self) -> str | None:
        try:
            unfinished = [each for each in self.operations() if each.phase not in transitions.TERMINAL]
        except (journal.JournalError, OSError) as error:
            return f"the journal is not readable: {error}"
        if unfinished:
            return f"operation in {unfinished[0].phase.value}: {unfinished[0].message}"
        wanted = self.wanted_version()
        served = await self.answer()
        if wanted is None:
            return f"{served} answers, and nothing should" if served is not None else None
        is_so = served is not None and served.version == wanted
        return None if is_so else f"{wanted} is current, and {served} answers"

    def wanted_version(self) -> str | None:
        """Version that must serve; None where the component is not installed, or stopped on purpose."""
        is_stopped = (self.keeper.state / "components" / "web" / "stopped").exists()
        return None if is_stopped else self.current_version()

    def operations(self) -> tuple[operation.Operation, ...]:
        """What the journal holds, of this case."""
        found = (each.latest.operation for each in journal.read(self.keeper.state).operations)
        return tuple(each for each in found if each.assignment.fence > FIRST_FENCE)

    def current_version(self, component: str = "web") -> str | None:
        """Version that ``current`` leads to; None where the component is not installed."""
        manifest = self.keeper.state / "components" / component / "current" / "instar.toml"
        try:
            lines = manifest.read_text().splitlines()
        except FileNotFoundError:
            return None
        return next(line.split('"')[1] for line in lines if line.startswith("version"))

    async def answer(self, number: int | None = None, *, within_seconds: float = ANSWER_SECONDS) -> Answer | None:
        """Ask the service once, with a number that it may keep; None where it does not answer in time and in full."""
        path = "" if number is None else str(number)
        try:
            async with asyncio.timeout(within_seconds):
                reader, writer = await asyncio.open_connection(*self.address)
                try:
                    writer.write(f"GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                    head = await reader.readuntil(b"\r\n\r\n")
                    words = (await reader.read(64)).decode().split()
                finally:
                    writer.close()
        except (OSError, EOFError, TimeoutError):
            return None
        return Answer(words[0], int(words[1])) if head.startswith(b"HTTP/1.1 200") and len(words) > 1 else None

    async def check_leftovers(self) -> None:
        """At the end nothing half-made lies on disk and one process serves.

        Raises:
            Violation: Something is left.
        """
        wanted = 0 if self.wanted_version() is None else 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(self.services()) != wanted:  # noqa: ASYNC110  # a condition on processes
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise Violation(f"{len(self.services())} processes serve, not {wanted}") from error

    def services(self) -> Sequence[int]:
        """Processes of the component."""
        releases = str((self.keeper.state / "releases").resolve())
        return [pid for pid in _pids() if _link(f"/proc/{pid}/cwd").startswith(releases) and not _is_ended(pid)]

    def half_made(self) -> Sequence[str]:
        """Names on disk that are not whole."""
        folders = ("releases", "components", "environments", "data", "rollback_points")
        found = [path for name in folders for path in (self.keeper.state / name).glob("**/.*") if _is_half_made(path)]
        return [str(path.relative_to(self.keeper.state)) for path in found][:LISTED_MAX]

    async def close(self) -> None:
        """End all of it."""
        await self.die()


def _is_half_made(path: Path) -> bool:
    return path.name.startswith((".staging", ".gone", ".new", ".part"))


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())


def _commands() -> Iterator[tuple[int, str]]:
    for pid in _pids():
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        directory = _link(f"/proc/{pid}/cwd")  # what a release runs has nothing else of the node's in its words
        yield pid, f"{raw.replace(bytes(1), b' ').decode(errors='replace')} {directory}"


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _is_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@contextlib.asynccontextmanager
async def node() -> AsyncIterator[FaultNode]:
    """Make a node in folders of its own, and leave nothing behind."""
    root = Path(tempfile.mkdtemp(prefix="in-"))  # short, for the paths of sockets
    made = FaultNode(root)
    try:
        yield made
    finally:
        await made.close()
        shutil.rmtree(root, ignore_errors=True)
