"""A controller that is late in earnest: who is turned away first, over real gRPC, and who never is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # ships no stubs

from controller import tasks
from controller.core import errors
from controller.engine import pressure
from controller.rpc import errors as rpc_errors
from instar.v1 import agent_service_pb2, fleet_service_pb2, rollout_service_pb2
from tests.security import posts

STALL_SECONDS = 0.06
NODE = "n-1"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pressure, "READS_REFUSED_SECONDS", 0.04)
    monkeypatch.setattr(pressure, "HEARTBEATS_THINNED_SECONDS", 0.05)


@contextlib.asynccontextmanager
async def pressed() -> AsyncIterator[None]:
    """Have the loop late while the block runs: something takes it for a while again and again."""

    async def press() -> None:
        while True:
            time.sleep(STALL_SECONDS)  # noqa: ASYNC251  # it is the loop itself that is kept busy
            await asyncio.sleep(0)

    guard = tasks.Guard()
    guard.start(press(), "press")
    try:
        yield
    finally:
        await guard.stop()


async def refusal(post: posts.Post) -> errors.InstarError:
    """Read until that is refused."""
    async with asyncio.timeout(posts.DEADLINE_SECONDS):
        while True:
            try:
                await post.ask("ListNodes", posts.LIST, post.operator)
            except aio.AioRpcError as failure:
                return rpc_errors.from_rpc(failure)


async def answered(post: posts.Post) -> None:
    """Read until that is answered."""
    async with asyncio.timeout(posts.DEADLINE_SECONDS):
        while True:
            with contextlib.suppress(aio.AioRpcError):
                await post.ask("ListNodes", posts.LIST, post.operator)
                return


async def acknowledged(call: Any, sequence: int) -> agent_service_pb2.Acknowledgement:  # noqa: ANN401  # a raw call
    """Say a heartbeat that has nothing to tell, and wait for its acknowledgement."""
    beat = agent_service_pb2.ConnectRequest(sequence=sequence, heartbeat=agent_service_pb2.Heartbeat())
    await call.write(beat)
    await call.write(beat)  # what is said twice is acknowledged at once
    async with asyncio.timeout(posts.DEADLINE_SECONDS):
        while True:
            said = await call.read()
            if said.acknowledgement.sequence >= sequence:
                found: agent_service_pb2.Acknowledgement = said.acknowledgement
                return found


async def test_reads_are_refused_while_the_loop_is_late_and_orders_health_and_agents_are_answered(
    tmp_path: Path,
) -> None:
    async with posts.serving(tmp_path) as post, posts.session(post.channel, NODE, post.agent(NODE)) as session:
        await post.ask("ListNodes", posts.LIST, post.operator)
        async with pressed():
            error = await refusal(post)
            assert isinstance(error, errors.ExhaustedError)
            assert error.code == pressure.OVERLOADED
            assert error.retry_after >= pressure.LOOKS * timedelta(seconds=STALL_SECONDS)
            watch = rollout_service_pb2.WatchRolloutRequest(rollout="r")
            assert (await post.refused("WatchRollout", watch, post.operator)).code == pressure.OVERLOADED
            cordon = fleet_service_pb2.CordonNodeRequest(node_id=NODE, reason="busy")
            await post.ask("CordonNode", cordon, post.operator)
            health = await health_pb2_grpc.HealthStub(post.channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            assert (await acknowledged(session, 2)).sequence == 2
        await answered(post)


async def test_one_long_piece_of_work_refuses_nobody(tmp_path: Path) -> None:
    async with posts.serving(tmp_path) as post:
        for _ in range(2):
            time.sleep(1.0)  # noqa: ASYNC251  # as in a large plan
            await post.ask("ListNodes", posts.LIST, post.operator)


async def test_heartbeats_are_thinned_while_the_loop_is_late_and_come_as_usual_again(tmp_path: Path) -> None:
    async with posts.serving(tmp_path) as post, posts.session(post.channel, NODE, post.agent(NODE)) as session:
        usual = post.settings.heartbeat_period
        sequence = 2
        assert (await acknowledged(session, sequence)).heartbeat_period.ToTimedelta() == usual
        async with pressed(), asyncio.timeout(posts.DEADLINE_SECONDS):
            await refusal(post)
            while (await acknowledged(session, sequence := sequence + 1)).heartbeat_period.ToTimedelta() == usual:
                pass
        async with asyncio.timeout(posts.DEADLINE_SECONDS):
            while (await acknowledged(session, sequence := sequence + 1)).heartbeat_period.ToTimedelta() != usual:
                pass
