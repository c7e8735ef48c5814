"""Twenty real nodes in four zones, and the command line: nothing else is used to lead them.

Rules kept: every node is a keeper, an agent and services of its own; whatever is asked is asked by `instar`, and what
came of it is read from its JSON; whoever waits has a deadline.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.cli.demo import bundles, fleet, ports, process

ZONES = ("a", "b", "c", "d")
NODES = 20
STARTED_TOGETHER = 4  # nodes: each start costs a second of a processor
WAIT_SECONDS = 180.0  # for a rollout over all nodes on two busy cores
HEARTBEAT_PERIOD = "2s"
QUICK = (
    "--soak-duration",
    "0.2s",
    "--min-healthy-duration",
    "0.5s",
    "--healthy-deadline",
    "90s",
    "--max-parallel",
    "5",
)
MANIFEST = """\
name = "{component}"
version = "{version}"
driver = "handover"
command = ["python", "service.py"]
prepare_timeout = "60s"
drain_timeout = "10s"
stop_timeout = "5s"
{requirements}
[[sockets]]
name = "http"
[readiness]
http = {{ path = "/healthz" }}
period = "0.2s"
timeout = "5s"
[health]
http = {{ path = "/healthz" }}
period = "1s"
timeout = "5s"
failure_threshold = 3
"""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a component of the test.

    Args:
        requires: Component and comparators of what it requires; empty for nothing.
        is_bad: It ends as soon as it is started.
    """

    component: str
    version: str
    requires: str = ""
    is_bad: bool = False

    def write(self, folder: Path) -> None:
        """Make a folder that `instar release build` takes."""
        bundles.Source(self.version).write(folder)
        name, _, comparators = self.requires.partition(" ")
        required = f'[[requirements]]\ncomponent = "{name}"\nversions = "{comparators}"\n' if name else ""
        text = MANIFEST.format(component=self.component, version=self.version, requirements=required)
        if self.is_bad:
            (folder / "service.py").write_text("raise SystemExit(1)\n", encoding="utf-8")
        (folder / "instar.toml").write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Said:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401  # the test knows what it asked for
        """What it printed, read."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Zones:
    """What runs."""

    root: Path
    controller: fleet.Controller
    nodes: Sequence[fleet.Node]

    async def say(self, *arguments: str, seconds: float = WAIT_SECONDS) -> Said:
        """Run a command of the operators' command line, to its end, which comes within so many seconds."""
        started = await asyncio.create_subprocess_exec(
            process.script("instar"),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.controller._environment(),
        )
        async with asyncio.timeout(seconds):
            out, err = await started.communicate()
        return Said(started.returncode or 0, out.decode(), err.decode())

    async def ask(self, *arguments: str, code: int = 0) -> Any:  # noqa: ANN401  # the test knows what it asked for
        """Run a command that must end with a code; its JSON."""
        said = await self.say(*arguments, "--output", "json")
        assert said.code == code, (arguments, said)
        return said.document

    async def refused(self, *arguments: str) -> str:
        """Run a command that the controller must refuse; what it said."""
        said = await self.say(*arguments)
        assert said.code == 8, (arguments, said)
        return said.err

    async def publish(self, version: Version) -> None:
        """Build, sign and publish a version."""
        folder = self.root / f"{version.component}-{version.version}"
        version.write(folder)
        bundle = folder.with_suffix(f"{folder.suffix}.tar")
        await self.ask("release", "build", str(folder), "--out", str(bundle))
        await self.ask("release", "sign", str(bundle))
        await self.ask("release", "publish", str(bundle))

    async def rollout(self, name: str) -> Any:  # noqa: ANN401  # JSON
        """A rollout as it is now."""
        return await self.ask("rollout", "show", name)

    async def until(self, name: str, condition: Callable[[Any], bool]) -> Any:  # noqa: ANN401  # JSON
        """Wait until a rollout meets a condition."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition(found := await self.rollout(name)):  # noqa: ASYNC110  # asking takes half a second
                await asyncio.sleep(0)
        return found

    async def ended(self, name: str, seconds: float = WAIT_SECONDS) -> Any:  # noqa: ANN401  # JSON
        """Wait until a rollout has ended; the exit code tells how, and is left to the caller."""
        watched = await self.say("rollout", "watch", name, "--timeout", f"{seconds:g}s", seconds=seconds)
        assert watched.code in {0, 1, 3, 5}, watched
        return await self.rollout(name)

    async def versions(self, component: str = "web") -> Counter[str]:
        """How many nodes run which version, by what they report."""
        found = await self.ask("node", "list")
        return Counter(
            each["version"]
            for node in found["nodes"]
            for each in node.get("components", [])
            if each["name"] == component
        )

    async def runs(self, version: str, component: str = "web", nodes: int = NODES) -> None:
        """Wait until all nodes report a version."""

        async def is_so() -> bool:
            return await self.versions(component) == {version: nodes}

        await process.until(f"{nodes} nodes report {component} {version}", is_so, seconds=WAIT_SECONDS)


@asynccontextmanager
async def up() -> AsyncIterator[Zones]:
    """A controller and twenty connected nodes with nothing installed."""
    root = Path(tempfile.mkdtemp(prefix="iz-"))  # short: sockets live in it
    async with AsyncExitStack() as started:
        started.callback(shutil.rmtree, root, ignore_errors=True)
        controller = fleet.Controller(root / "controller", None, HEARTBEAT_PERIOD)
        started.push_async_callback(controller.stop)
        await controller.start()
        zones = Zones(root, controller, [fleet.Node(f"n{i:02}", root / f"n{i:02}", controller) for i in range(NODES)])
        turns = asyncio.Semaphore(STARTED_TOGETHER)
        async with asyncio.TaskGroup() as group:
            for number, node in enumerate(zones.nodes):
                started.push_async_callback(node.stop)
                group.create_task(_start(node, ZONES[number % len(ZONES)], turns))

        async def are_connected() -> bool:
            found = await zones.ask("node", "list")
            return len([node for node in found.get("nodes", []) if node.get("connected", False)]) == NODES

        await process.until("the nodes are connected", are_connected, seconds=WAIT_SECONDS)
        try:
            yield zones
        except BaseException as error:
            newest = (await zones.ask("rollout", "list", "--limit", "1"))["rollouts"]
            for each in newest:
                why = await zones.say("rollout", "explain", each["rollout_id"])
                error.add_note(f"--- {each['rollout_id']}\n{why.out}{why.err}")
            error.add_note(f"--- controller\n{process.tail(root / 'controller' / 'controller.log')}")
            raise


async def _start(node: fleet.Node, zone: str, turns: asyncio.Semaphore) -> None:
    async with turns:
        await node.enrol()
        sockets = "".join(
            f'[sockets.{name}]\nhttp = "{ports.HOST}:{port}"\n'
            for name, port in zip(("cache",), ports.free(1), strict=True)
        )
        with node.config_file.open("a", encoding="utf-8") as file:
            file.write(f'{sockets}[labels]\nzone = "{zone}"\n')
        await node.start()

        async def is_up() -> bool:
            return (node.run_dir / "keeper.sock").exists()

        await process.until(f"{node.id} is up", is_up, seconds=WAIT_SECONDS)
