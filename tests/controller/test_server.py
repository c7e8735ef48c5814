"""The controller as a whole: what its first start makes, what it says of its health, how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # ships no stubs

from controller import server
from controller.config import settings
from controller.core import errors
from controller.rpc import errors as rpc_errors
from controller.rpc import listener
from controller.store import database, executor, reading
from instar.v1 import (
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    rollout_pb2,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
)

DEADLINE_SECONDS = 60.0
CANARY = rollout_pb2.UpgradeRequest(component="web", target_version="1.0.0", strategy=rollout_pb2.STRATEGY_CANARY)


def settings_in(folder: Path) -> settings.Settings:
    return settings.Settings("127.0.0.1:0", folder / "state", timedelta(seconds=1), None, self_approval=False)


async def list_nodes(address: str, token: str) -> object:
    async with aio.insecure_channel(address) as channel:
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        request = fleet_service_pb2.ListNodesRequest()
        return await stub.ListNodes(request, metadata=(("authorization", f"Bearer {token}"),))


async def test_the_first_start_makes_an_api_token_that_later_starts_keep(tmp_path: Path) -> None:
    loaded = settings_in(tmp_path)
    tokens = []
    for _ in range(2):
        async with server.serving(loaded) as address:
            tokens.append(loaded.operator_token_file.read_text().strip())
            await list_nodes(address, tokens[-1])
    assert tokens[0] == tokens[1]
    assert stat.S_IMODE(loaded.operator_token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(loaded.state_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize("service", ["", "instar.v1.RolloutService", "instar.v1.AgentService"])
async def test_health_is_told_without_a_token(tmp_path: Path, service: str) -> None:
    async with server.serving(settings_in(tmp_path)) as address, aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_second_controller_on_one_store_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    loaded = settings_in(tmp_path)
    async with server.serving(loaded) as address:
        with pytest.raises(errors.RefusedError) as caught:
            async with server.serving(loaded):
                pytest.fail("it served")
        assert caught.value.field == "store"
        await list_nodes(address, loaded.operator_token_file.read_text().strip())


async def test_a_message_past_the_limit_is_not_taken_in(tmp_path: Path) -> None:
    request = fleet_service_pb2.GetNodeRequest(node_id="n" * listener.RECEIVED_BYTES_MAX)
    async with server.serving(settings_in(tmp_path)) as address, aio.insecure_channel(address) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await fleet_service_pb2_grpc.FleetServiceStub(channel).GetNode(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("upgrade", "code"),
    [
        (rollout_pb2.UpgradeRequest(component="web", target_version="1.0.0"), "request_invalid"),  # no strategy
        (CANARY, "release_not_found"),
    ],
)
async def test_a_request_that_is_refused_is_counted_and_kept_once_whoever_refuses_it(
    tmp_path: Path, upgrade: rollout_pb2.UpgradeRequest, code: str
) -> None:
    loaded = settings_in(tmp_path)
    async with server.serving(loaded) as address, aio.insecure_channel(address) as channel:
        shown = (("authorization", f"Bearer {loaded.operator_token_file.read_text().strip()}"),)
        stub = rollout_service_pb2_grpc.RolloutServiceStub(channel)
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.PlanUpgrade(rollout_service_pb2.PlanUpgradeRequest(upgrade=upgrade), metadata=shown)
        assert rpc_errors.from_rpc(caught.value).code == code
        fleet = fleet_service_pb2_grpc.FleetServiceStub(channel)
        found = await fleet.GetStatistics(fleet_service_pb2.GetStatisticsRequest(), metadata=shown)
    assert found.statistics.refused == 1
    with contextlib.closing(database.Store(loaded.store_place, executor.WriterThread())) as store:
        [kept] = store.read(lambda connection: reading.refusals(connection, 10))
    assert (kept.action, kept.code) == ("plan_upgrade", code)


@pytest.mark.parametrize(
    ("listen", "code", "word"), [("127.0.0.1:0", 0, "listening on 127.0.0.1:"), ("0.0.0.0:1", 2, "cannot use listen")]
)
async def test_the_module_serves_with_the_settings_of_the_environment(
    tmp_path: Path, listen: str, code: int, word: str
) -> None:
    environment = os.environ | {"INSTAR_LISTEN": listen, "INSTAR_STATE_DIR": str(tmp_path / "state")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controller", stderr=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE_SECONDS):
        while word not in (line := (await process.stderr.readline()).decode()):
            assert line, "it ended without a word"
        if code == 0:
            process.terminate()
        await process.stderr.read()
        assert await process.wait() == code
