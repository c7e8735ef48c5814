"""A controller that does as it likes, and a real node under it: the real protocol over real gRPC, a real agent.

Rules kept: it speaks as the real one does, so that a node has no other reason to refuse it; it judges nothing, and
serves whatever a test has put in.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from google.protobuf import duration_pb2, timestamp_pb2
from grpc import StatusCode, aio

from agent import processes
from instar.v1 import agent_service_pb2, agent_service_pb2_grpc, node_pb2, operation_pb2
from tests.agent import bundles, live_node
from tests.agent.keeper import node as keeper_node

PATIENCE_SECONDS = 60.0  # for anything that takes a few seconds on a quiet machine
HEARTBEAT_PERIOD = timedelta(seconds=0.5)
CHUNK_BYTES = 4096
ENDED = (
    operation_pb2.OPERATION_STATE_REFUSED,
    operation_pb2.OPERATION_STATE_ABORTED,
    operation_pb2.OPERATION_STATE_PERMANENT,
)
_Context = aio.ServicerContext[
    AsyncIterator[agent_service_pb2.ConnectRequest], AsyncIterator[agent_service_pb2.ConnectResponse]
]
_Blob = aio.ServicerContext[agent_service_pb2.ReadBlobRequest, AsyncIterator[agent_service_pb2.ReadBlobResponse]]
_Trust = aio.ServicerContext[agent_service_pb2.ReadTrustRequest, AsyncIterator[agent_service_pb2.ReadTrustResponse]]
ReadBlob = Callable[[bytes, int], AsyncIterator[bytes]]


async def honest(data: bytes, offset: int) -> AsyncIterator[bytes]:
    """Send a bundle as it is."""
    for start in range(offset, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


class Controller(agent_service_pb2_grpc.AgentServiceServicer):
    """What it serves, and what it was told."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.metadata: dict[str, bytes] = {}
        self.read_blob: ReadBlob = honest
        self.offsets: list[int] = []
        self.bytes_served = 0
        self.roots_asked: list[int] = []
        self.told: dict[str, operation_pb2.OperationStatus] = {}
        self.steps: list[operation_pb2.StepRecord] = []
        self.components: dict[str, node_pb2.ComponentStatus] = {}
        self.conditions: set[str] = set()
        self.fence = 0
        self.logs: set[int] = set()  # questions for a log that were answered
        self._assigned: dict[str, agent_service_pb2.Assign] = {}
        self._answers: asyncio.Queue[agent_service_pb2.ConnectResponse] | None = None

    async def Connect(  # noqa: N802  # gRPC names its methods
        self, request_iterator: AsyncIterator[agent_service_pb2.ConnectRequest], context: _Context
    ) -> AsyncIterator[agent_service_pb2.ConnectResponse]:
        del context
        answers: asyncio.Queue[agent_service_pb2.ConnectResponse] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(request_iterator, answers), name="what the agent says")
            while not listening.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        yield await answers.get()

    async def ReadBlob(  # noqa: N802  # as above
        self, request: agent_service_pb2.ReadBlobRequest, context: _Blob
    ) -> AsyncIterator[agent_service_pb2.ReadBlobResponse]:
        self.offsets.append(request.offset)
        if request.digest not in self.blobs:
            await context.abort(StatusCode.NOT_FOUND, f"there is no {request.digest}")
        data = self.blobs[request.digest]
        try:
            async for chunk in self.read_blob(data, request.offset):
                self.bytes_served += len(chunk)
                yield agent_service_pb2.ReadBlobResponse(chunk=chunk, total_bytes=len(data))
        except ConnectionError as error:
            await context.abort(StatusCode.UNAVAILABLE, str(error))

    async def ReadTrust(  # noqa: N802  # as above
        self, request: agent_service_pb2.ReadTrustRequest, context: _Trust
    ) -> AsyncIterator[agent_service_pb2.ReadTrustResponse]:
        del context
        self.roots_asked.append(request.root_version)
        for name, content in self.metadata.items():
            middle = len(content) // 2
            yield agent_service_pb2.ReadTrustResponse(name=name, content=content[:middle])
            yield agent_service_pb2.ReadTrustResponse(name=name, content=content[middle:], is_last_piece=True)

    def publish(self, data: bytes) -> str:
        """Serve a bundle; returns its digest."""
        digest = bundles.digest_of(data)
        self.blobs[digest] = data
        return digest

    def order(self, version: str, digest: str, old: str = "", component: str = "web") -> str:
        """Have the node install something; returns the operation's id."""
        self.fence += 1
        operation_id = f"op-{self.fence}"
        kind = operation_pb2.CHANGE_KIND_UPGRADE if old else operation_pb2.CHANGE_KIND_INSTALL
        assign = agent_service_pb2.Assign(
            operation_id=operation_id,
            fence=self.fence,
            attempt=1,
            component=component,
            kind=kind,
            method=operation_pb2.METHOD_HOT_SWAP,
            from_digest=old,
            to_digest=digest,
            to_version=version,
            deadline=_duration(timedelta(seconds=60)),
            soak_duration=_duration(timedelta(seconds=0.3)),
            min_healthy_duration=_duration(timedelta(seconds=0.5)),
            healthy_deadline=_duration(timedelta(seconds=40)),
        )
        self._assigned[operation_id] = assign
        if self._answers is not None:
            self._answers.put_nowait(agent_service_pb2.ConnectResponse(assign=assign))
        return operation_id

    async def say(self, *messages: agent_service_pb2.ConnectResponse) -> None:
        """Say anything; returns when the agent has taken it: it answers a question that stands behind all that.

        It is said again in a new session.
        """
        asked = len(self.logs) + 1
        question = agent_service_pb2.ConnectResponse(
            read_log=agent_service_pb2.ReadLog(request_id=asked, component="nobody", max_bytes=1)
        )
        said_to = None

        def is_taken() -> bool:
            nonlocal said_to
            if self._answers is not None and said_to is not self._answers:
                said_to = self._answers
                for each in (*messages, question):
                    said_to.put_nowait(each)
            return asked in self.logs

        await until(is_taken)

    async def ended(self, operation_id: str) -> operation_pb2.OperationStatus:
        """Wait until an operation has ended."""
        await until(lambda: operation_id in self.told and self.told[operation_id].state in ENDED)
        return self.told[operation_id]

    async def _listen(
        self,
        requests: AsyncIterator[agent_service_pb2.ConnectRequest],
        answers: asyncio.Queue[agent_service_pb2.ConnectResponse],
    ) -> None:
        async for request in requests:
            if request.WhichOneof("message") == "hello":
                answers.put_nowait(agent_service_pb2.ConnectResponse(welcome=_welcome()))
                self._take(request.hello.report)
                for operation_id, assign in self._assigned.items():
                    if operation_id not in self.told:
                        answers.put_nowait(agent_service_pb2.ConnectResponse(assign=assign))
                self._answers = answers
            elif request.WhichOneof("message") == "heartbeat":
                self._take(request.heartbeat.report)
            elif request.WhichOneof("message") == "log_text":
                self.logs.add(request.log_text.request_id)
            acknowledgement = agent_service_pb2.Acknowledgement(
                sequence=request.sequence, server_time=_now(), heartbeat_period=_duration(HEARTBEAT_PERIOD)
            )
            answers.put_nowait(agent_service_pb2.ConnectResponse(acknowledgement=acknowledgement))

    def _take(self, report: agent_service_pb2.Report) -> None:
        self.told |= {each.operation_id: each for each in report.operations}
        self.components |= {each.name: each for each in report.components}
        self.steps += report.steps
        if report.HasField("conditions"):
            self.conditions = {each.code for each in report.conditions.items}


