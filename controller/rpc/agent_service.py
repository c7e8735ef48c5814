"""What agents call, over gRPC: a thin edge around `sessions` and the folder of bundles.

Rules kept: admission comes before cost; every message passes the one session of its stream; a stream whose session has
ended ends too, also when its peer takes nothing any more; a bundle is only for nodes that were asked to run it. Left
out: who may call (`door`), what is said (`sessions`).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from datetime import timedelta
from typing import Any, BinaryIO, Protocol

import grpc
from grpc import aio

from controller import clock
from controller.core import errors, model
from controller.rpc import admission, principals, session_ports, sessions, trust_pieces
from controller.rpc import errors as rpc_errors
from instar.v1 import agent_service_pb2, agent_service_pb2_grpc

CHUNK_BYTES = 1 << 20  # 1 MiB: a quarter of what gRPC lets through as one message
LINGER_SECONDS = 2.0  # for the last messages and the status of a session that has ended

_logger = logging.getLogger(__name__)

_Request = agent_service_pb2.ConnectRequest
_Response = agent_service_pb2.ConnectResponse
_Context = aio.ServicerContext[Any, Any]


class Engine(session_ports.Engine, Protocol):
    """What the service needs of the engine."""

    def wants(self, node_id: model.NodeId, digest: model.Digest) -> bool:
        """Tell whether a node has use for a bundle."""
        ...


class AgentService(agent_service_pb2_grpc.AgentServiceServicer):
    """The servicer.

    Args:
        caller: Who makes a call; raises UnauthenticatedError.
        vouch: Sees that who opens a stream shows its latest certificate; raises RefusedError.
        open_blob: Opens a kept bundle; raises InvalidRequestError or NotFoundError.
        read_trust: Files of signed metadata, by the newest root that the reader has and a component; raises
            RefusedError where none are kept.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        caller: Callable[[_Context], principals.Principal],
        open_blob: Callable[[model.Digest], BinaryIO],
        read_trust: Callable[[int, str], Iterable[tuple[str, bytes]]],
        clock: clock.Clock,
        vouch: Callable[[_Context], Awaitable[None]] | None = None,
    ) -> None:
        self._engine = engine
        self._caller = caller
        self._vouch = vouch
        self._open_blob = open_blob
        self._read_trust = read_trust
        self._clock = clock
        self._bucket = admission.TokenBucket(clock.monotonic)
        self.sessions = sessions.Sessions()
        self._lingering: set[asyncio.Task[None]] = set()

    async def Connect(self, request_iterator: AsyncIterator[_Request], context: _Context) -> AsyncIterator[_Response]:
        """Hold the session of one stream."""
        caller = self._caller(context)
        self._admit(caller)
        if self._vouch is not None:
            await self._vouch(context)
        stream = _Stream(request_iterator)
        session = sessions.AgentSession(self._engine, stream, caller=caller, registry=self.sessions, clock=self._clock)
        running = _guard(session, caller, stream)
        # A session whose call ends hears it as the end of its messages. A call whose session ends may not hear it: this
        # generator perhaps stands at a yield, behind a peer that takes nothing.
        call = asyncio.current_task()
        running.add_done_callback(lambda _: self._keep(_end_stuck(call, context)))
        async for response in stream.outgoing():
            yield response
        await running

    async def ReadBlob(
        self, request: agent_service_pb2.ReadBlobRequest, context: _Context
    ) -> AsyncIterator[agent_service_pb2.ReadBlobResponse]:
        """Send a bundle from an offset on, to a node that has use for it; of one that the agent has whole, nothing."""
        node_id = model.NodeId(self._caller(context).name)
        if not self._engine.wants(node_id, model.Digest(request.digest)):
            raise _not_asked_for(node_id, request.digest)
        blob = await asyncio.to_thread(self._open_blob, model.Digest(request.digest))
        try:
            total_bytes = blob.seek(0, io.SEEK_END)
            _check_offset(request.offset, total_bytes)
            blob.seek(request.offset)
            while chunk := await asyncio.to_thread(blob.read, CHUNK_BYTES):
                yield agent_service_pb2.ReadBlobResponse(chunk=chunk, total_bytes=total_bytes)
        finally:
            blob.close()

    async def ReadTrust(
        self, request: agent_service_pb2.ReadTrustRequest, context: _Context
    ) -> AsyncIterator[agent_service_pb2.ReadTrustResponse]:
        """Send the metadata that a node needs for one component."""
        del context
        for name, content, is_last in trust_pieces.cut(self._read_trust(request.root_version, request.component)):
            yield agent_service_pb2.ReadTrustResponse(name=name, content=content, is_last_piece=is_last)

    async def go_away(self) -> None:
        """End every session, telling the agents over which time to come back."""
        await self.sessions.go_away()

    def _admit(self, caller: principals.Principal) -> None:
        retry_after = self._bucket.take(is_urgent=self._engine.is_at_work(model.NodeId(caller.name)))
        if retry_after > timedelta():
            raise errors.ExhaustedError(
                f"cannot open a session: too many agents come at once; try again after {retry_after}",
                code="too_many_sessions",
                field="node_id",
                rule=f"at most {admission.SESSIONS_PER_SECOND:g} new sessions a second",
                retry_after=retry_after,
            )

    def _keep(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(ending, name="end of a stuck session")
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)


