"""The door, in front of real services over real gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from grpc import aio
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # ships no stubs

from controller import clock, engine
from controller.core import errors
from controller.rpc import door, policies, register
from controller.rpc import errors as rpc_errors
from instar.v1 import (
    agent_service_pb2,
    audit_service_pb2,
    enrolment_service_pb2,
    fleet_service_pb2,
    release_service_pb2,
    rollout_service_pb2,
    trigger_service_pb2,
)
from tests.controller.rpc import doors

SERVICES = [
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (agent_service_pb2, "AgentService"),
        (audit_service_pb2, "AuditService"),
        (enrolment_service_pb2, "EnrolmentService"),
        (fleet_service_pb2, "FleetService"),
        (release_service_pb2, "ReleaseService"),
        (rollout_service_pb2, "RolloutService"),
        (trigger_service_pb2, "TriggerService"),
        (health_pb2, "Health"),
    )
]
API_METHOD = "/instar.v1.FleetService/ListNodes"
ORDER_METHOD = "/instar.v1.RolloutService/StartUpgrade"
AGENT_METHOD = "/instar.v1.AgentService/ReadBlob"
_Context = aio.ServicerContext[Any, Any]
Ask = Callable[[str, str | None], Awaitable[object]]


def test_every_method_that_is_served_has_a_policy_and_no_other_has() -> None:
    served = {f"/{service.full_name}/{method.name}" for service in SERVICES for method in service.methods}
    assert set(policies.POLICIES) == served


def test_only_health_and_coming_in_are_for_everybody() -> None:
    open_to_all = {method for method, policy in policies.POLICIES.items() if policy.kind is None}
    coming_in = {f"/instar.v1.EnrolmentService/{name}" for name in ("Enrol", "BeginRecovery", "Recover")}
    assert all(method.startswith("/grpc.health.v1.Health/") for method in open_to_all - coming_in)


class Behaviours:
    """What the methods behind the door do."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls = 0
        self.kept: list[tuple[engine.Asked, errors.InstarError]] = []
        self.keeping: errors.InstarError | None = None

    async def keep(self, asked: engine.Asked, error: errors.InstarError) -> None:
        if self.keeping is not None:
            raise self.keeping
        self.kept.append((asked, error))

    def act(self) -> empty_pb2.Empty:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return empty_pb2.Empty()

    async def answer(self, _request: object, _context: _Context) -> empty_pb2.Empty:
        return self.act()

    async def stream(self, _request: object, _context: _Context) -> AsyncIterator[empty_pb2.Empty]:
        yield empty_pb2.Empty()
        yield self.act()


@asynccontextmanager
async def standing(enrolled: register.Register, behaviours: Behaviours) -> AsyncIterator[Ask]:
    """A server with one answering and one streaming method, and a way to call them with a token."""
    server = aio.server(
        interceptors=[door.Door(doors.guards(enrolled, None, clock.SystemClock()), behaviours.keep, lambda _: None)]
    )
    answering: Any = grpc.unary_unary_rpc_method_handler(behaviours.answer, bytes, _serialized)
    streaming: Any = grpc.unary_stream_rpc_method_handler(behaviours.stream, bytes, _serialized)
    for service, method, handler in (
        ("instar.v1.FleetService", "ListNodes", answering),
        ("instar.v1.RolloutService", "StartUpgrade", answering),
        ("instar.v1.AgentService", "ReadBlob", streaming),
        ("instar.v1.Unheard", "Of", answering),
    ):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel: Any  # the stubs of generic calls know no types of messages
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def ask(method: str, token: str | None) -> object:
            metadata = (("authorization", f"Bearer {token}"),) if token else ()
            if method == AGENT_METHOD:
                return [one async for one in channel.unary_stream(method)(b"", metadata=metadata)]
            return await channel.unary_unary(method)(b"", metadata=metadata)

        yield ask
    await server.stop(None)


def _serialized(message: empty_pb2.Empty) -> bytes:
    return message.SerializeToString()


async def failure(ask: Ask, method: str, token: str | None) -> errors.InstarError:
    with pytest.raises(aio.AioRpcError) as caught:
        await ask(method, token)
    return rpc_errors.from_rpc(caught.value)