_generations = itertools.count(1)


def _welcome() -> agent_service_pb2.Welcome:
    generation = next(_generations)
    return agent_service_pb2.Welcome(
        session_id=f"session-{generation}",
        session_generation=generation,
        protocol_version=1,
        heartbeat_period=_duration(HEARTBEAT_PERIOD),
        server_time=_now(),
    )


class Node:
    """A real keeper with the real agent under it."""

    def __init__(self, root: Path, port: int, pinned: bytes | None) -> None:
        self.root = root
        self.keeper = keeper_node.Node(root)
        self.log = root / "agent.log"
        self._config = root / "agent.toml"
        host, web_port = self.keeper.address
        token = root / "token"
        token.write_text("a-token")
        token.chmod(0o600)
        lines = [
            'node_id = "n1"',
            f'state_dir = "{self.keeper.state}"',
            f'run_dir = "{self.keeper.run}"',
            f'controller = "127.0.0.1:{port}"',
            f'token_file = "{token}"',
        ]
        if pinned is not None:
            (root / "root.json").write_bytes(pinned)
            (root / "trust.toml").write_text('root = "root.json"\n')
            lines.append(f'trust_file = "{root}/trust.toml"')
        self._config.write_text("\n".join([*lines, "[sockets.web]", f'http = "{host}:{web_port}"', ""]))

    def start(self, *, is_keeper_told: bool = True, within: Sequence[str] = ()) -> None:
        command = f'exec "{sys.executable}" -m agent --config "{self._config}" 2>>"{self.log}"'
        self.keeper.start("sh", "-c", command, within=within, config=self._config if is_keeper_told else None)

    async def versions(self) -> list[str]:
        """Versions that run."""
        client = await self.keeper.client()
        seen = (await client.inspect()).instances
        await client.close()
        return [each.version for each in seen if each.state is not processes.InstanceState.EXITED]


@contextlib.asynccontextmanager
async def leading(
    pinned: bytes | None, *, is_keeper_told: bool = True, within: Sequence[str] = ()
) -> AsyncIterator[tuple[Controller, Node]]:
    """Run a controller and a node under it, and leave nothing behind.

    Args:
        pinned: The root that the node trusts; None for a node that was told nobody.
        is_keeper_told: Whether the keeper gets the configuration; without, its verifier asks for no signatures, as one
            from before there were any.
        within: Command that becomes the keeper.
    """
    controller = Controller()
    server = aio.server()
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(controller, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    root = Path(tempfile.mkdtemp(prefix="in-"))  # tmp_path is too long for socket paths
    node = Node(root, port, pinned)
    node.start(is_keeper_told=is_keeper_told, within=within)
    try:
        yield controller, node
    except BaseException as error:
        error.add_note(node.log.read_text()[-8000:] if node.log.exists() else "the agent wrote nothing")
        raise
    finally:
        await node.keeper.end()
        await server.stop(0)
        shutil.rmtree(root, ignore_errors=True)


def web(version: str, *, name: str = "web", environment: str = "") -> bytes:
    """A bundle of the service that tests swap."""
    times = {"prepare_timeout": "20s", "drain_timeout": "5s", "extra": ""}
    manifest = live_node.MANIFEST.format(version=version, environment=environment, **times)
    manifest = manifest.replace('name = "web"', f'name = "{name}"', 1)
    return bundles.bundle({"instar.toml": manifest.encode(), "service.py": live_node.SERVICE})


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until a condition holds, with a deadline."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(0.02)


def _now() -> timestamp_pb2.Timestamp:
    made = timestamp_pb2.Timestamp()
    made.FromDatetime(datetime.now(UTC))  # noqa: TID251  # the clock of a controller
    return made


def _duration(span: timedelta) -> duration_pb2.Duration:
    made = duration_pb2.Duration()
    made.FromTimedelta(span)
    return made
