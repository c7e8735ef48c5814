"""A real controller in a process of its own, the real command line against it, and agents that do as they are told.

The agents speak the link over real gRPC, but run nothing: what they answer to an operation is what the test wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sysconfig
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from instar.v1 import agent_service_pb2, agent_service_pb2_grpc, node_pb2, operation_pb2

DEADLINE_SECONDS = 60.0
INSTAR = str(Path(sysconfig.get_path("scripts")) / "instar")
BAKED = node_pb2.ComponentStatus(health=node_pb2.HEALTH_HEALTHY)
BAKED.healthy_for.FromSeconds(3600)
_States = operation_pb2.OperationState
_Response = agent_service_pb2.ConnectResponse


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401  # the test knows what it asked for
        return json.loads(self.out)


class House:
    """A controller's folder and, while it runs, where it listens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.address = ""

    @property
    def operator_token(self) -> str:
        return (self.state_dir / "tokens" / "operator.token").read_text().strip()

    @property
    def environment(self) -> Mapping[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("INSTAR_", "OTEL_"))}
        return inherited | {"INSTAR_STATE_DIR": str(self.state_dir), "INSTAR_CONTROLLER": self.address}

    async def start(self, *arguments: str, program: str = INSTAR) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )

    async def instar(self, *arguments: str | Path, program: str = INSTAR) -> Outcome:
        process = await self.start(*map(str, arguments), program=program)
        async with asyncio.timeout(DEADLINE_SECONDS):
            out, err = await process.communicate()
        return Outcome(process.returncode or 0, out.decode(), err.decode())

    @contextlib.asynccontextmanager
    async def serving(self, listen: str = "127.0.0.1:0", *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the controller while the block runs; its logs go to a file, since nobody reads them meanwhile."""
        with (self.folder / "controller.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                INSTAR,
                *("controller", "serve", "--listen", listen, "--heartbeat-period", "0.2s", "-o", "json"),
                *arguments,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self.environment,
            )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                self.address = json.loads(await process.stdout.readuntil(b"}\n"))["listen"]
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    def tree(self, version: str, more: str = "") -> Path:
        """A folder that makes a bundle."""
        root = self.folder / f"web-{version}"
        root.mkdir()
        manifest = f'name = "web"\nversion = "{version}"\ndriver = "handover"\ncommand = ["python", "main.py"]\n{more}'
        (root / "instar.toml").write_text(manifest)
        (root / "main.py").write_text(f"print({version!r})\n")
        return root

    async def publish(self, version: str) -> str:
        """Publish a release; return its digest."""
        bundle = self.folder / f"web-{version}.tar"
        built = await self.instar("release", "build", self.tree(version), "-o", bundle, "--output", "json")
        published = await self.instar("release", "publish", bundle)
        assert published.code == 0, published
        digest: str = built.document["digest"]
        return digest

    async def token(self, node_id: str) -> str:
        file = self.folder / f"{node_id}.token"
        made = await self.instar("node", "token", node_id, "--out", file)
        assert made.code == 0, made
        return file.read_text().strip()

    @contextlib.asynccontextmanager
    async def nodes(
        self, *node_ids: str, answer: Answer | None = None, report: agent_service_pb2.Report | None = None
    ) -> AsyncIterator[None]:
        """Agents that are connected while the block runs, and say a report as they come."""
        tokens = {node_id: await self.token(node_id) for node_id in node_ids}
        ready = [asyncio.Event() for _ in node_ids]
        async with asyncio.TaskGroup() as group, aio.insecure_channel(self.address) as channel:
            agents = [
                group.create_task(
                    _agent(channel, _Script(node_id, tokens[node_id], answer or succeed, report), event.set)
                )
                for node_id, event in zip(node_ids, ready, strict=True)
            ]
            async with asyncio.timeout(DEADLINE_SECONDS):
                for event in ready:
                    await event.wait()
            yield
            for agent in agents:
                agent.cancel()


Answer = Callable[[str, agent_service_pb2.Assign], agent_service_pb2.Report]


def succeed(_node_id: str, assign: agent_service_pb2.Assign) -> agent_service_pb2.Report:
    """Be done at once, and healthy for long."""
    component = node_pb2.ComponentStatus(
        name=assign.component, version=assign.to_version, digest=assign.to_digest, permanent_digest=assign.to_digest
    )
    component.MergeFrom(BAKED)
    component.stopped = assign.kind == operation_pb2.CHANGE_KIND_STOP
    if not assign.to_digest:
        component = node_pb2.ComponentStatus(name=assign.component, removed=True)
    return agent_service_pb2.Report(components=[component], operations=[status(assign, "PERMANENT")])


def fail(_node_id: str, assign: agent_service_pb2.Assign) -> agent_service_pb2.Report:
    """Go back by the version's fault."""
    failed = status(assign, "ABORTED")
    failed.fault = operation_pb2.FAULT_VERSION
    failed.reason = "health_probe_failed"
    failed.message = "the health probe failed 3 times"
    return agent_service_pb2.Report(operations=[failed])


def work_on(_node_id: str, assign: agent_service_pb2.Assign) -> agent_service_pb2.Report:
    """Never come to an end."""
    return agent_service_pb2.Report(operations=[status(assign, "RUNNING")])


def given_up(cancel: agent_service_pb2.Cancel) -> agent_service_pb2.Report:
    """Go back because somebody wants it so."""
    told = operation_pb2.OperationStatus(
        operation_id=cancel.operation_id,
        fence=cancel.fence,
        component="web",
        state=operation_pb2.OPERATION_STATE_ABORTED,
        fault=operation_pb2.FAULT_COMMAND,
        reason="cancelled",
    )
    told.change_time.GetCurrentTime()
    return agent_service_pb2.Report(operations=[told])


def status(assign: agent_service_pb2.Assign, state: str) -> operation_pb2.OperationStatus:
    told = operation_pb2.OperationStatus(
        operation_id=assign.operation_id,
        fence=assign.fence,
        component=assign.component,
        state=_States.Value(f"OPERATION_STATE_{state}"),
        step=operation_pb2.STEP_SOAK,
    )
    told.change_time.GetCurrentTime()
    return told


@dataclass(frozen=True)
class _Script:
    """Who an agent is, and what it says."""

    node_id: str
    token: str
    answer: Answer
    report: agent_service_pb2.Report | None


_Said = agent_service_pb2.Report | agent_service_pb2.LogText


async def _agent(channel: aio.Channel, script: _Script, ready: Callable[[], None]) -> None:
    """One session: greet, answer each operation once and each question for a log, and beat in between."""
    stub = agent_service_pb2_grpc.AgentServiceStub(channel)
    outgoing: asyncio.Queue[_Said] = asyncio.Queue()
    call = stub.Connect(_said(script, outgoing), metadata=(("authorization", f"Bearer {script.token}"),))
    try:
        async for response in call:
            match response.WhichOneof("message"):
                case "welcome":
                    ready()
                case "assign":
                    outgoing.put_nowait(script.answer(script.node_id, response.assign))
                case "cancel":
                    outgoing.put_nowait(given_up(response.cancel))
                case "read_log":
                    outgoing.put_nowait(_log(response.read_log))
                case _:
                    pass
    except aio.AioRpcError as failure:
        if failure.code() is not grpc.StatusCode.PERMISSION_DENIED:  # the node was cut off, as somebody wanted
            raise


def _log(asked: agent_service_pb2.ReadLog) -> agent_service_pb2.LogText:
    """Ten lines of whatever component but one."""
    if asked.component == "silent":
        return agent_service_pb2.LogText(request_id=asked.request_id, error="it has never run here")
    text = "".join(f"{asked.component} line {number} of {asked.max_bytes}\n" for number in range(1, 11))
    return agent_service_pb2.LogText(request_id=asked.request_id, instance_id="i-1", text=text)


async def _said(script: _Script, outgoing: asyncio.Queue[_Said]) -> AsyncIterator[agent_service_pb2.ConnectRequest]:
    hello = agent_service_pb2.Hello(
        node_id=script.node_id,
        boot_id="boot",
        instance_token=script.node_id,
        protocol_versions=[1],
        agent_version="0.1.0",
        capabilities=["driver.handover"],
        labels={"zone": "a"},
        report=script.report or agent_service_pb2.Report(),
    )
    yield agent_service_pb2.ConnectRequest(sequence=1, hello=hello)
    sequence = 1
    while True:
        sequence += 1
        said: _Said = agent_service_pb2.Report()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                said = await outgoing.get()
        if isinstance(said, agent_service_pb2.LogText):
            yield agent_service_pb2.ConnectRequest(sequence=sequence, log_text=said)
            continue
        beat = agent_service_pb2.Heartbeat(report=said)
        beat.send_time.GetCurrentTime()
        yield agent_service_pb2.ConnectRequest(sequence=sequence, heartbeat=beat)