def _not_asked_for(node_id: model.NodeId, digest: str) -> errors.RefusedError:
    return errors.RefusedError(
        f"cannot send bundle {digest!r} to node {node_id}: it was not asked to run it",
        code=rpc_errors.PERMISSION_DENIED,
        field="digest",
        value=digest,
        rule="a bundle of an operation of this node, or one that it runs",
    )


def _check_offset(offset: int, total_bytes: int) -> None:
    if offset > total_bytes:
        raise errors.InvalidRequestError(
            f"cannot read from offset {offset}: the bundle has {total_bytes} bytes",
            code="offset_invalid",
            field="offset",
            value=str(offset),
            rule=f"from 0 to {total_bytes}",
        )


class _Stream:
    """One call of Connect, as the session sees it: what it sends is taken when the peer has room for it."""

    def __init__(self, requests: AsyncIterator[_Request]) -> None:
        self._requests = requests
        self._outgoing: asyncio.Queue[_Response | None] = asyncio.Queue()  # holds one message, then perhaps the end
        self._taken = asyncio.Event()

    async def receive(self) -> _Request | None:
        return await anext(self._requests, None)

    async def send(self, response: _Response) -> None:
        self._taken.clear()
        self._outgoing.put_nowait(response)
        await self._taken.wait()

    def end(self) -> None:
        self._outgoing.put_nowait(None)

    async def outgoing(self) -> AsyncIterator[_Response]:
        while (response := await self._outgoing.get()) is not None:
            yield response
            self._taken.set()


def _guard(session: sessions.AgentSession, caller: principals.Principal, stream: _Stream) -> asyncio.Task[None]:
    """Run a session beside its stream; its end is logged and ends the stream."""

    def ended(task: asyncio.Task[None]) -> None:
        stream.end()
        fault = None if task.cancelled() else task.exception()
        facts = {"node_id": caller.name, "session_generation": session.generation}
        _logger.info("the session ended: %s", fault or "in peace", extra=facts)

    task = asyncio.get_running_loop().create_task(session.run(), name=f"session of {caller.name}")
    task.add_done_callback(ended)
    return task


async def _end_stuck(call: asyncio.Task[Any] | None, context: _Context) -> None:
    """End a call that outlasts its session, as one does whose peer takes nothing.

    gRPC cannot cancel a call from the server's side: the status is queued behind the message that is stuck, and the
    handler ends at once.
    """
    await asyncio.sleep(LINGER_SECONDS)
    if call is None or call.done():
        return
    asyncio.get_running_loop().call_soon(call.cancel)
    with contextlib.suppress(aio.AbortError):
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "cannot go on with the session: the agent took nothing")
