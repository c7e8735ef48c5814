"""A controller to talk to: where it is, what is shown to it, and errors as this side knows them.

Rules kept here: each call has a deadline; whatever fails leaves as a CommandError with its exit code. Left out: what is
asked, which is in the commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from grpc import aio

from controller.cli import credentials, failures
from controller.core import errors
from controller.rpc import errors as rpc_errors
from instar.v1 import (
    audit_service_pb2_grpc,
    fleet_service_pb2_grpc,
    release_service_pb2_grpc,
    rollout_service_pb2_grpc,
    trigger_service_pb2_grpc,
)

CALL_SECONDS = 40.0  # one answer: the controller itself gives a plan 30 s
_CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a proxy never leads to a loopback address
    ("grpc.max_reconnect_backoff_ms", 1000),  # a restarted controller is found within a second
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.keepalive_time_ms", 30_000),  # notices a controller that is gone without a word
    ("grpc.max_receive_message_length", 64 << 20),  # a rollout of 100,000 nodes in one answer
)
_Result = TypeVar("_Result")


class Connection:
    """A connection to one controller."""

    def __init__(self, address: str, shown: credentials.Token | credentials.Certificates) -> None:
        self._metadata: tuple[tuple[str, str], ...] = ()
        if isinstance(shown, credentials.Token):
            self._metadata = (("authorization", f"Bearer {shown.text.reveal()}"),)
        self._channel = dial(address, shown)
        self.audit = audit_service_pb2_grpc.AuditServiceStub(self._channel)
        self.releases = release_service_pb2_grpc.ReleaseServiceStub(self._channel)
        self.rollouts = rollout_service_pb2_grpc.RolloutServiceStub(self._channel)
        self.fleet = fleet_service_pb2_grpc.FleetServiceStub(self._channel)
        self.triggers = trigger_service_pb2_grpc.TriggerServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Close the connection."""
        await self._channel.close()

    async def call(self, method: Callable[..., Awaitable[_Result]], request: object, *, seconds: float) -> _Result:
        """Call a method that answers once.

        Raises:
            CommandError: It was refused, or nobody answered.
        """
        try:
            return await method(request, metadata=self._metadata, timeout=seconds)
        except aio.AioRpcError as failure:
            raise failures.of_controller(rpc_errors.from_rpc(failure)) from failure

    async def stream(self, method: Callable[..., Any], request: object) -> AsyncIterator[Any]:
        """Call a method that goes on answering.

        Raises:
            UnavailableError: Nobody answers any more; the caller may try again.
            CommandError: It was refused.
        """
        try:
            async for response in method(request, metadata=self._metadata):
                yield response
        except aio.AioRpcError as failure:
            error = rpc_errors.from_rpc(failure)
            if isinstance(error, errors.UnavailableError):
                raise error from failure
            raise failures.of_controller(error) from failure


def dial(address: str, shown: credentials.Token | credentials.Certificates) -> aio.Channel:
    """Make a channel to a controller; a token goes with each call, not with the channel."""
    if shown.roots is None:
        return aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
    pair = (None, None) if isinstance(shown, credentials.Token) else (shown.key, shown.certificate)
    return aio.secure_channel(address, grpc.ssl_channel_credentials(shown.roots, *pair), options=_CHANNEL_OPTIONS)


def with_controller(address: str, token_file: Path | None, work: Callable[[Connection], Awaitable[_Result]]) -> _Result:
    """Do some work with a controller, and return what came of it."""

    async def connected() -> _Result:
        async with Connection(address, credentials.find(address, token_file)) as connection:
            return await work(connection)

    return asyncio.run(connected())


def answer(address: str, token_file: Path | None, method: str, request: object) -> Any:  # noqa: ANN401  # any response
    """Call one method of one service, named ``service.Method`` as in ``fleet.ListNodes``."""
    service, _, name = method.partition(".")

    async def work(connection: Connection) -> object:
        stub = getattr(connection, service)
        return await connection.call(getattr(stub, name), request, seconds=CALL_SECONDS)

    return with_controller(address, token_file, work)
