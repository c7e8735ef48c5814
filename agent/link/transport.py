"""How the messages of the link travel: a port, so that they can also travel in memory, and gRPC behind it.

Rules kept: each stream has a channel of its own, so that nothing but the back-off decides when to connect again and a
download never stands in a heartbeat's way; a read is never given up while the call shall live on; every failure leaves
as `LinkError`. Left out: what the messages say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import NamedTuple, Protocol, TypeVar, cast

from grpc import StatusCode, aio

from agent.core import secret
from instar.v1 import agent_service_pb2, agent_service_pb2_grpc

KEEPALIVE = timedelta(seconds=30)  # a peer that vanished is noticed within this and the next
KEEPALIVE_TIMEOUT = timedelta(seconds=10)  # for the answer to a ping
CHUNK_DEADLINE = timedelta(seconds=30)  # for the next chunk of a download; then the download ends and may be resumed
RETRY_AFTER_MAX = timedelta(minutes=10)  # that a controller can keep an agent away at one stroke
RECEIVED_BYTES_MAX = 2 << 20  # 2 MiB of one message: twice the largest chunk of a bundle
SENT_BYTES_MAX = 2 << 20  # 2 MiB: as much as a controller takes
REFUSALS = frozenset(
    {StatusCode.UNIMPLEMENTED, StatusCode.NOT_FOUND, StatusCode.FAILED_PRECONDITION, StatusCode.INVALID_ARGUMENT}
)
RETRY_AFTER_KEY = "retry-after-ms"  # trailing metadata of a controller that turns a session away for now

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", KEEPALIVE // timedelta(milliseconds=1)),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT // timedelta(milliseconds=1)),
    ("grpc.http2.max_pings_without_data", 0),  # a quiet stream is pinged for as long as it lives
    ("grpc.use_local_subchannel_pool", 1),  # channels share no connection and no back-off of their own
    ("grpc.enable_retries", 0),  # trying again is the link's decision
    ("grpc.max_receive_message_length", RECEIVED_BYTES_MAX),
    ("grpc.max_send_message_length", SENT_BYTES_MAX),
)


class LinkError(Exception):
    """The controller cannot be reached, or it ended the call.

    Args:
        retry_after: How long the controller wants to be left alone; nothing when it did not say.
        is_refusal: It was reached and said no; asked again, it would say the same.
    """

    def __init__(self, message: str, *, retry_after: timedelta = timedelta(), is_refusal: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.is_refusal = is_refusal


class Piece(NamedTuple):
    """A piece of a file of release metadata; nobody has checked anything of it."""

    name: str
    content: bytes
    is_last_piece: bool


class Stream(Protocol):
    """One stream to the controller; every method raises `LinkError` when it is gone."""

    async def send(self, request: agent_service_pb2.ConnectRequest) -> None:
        """Return once the message has left."""
        ...

    async def receive(self) -> agent_service_pb2.ConnectResponse | None:
        """Return the next message, or None when the controller has ended the stream."""
        ...

    async def close(self) -> None:
        """End it; closing twice is success."""
        ...


class Transport(Protocol):
    """The way to the controller."""

    async def connect(self) -> Stream:
        """Open a stream; that nobody answers may show only in its first use."""
        ...

    def read_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Read a bundle from a byte on; raises `LinkError`."""
        ...

    def read_trust(self, root_version: int, component: str) -> AsyncIterator[Piece]:
        """Read the release metadata of a component, and each root after a version; raises `LinkError`."""
        ...


