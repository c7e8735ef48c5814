"""A real keeper with the real agent under it, led through files."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent import processes
from agent.core import model
from agent.journal import records
from tests.agent import bundles
from tests.agent.keeper import node as keeper_node

PATIENCE_SECONDS = 30.0  # for anything that takes a few seconds on a quiet machine
SERVICE = Path(__file__).with_name("live_service.py").read_bytes()
MANIFEST = """\
name = "web"
version = "{version}"
driver = "handover"
command = ["python", "service.py"]
prepare_timeout = "{prepare_timeout}"
drain_timeout = "{drain_timeout}"
{extra}[environment]
{environment}
[[sockets]]
name = "http"
[readiness]
http.path = "/healthz"
[health]
http.path = "/healthz"
period = "0.1s"
failure_threshold = 2
[metrics]
path = "/metrics"
series = ["web_requests_total"]
period = "0.5s"
"""


class LiveNode:
    """A node, its leader's files, and what it told."""

    def __init__(self, root: Path, config: str = "") -> None:
        self.root = root
        self.keeper = keeper_node.Node(root)
        self.config = root / "agent.toml"
        self._fence = 0
        self._commands = 0
        self._questions = 0
        for name in ("commands", "bundles", "logs"):
            (root / name).mkdir()
        places = f'node_id = "n1"\nstate_dir = "{self.keeper.state}"\nrun_dir = "{self.keeper.run}"\n'
        host, port = self.address
        self.config.write_text(f'{places}[sockets.web]\nhttp = "{host}:{port}"\n{config}')

    @property
    def address(self) -> tuple[str, int]:
        return self.keeper.address

    def start(self) -> None:
        argv = (sys.executable, "-m", "tests.agent.live_agent", str(self.config), str(self.root))
        self.keeper.start(*argv, config=self.config)

    def bundle(
        self,
        version: str,
        environment: Mapping[str, str] | None = None,
        service: bytes = SERVICE,
        *,
        prepare_timeout: str = "10s",
        drain_timeout: str = "5s",
        extra: str = "",
    ) -> str:
        """Publish a version; returns its digest."""
        lines = "\n".join(f'{key} = "{value}"' for key, value in (environment or {}).items())
        times = {"prepare_timeout": prepare_timeout, "drain_timeout": drain_timeout}
        manifest = MANIFEST.format(version=version, environment=lines, extra=extra, **times)
        return self.publish(manifest, {"service.py": service})

    def publish(self, manifest: str, files: Mapping[str, bytes]) -> str:
        """Publish any bundle; returns its digest."""
        data = bundles.bundle({"instar.toml": manifest.encode(), **files})
        (self.root / "bundles" / bundles.hex_of(data)).write_bytes(data)
        return bundles.digest_of(data)

    def assign(self, version: str, digest: str, old: str = "", **changed: Any) -> str:  # noqa: ANN401  # fields differ
        """Order a change; returns the operation's id."""
        self._fence += 1
        facts: dict[str, Any] = {
            "operation_id": f"op-{self._fence}",
            "fence": self._fence,
            "attempt": 1,
            "component": "web",
            "kind": model.ChangeKind.UPGRADE if old else model.ChangeKind.INSTALL,
            "method": model.Method.HOT_SWAP,
            "from_digest": old,
            "to_digest": digest,
            "to_version": version,
            "hold_before": None,
            "start_by": None,
            "deadline": timedelta(seconds=60),
            "soak_duration": timedelta(seconds=0.5),
            "soak_requests_min": 0,
            "min_healthy_duration": timedelta(seconds=1),
            "healthy_deadline": timedelta(seconds=20),
        }
        assignment = model.Assignment(**{**facts, **changed})
        self.command("assign", model.Assign(assignment))
        return assignment.operation_id

    def command(self, word: str, command: model.Command) -> None:
        self._commands += 1
        path = self.root / "commands" / f"{self._commands:04}.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps({word: records.to_plain(command)}))
        part.rename(path)

    def told(self) -> dict[str, Any]:
        """What the agent last told."""
        try:
            told: dict[str, Any] = json.loads((self.root / "report.json").read_text())
        except FileNotFoundError:
            nothing: dict[str, list[Any]] = {"operations": [], "components": [], "steps": [], "metrics": []}
            return {"pid": 0, "report": {**nothing, "conditions": []}}
        return told

    def status(self, operation_id: str) -> dict[str, Any]:
        """What the agent last told of an operation."""
        found = [each for each in self.told()["report"]["operations"] if each["operation_id"] == operation_id]
        return found[0] if found else {"state": "", "step": "", "fault": None, "reason": ""}

    def component(self) -> dict[str, Any]:
        """What the agent last told of the component."""
        found = self.told()["report"]["components"]
        return found[0] if found else {"version": "", "digest": "", "permanent_digest": "", "instances": []}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, with a deadline."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not condition():  # noqa: ASYNC110  # it lies in another process
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise AssertionError(f"not within {PATIENCE_SECONDS} s; last told: {self.told()}") from error

    async def until_state(self, operation_id: str, *states: str) -> dict[str, Any]:
        """Wait until an operation is in one of some states."""
        await self.until(lambda: self.status(operation_id)["state"] in states)
        return self.status(operation_id)

    def evidence(self, operation_id: str, step: model.Step) -> dict[str, str]:
        """What the agent last told of a step that has ended."""
        told = self.told()["report"]["steps"]
        found = [each for each in told if (each["operation_id"], each["step"]) == (operation_id, step.value)]
        return dict(found[-1]["evidence"]) if found else {}

    async def installed(self, version: str, **published: Any) -> str:  # noqa: ANN401  # as for bundle
        """Install a version and wait until it is permanent; returns its digest."""
        digest = self.bundle(version, **published)
        await self.until_state(self.assign(version, digest), "PERMANENT")
        return digest

    def metrics(self) -> dict[str, dict[str, Any]]:
        """What the agent last told of the component's series."""
        return {each["name"]: each for each in self.told()["report"]["metrics"] if each["component"] == "web"}

    def conditions(self) -> set[str]:
        """Codes of what the agent last told to be wrong, beside that it was told nobody to trust."""
        return {each["code"] for each in self.told()["report"]["conditions"]} - {"trust_not_configured"}

    async def log(self, max_bytes: int = 4096) -> dict[str, Any]:
        """Ask for the end of the component's log."""
        self._questions += 1
        self.command("read_log", model.ReadLog(self._questions, "web", max_bytes))
        path = self.root / "logs" / f"{self._questions}.json"
        await self.until(path.exists)
        answer: dict[str, Any] = json.loads(path.read_text())
        return answer

    def kill_agent(self) -> int:
        """Kill the agent as nothing else can; returns its pid."""
        pid: int = self.told()["pid"]
        os.kill(pid, signal.SIGKILL)
        return pid

    async def agent_is_back(self, than: int) -> None:
        """Wait until another agent has told of itself."""
        await self.until(lambda: self.told()["pid"] not in {0, than})

    async def instances(self) -> tuple[processes.Instance, ...]:
        """What the keeper holds, living ones only."""
        client = await self.keeper.client()
        seen = (await client.inspect()).instances
        await client.close()
        return tuple(each for each in seen if each.state is not processes.InstanceState.EXITED)


@contextlib.contextmanager
def _short_directory() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="in-"))  # tmp_path is too long for socket paths
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.asynccontextmanager
async def running(config: str = "") -> AsyncIterator[LiveNode]:
    """Run a node, and leave nothing behind.

    Args:
        config: More of its configuration; {root} in it is the node's directory.
    """
    with _short_directory() as root:
        made = LiveNode(root, config.replace("{root}", str(root)))
        (root / "deaf").touch()  # so that tests see how operations ended
        made.start()
        try:
            yield made
        finally:
            if made.keeper.process is not None and made.keeper.process.poll() is not None:
                made.keeper.start()
            await made.keeper.end()
