"""A real controller in this process, callers of every kind before it, and agents that only keep a session open."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import pkgutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor, message, message_factory
from grpc import aio

from controller import server
from controller.config import settings
from controller.core import errors, roles
from controller.rpc import errors as rpc_errors
from controller.rpc import principals, register
from instar import v1
from instar.v1 import agent_service_pb2, agent_service_pb2_grpc, fleet_service_pb2

DEADLINE_SECONDS = 60.0
# Every service of the contract, also one that somebody adds.
SERVICES = tuple(
    service
    for module in pkgutil.iter_modules(v1.__path__, "instar.v1.")
    if module.name.endswith("_service_pb2")
    for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values()
)
Metadata = tuple[tuple[str, str], ...]
LIST = fleet_service_pb2.ListNodesRequest()


@dataclass(frozen=True)
class Method:
    """One method of the contract, callable by what its descriptor says."""

    name: str
    request: type[message.Message]
    response: type[message.Message]
    has_streams: tuple[bool, bool]

    @property
    def path(self) -> str:
        return self.name

    async def call(self, channel: aio.Channel, request: message.Message, metadata: Metadata) -> Any:  # noqa: ANN401
        """Make one call; of a stream that answers, the first answer is taken."""
        make = getattr(channel, f"{_WORDS[self.has_streams[0]]}_{_WORDS[self.has_streams[1]]}")
        stub = make(self.name, request_serializer=lambda one: one.SerializeToString(), response_deserializer=self.read)
        asked: Any = _only(request) if self.has_streams[0] else request
        call = stub(asked, metadata=metadata, timeout=DEADLINE_SECONDS)
        if not self.has_streams[1]:
            return await call
        try:
            return await call.read()
        finally:
            call.cancel()

    def read(self, body: bytes) -> message.Message:
        found = self.response()
        found.ParseFromString(body)
        return found


_WORDS = {False: "unary", True: "stream"}


async def _only(request: message.Message) -> AsyncIterator[message.Message]:
    yield request


def methods(*, for_enrolment: bool = False) -> tuple[Method, ...]:
    """Every method that a controller without TLS serves; or those by which nodes come in, which need TLS."""
    served = (service for service in SERVICES if (service.name == "EnrolmentService") is for_enrolment)
    return tuple(_method(service, each) for service in served for each in service.methods)


def _method(service: descriptor.ServiceDescriptor, told: descriptor.MethodDescriptor) -> Method:
    kinds = (message_factory.GetMessageClass(told.input_type), message_factory.GetMessageClass(told.output_type))
    return Method(f"/{service.full_name}/{told.name}", *kinds, (told.client_streaming, told.server_streaming))


@dataclass(frozen=True)
class Post:
    """A controller that serves."""

    settings: settings.Settings
    address: str
    channel: aio.Channel

    @property
    def register(self) -> register.Register:
        """The register, as a command beside the controller would open it."""
        return register.Register(self.settings.principals_file)

    def somebody(self, name: str, *grants: roles.Grant) -> Metadata:
        """What a person or service shows that has been granted some roles just now."""
        return bearer(self.register.make_token(principals.Principal(principals.Kind.API, name, grants)).reveal())

    @property
    def operator(self) -> Metadata:
        return bearer(self.settings.operator_token_file.read_text().strip())

    def agent(self, node_id: str) -> Metadata:
        return bearer(self.register.make_token(principals.Principal(principals.Kind.AGENT, node_id)).reveal())

    async def ask(self, name: str, request: message.Message, shown: Metadata) -> Any:  # noqa: ANN401
        return await METHODS[name].call(self.channel, request, shown)

    async def refused(self, name: str, request: message.Message, shown: Metadata) -> errors.InstarError:
        with pytest.raises(aio.AioRpcError) as caught:
            await self.ask(name, request, shown)
        return rpc_errors.from_rpc(caught.value)

    @contextlib.asynccontextmanager
    async def nodes(self, labels: Mapping[str, Mapping[str, str]]) -> AsyncIterator[None]:
        """Have some nodes connected while the block runs; their labels by their names."""
        async with contextlib.AsyncExitStack() as stack:
            for node_id, each in labels.items():
                await stack.enter_async_context(session(self.channel, node_id, self.agent(node_id), each))
            yield


METHODS = {each.name.rpartition("/")[2]: each for each in methods()}


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


def hello(node_id: str, labels: Mapping[str, str] | None = None) -> agent_service_pb2.ConnectRequest:
    said = agent_service_pb2.Hello(
        node_id=node_id,
        boot_id="boot",
        instance_token=node_id,
        protocol_versions=[1],
        agent_version="0.1.0",
        capabilities=["driver.handover"],
        labels=labels or {},
    )
    return agent_service_pb2.ConnectRequest(sequence=1, hello=said)


@contextlib.asynccontextmanager
async def session(
    channel: aio.Channel, node_id: str, shown: Metadata, labels: Mapping[str, str] | None = None
) -> AsyncIterator[Any]:
    """One session that was welcomed, as the raw call."""
    call: Any = agent_service_pb2_grpc.AgentServiceStub(channel).Connect(metadata=shown)
    try:
        await call.write(hello(node_id, labels))
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert (await call.read()).HasField("welcome")
        yield call
    finally:
        call.cancel()


@contextlib.asynccontextmanager
async def serving(folder: Path, **changes: Any) -> AsyncIterator[Post]:  # noqa: ANN401  # of the settings
    """Serve, with a heartbeat so long that nobody is missed; and settings as wanted."""
    loaded = replace(settings.Settings("127.0.0.1:0", folder / "state", timedelta(minutes=5), None), **changes)
    async with server.serving(loaded) as address, aio.insecure_channel(address, options=ONE_CONNECTION) as channel:
        yield Post(loaded, address, channel)


ONE_CONNECTION = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


async def ended(call: Any) -> errors.InstarError:  # noqa: ANN401  # a call that answers with a stream
    """Wait until a stream is ended by the controller; why."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await call.read() is not aio.EOF:
                pass
    except aio.AioRpcError as failure:
        return rpc_errors.from_rpc(failure)
    pytest.fail("it ended in peace")


async def failing(call: Any) -> grpc.StatusCode:  # noqa: ANN401  # whatever can be waited for
    """What a call ends with that must not succeed."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def until(holds: Callable[[], object]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():  # noqa: ASYNC110 what is waited for lies in several places that have no event
            await asyncio.sleep(0.01)


def grant(role: roles.Role, scope: str = "") -> roles.Grant:
    return roles.grant(role.value, scope)


def names(found: Iterable[Any]) -> list[str]:
    return [each.node_id for each in found]