async def test_each_kind_of_caller_passes_where_its_policy_says_and_nowhere_else(tmp_path: Path) -> None:
    enrolled = doors.enrolled(tmp_path)
    behaviours = Behaviours()
    api = enrolled.make_token(doors.api("ci")).reveal()
    agent = enrolled.make_token(doors.agent("n-1")).reveal()
    async with standing(enrolled, behaviours) as ask:
        assert await ask(API_METHOD, api) == b""
        assert await ask(AGENT_METHOD, agent) == [b"", b""]
        for method, token in ((API_METHOD, agent), (AGENT_METHOD, api), ("/instar.v1.Unheard/Of", api)):
            found = await failure(ask, method, token)
            assert (found.code, found.field) == ("permission_denied", "token")
    assert behaviours.calls == 2


@pytest.mark.parametrize(("token", "code"), [(None, "token_missing"), ("wrong", "token_unknown")])
@pytest.mark.parametrize("method", [API_METHOD, AGENT_METHOD])
async def test_nobody_passes_without_a_token_of_this_controller(
    tmp_path: Path, method: str, token: str | None, code: str
) -> None:
    behaviours = Behaviours()
    async with standing(doors.enrolled(tmp_path), behaviours) as ask:
        found = await failure(ask, method, token)
    assert isinstance(found, errors.UnauthenticatedError)
    assert (found.code, found.field) == (code, "token")
    assert behaviours.calls == 0


@pytest.mark.parametrize("method", [API_METHOD, AGENT_METHOD])
async def test_an_error_of_the_core_leaves_with_what_it_names(tmp_path: Path, method: str) -> None:
    enrolled = doors.enrolled(tmp_path)
    behaviours = Behaviours()
    behaviours.error = errors.RefusedError("cannot do it", code="not_now", field="window")
    token = enrolled.make_token(doors.api("n-1") if method == API_METHOD else doors.agent("n-1")).reveal()
    async with standing(enrolled, behaviours) as ask:
        found = await failure(ask, method, token)
    assert (type(found), found.code, found.field) == (errors.RefusedError, "not_now", "window")


@pytest.mark.parametrize("method", [API_METHOD, AGENT_METHOD])
async def test_an_error_that_nobody_foresaw_tells_the_log_all_and_the_caller_nothing(
    tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    enrolled = doors.enrolled(tmp_path)
    behaviours = Behaviours()
    behaviours.error = KeyError("the secret path /var/lib/x")
    token = enrolled.make_token(doors.api("n-1") if method == API_METHOD else doors.agent("n-1")).reveal()
    async with standing(enrolled, behaviours) as ask:
        found = await failure(ask, method, token)
    assert (type(found), found.code) == (errors.InstarError, "internal")
    assert "secret" not in str(found)
    assert "secret" in caplog.text


async def test_what_a_known_caller_is_refused_goes_on_the_record_by_the_name_of_the_method(tmp_path: Path) -> None:
    enrolled = doors.enrolled(tmp_path)
    behaviours = Behaviours()
    behaviours.error = errors.InvalidRequestError("cannot do it", code="unknown_strategy", field="strategy")
    people = enrolled.make_token(doors.api("ann")).reveal()
    agent = enrolled.make_token(doors.agent("n-1")).reveal()
    async with standing(enrolled, behaviours) as ask:
        for token in (people, agent, "wrong", None):
            await failure(ask, ORDER_METHOD, token)
        await failure(ask, API_METHOD, people)  # it only reads
    kept = [(asked.actor, asked.action, error.code) for asked, error in behaviours.kept]
    assert kept == [("ann", "start_upgrade", "unknown_strategy"), ("n-1", "start_upgrade", "permission_denied")]


async def test_a_refusal_that_cannot_be_kept_is_a_refusal_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    enrolled = doors.enrolled(tmp_path)
    behaviours = Behaviours()
    behaviours.error = errors.InvalidRequestError("cannot do it", code="unknown_strategy", field="strategy")
    behaviours.keeping = errors.UnavailableError("cannot write: the disk is full", code="store_full")
    token = enrolled.make_token(doors.api("ann")).reveal()
    async with standing(enrolled, behaviours) as ask:
        found = await failure(ask, ORDER_METHOD, token)
    assert found.code == "unknown_strategy"
    assert "the disk is full" in caplog.text