class GrpcTransport:
    """The way to the controller over gRPC.

    Args:
        address: ``host:port``.
        token: The bearer token of this node.
    """

    def __init__(self, address: str, token: secret.Secret[str]) -> None:
        self._address = address
        self._metadata = aio.Metadata(("authorization", f"Bearer {token.reveal()}"))

    async def connect(self) -> GrpcStream:
        """Open a stream on a channel of its own."""
        return GrpcStream(self._channel(), self._metadata)

    async def read_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Read a bundle from a byte on, over a channel of its own."""
        async with self._channel() as channel:
            stub = agent_service_pb2_grpc.AgentServiceStub(channel)
            request = agent_service_pb2.ReadBlobRequest(digest=digest, offset=offset)
            async for response in _responses(stub.ReadBlob(request, metadata=self._metadata), digest):
                yield response.chunk

    async def read_trust(self, root_version: int, component: str) -> AsyncIterator[Piece]:
        """Read the release metadata of a component, over a channel of its own."""
        async with self._channel() as channel:
            stub = agent_service_pb2_grpc.AgentServiceStub(channel)
            request = agent_service_pb2.ReadTrustRequest(root_version=root_version, component=component)
            what = f"the metadata of {component}"
            async for response in _responses(stub.ReadTrust(request, metadata=self._metadata), what):
                yield Piece(response.name, response.content, response.is_last_piece)

    def _channel(self) -> aio.Channel:
        return aio.insecure_channel(self._address, options=_CHANNEL_OPTIONS)


async def _responses(call: aio.UnaryStreamCall[_Request, _Response], what: str) -> AsyncIterator[_Response]:
    """Read to the end of a call, each response within a deadline."""
    try:
        while True:
            # Giving a read up ends the whole call; here that is what is wanted.
            async with asyncio.timeout(CHUNK_DEADLINE.total_seconds()):
                response = await call.read()
            if response is aio.EOF:
                return
            yield cast("_Response", response)
    except aio.AioRpcError as error:
        raise _link_error(error) from error
    except asyncio.InvalidStateError as error:  # what gRPC raises for a call that has ended
        raise LinkError(f"cannot read {what}: the call has ended") from error
    except TimeoutError as error:
        raise LinkError(f"cannot read {what}: nothing came for {CHUNK_DEADLINE}") from error
    finally:
        call.cancel()


class GrpcStream:
    """One call of Connect; owns its channel."""

    def __init__(self, channel: aio.Channel, metadata: aio.Metadata) -> None:
        self._channel = channel
        self._call = agent_service_pb2_grpc.AgentServiceStub(channel).Connect(metadata=metadata)

    async def send(self, request: agent_service_pb2.ConnectRequest) -> None:
        """Return once gRPC has taken the message."""
        try:
            await self._call.write(request)
        except aio.AioRpcError as error:
            raise _link_error(error) from error
        except asyncio.InvalidStateError as error:  # what gRPC raises for a call that has ended
            raise LinkError("cannot send: the stream has ended") from error

    async def receive(self) -> agent_service_pb2.ConnectResponse | None:
        """Return the next message; giving this up ends the stream."""
        try:
            response = await self._call.read()
        except aio.AioRpcError as error:
            raise _link_error(error) from error
        except asyncio.InvalidStateError as error:  # as in `send`
            raise LinkError("cannot receive: the stream has ended") from error
        return response if isinstance(response, agent_service_pb2.ConnectResponse) else None

    async def close(self) -> None:
        """Cancel the call and close the connection."""
        self._call.cancel()
        await self._channel.close()


def _link_error(error: aio.AioRpcError) -> LinkError:
    told = dict(error.trailing_metadata() or ())
    retry_after = _retry_after(str(told.get(RETRY_AFTER_KEY, "")))
    message = f"cannot go on with the call: {error.code().name}: {error.details()}"
    return LinkError(message, retry_after=retry_after, is_refusal=error.code() in REFUSALS)


def _retry_after(text: str) -> timedelta:
    """What a controller asks for, as far as it is a number; whatever it says, not for long."""
    if not text.isdecimal():
        return timedelta()
    is_long = len(text) > len(str(RETRY_AFTER_MAX // timedelta(milliseconds=1)))
    return RETRY_AFTER_MAX if is_long else min(timedelta(milliseconds=int(text)), RETRY_AFTER_MAX)
