"""An engine that notes what the API asks of it, and answers what the test has prepared."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from grpc import aio

from controller import clock, releases
from controller.core import errors, model
from controller.rpc import door, fleet_service, release_service, rollout_service, sessions, trigger_service
from controller.rpc import errors as rpc_errors
from controller.trust import unsigned
from instar.v1 import (
    fleet_service_pb2_grpc,
    release_service_pb2_grpc,
    rollout_service_pb2_grpc,
    trigger_service_pb2_grpc,
)
from tests.controller.rpc import doors

ACTOR = "ann"
# What the real one answers without waiting.
_AT_ONCE = frozenset(
    {
        *("rollout", "rollouts", "node", "nodes", "labels", "metrics", "release", "releases"),
        *("explain_rollout", "explain_node", "statistics", "graph", "freezes", "approvals"),
        *("rules", "rules_watched", "rules_looked_at"),
        *("triggers", "trigger", "firings", "firing", "explain_trigger"),
    }
)


@dataclass
class ScriptedEngine:
    """Answers by the name of the method; an error is raised."""

    answers: dict[str, object] = field(default_factory=dict)
    calls: list[tuple[str, tuple[object, ...], dict[str, object]]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Callable[..., object]:
        def now(*arguments: object, **named: object) -> object:
            self.calls.append((name, arguments, named))
            answer = self.answers.get(name)
            if isinstance(answer, errors.InstarError):
                raise answer
            return answer

        async def later(*arguments: object, **named: object) -> object:
            return now(*arguments, **named)

        return now if name in _AT_ONCE else later

    def asked(self, name: str) -> tuple[tuple[object, ...], dict[str, object]]:
        """What one method was called with, the only time it was."""
        found = [(arguments, named) for called, arguments, named in self.calls if called == name]
        assert len(found) == 1, f"{name} was called {len(found)} times"
        return found[0]

    @property
    def changes(self) -> list[str]:
        """The calls that would have changed something."""
        return [name for name, _, _ in self.calls if name not in _AT_ONCE and name not in ("plan", "keep_refusal")]


@dataclass
class Stage:
    """A server with a scripted engine behind it."""

    engine: ScriptedEngine
    stubs: Any  # of all services
    metadata: tuple[tuple[str, str], ...]

    async def ask(self, method: str, request: object) -> Any:  # noqa: ANN401  # whatever it answers
        call: Callable[..., Awaitable[object]] = getattr(self.stubs, method)
        return await call(request, metadata=self.metadata)

    async def refused(self, method: str, request: object) -> errors.InstarError:
        """Ask what must be refused; nothing was asked of the engine that would change something."""
        before = self.engine.changes
        with pytest.raises(aio.AioRpcError) as caught:
            await self.ask(method, request)
        assert self.engine.changes == before
        return rpc_errors.from_rpc(caught.value)


class _Stubs:
    def __init__(self, channel: aio.Channel) -> None:
        self._all = (
            fleet_service_pb2_grpc.FleetServiceStub(channel),
            release_service_pb2_grpc.ReleaseServiceStub(channel),
            rollout_service_pb2_grpc.RolloutServiceStub(channel),
            trigger_service_pb2_grpc.TriggerServiceStub(channel),
        )

    def __getattr__(self, method: str) -> object:
        return next(getattr(stub, method) for stub in self._all if hasattr(stub, method))


@contextlib.asynccontextmanager
async def standing(folder: Path, time: clock.Clock) -> AsyncIterator[Stage]:
    """Serve on loopback, and call as somebody who may."""
    scripted = ScriptedEngine()
    machine = cast("Any", scripted)
    enrolled = doors.enrolled(folder)
    token = enrolled.make_token(doors.api(ACTOR)).reveal()
    guards = doors.guards(enrolled, machine, time)
    known = guards.callers
    server = aio.server(interceptors=[door.Door(guards, machine.keep_refusal, lambda _: None)])
    fleet_service_pb2_grpc.add_FleetServiceServicer_to_server(
        fleet_service.FleetService(machine, sessions.Sessions(), known, enrolled, time), server
    )
    release_service_pb2_grpc.add_ReleaseServiceServicer_to_server(
        release_service.ReleaseService(machine, releases.Blobs(folder / "blobs"), known, time, unsigned.Unsigned()),
        server,
    )
    rollout_service_pb2_grpc.add_RolloutServiceServicer_to_server(
        rollout_service.RolloutService(machine, known, time), server
    )
    trigger_service_pb2_grpc.add_TriggerServiceServicer_to_server(
        trigger_service.TriggerService(machine, known, time), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Stage(scripted, _Stubs(channel), (("authorization", f"Bearer {token}"),))
    finally:
        await server.stop(None)


def not_found(noun: str) -> errors.NotFoundError:
    return errors.NotFoundError(f"cannot find {noun} x", code=f"{noun}_not_found", field=noun, value="x", rule="exist")


def node(node_id: str = "n-1") -> model.Node:
    return model.Node(
        id=model.NodeId(node_id),
        labels={"zone": "a"},
        capabilities=frozenset(),
        agent_version="1.0.0",
        fence=1,
        is_connected=True,
        last_seen_at=None,
        components={},
    )
