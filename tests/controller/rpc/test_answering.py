"""Calls that come again under one request identity, against a real controller and its file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from controller import releases
from controller.core import errors
from controller.rpc import errors as rpc_errors
from instar.v1 import (
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    release_service_pb2,
    release_service_pb2_grpc,
    trigger_service_pb2,
    trigger_service_pb2_grpc,
)
from tests.controller.cli import house


def wanted(reason: str = "holidays") -> fleet_service_pb2.AddFreezeRequest:
    freeze = fleet_service_pb2.Freeze(selector="zone=a", reason=reason)
    return fleet_service_pb2.AddFreezeRequest(freeze=freeze, request_id="one")


@asynccontextmanager
async def answered(home: house.House) -> AsyncIterator[Any]:
    async with home.serving(), aio.insecure_channel(home.address) as channel:
        stubs = (
            fleet_service_pb2_grpc.FleetServiceStub(channel),
            release_service_pb2_grpc.ReleaseServiceStub(channel),
            trigger_service_pb2_grpc.TriggerServiceStub(channel),
        )

        async def ask(name: str, request: object, token: str = "") -> Any:  # noqa: ANN401  # any answer
            method = next(getattr(each, name) for each in stubs if hasattr(each, name))
            metadata = (("authorization", f"Bearer {token or home.operator_token}"),)
            try:
                return await method(request, metadata=metadata, timeout=60.0)
            except aio.AioRpcError as failure:
                raise rpc_errors.from_rpc(failure) from failure

        yield ask


async def test_a_call_is_carried_out_once_also_at_the_same_time_and_after_a_restart(tmp_path: Path) -> None:
    home = house.House(tmp_path)
    async with answered(home) as ask:
        first, *others = await asyncio.gather(*(ask("AddFreeze", wanted()) for _ in range(8)))
        assert others == [first] * 7
    async with answered(home) as ask:
        assert await ask("AddFreeze", wanted()) == first
        listed = fleet_service_pb2.ListFreezesRequest()
        assert [each.freeze_id for each in (await ask("ListFreezes", listed)).freezes] == [first.freeze.freeze_id]
        lifted = fleet_service_pb2.RemoveFreezeRequest(
            freeze_id=first.freeze.freeze_id, reason="over", request_id="two"
        )
        await ask("RemoveFreeze", lifted)
        await ask("RemoveFreeze", lifted)  # though there is nothing to remove any more


async def test_an_identity_stands_for_one_call_and_a_refusal_does_not_use_it_up(tmp_path: Path) -> None:
    home = house.House(tmp_path)
    async with answered(home) as ask:
        with pytest.raises(errors.InstarError, match="reason"):
            await ask("AddFreeze", wanted(reason=""))
        await ask("AddFreeze", wanted())
        bob = tmp_path / "bob.token"
        assert (await home.instar("controller", "token", "bob", "--out", bob)).code == 0
        removing = trigger_service_pb2.RemoveTriggerRequest(name="x", reason="y", request_id="one")
        for name, request, token in (
            ("AddFreeze", wanted(reason="other"), ""),
            ("RemoveTrigger", removing, ""),
            ("AddFreeze", wanted(), bob.read_text().strip()),
        ):
            with pytest.raises(errors.RefusedError) as caught:
                await ask(name, request, token)
            assert (caught.value.code, caught.value.field) == ("request_id_reused", "request_id")


async def test_a_release_that_comes_in_pieces_is_published_once(tmp_path: Path) -> None:
    home = house.House(tmp_path)
    first, second = (_pieces(home, version) for version in ("1.0.0", "1.1.0"))
    async with answered(home) as ask:
        published = await ask("PublishRelease", iter(first))
        assert published.created
        assert await ask("PublishRelease", iter(first)) == published
        first[0].header.ClearField("request_id")
        assert not (await ask("PublishRelease", iter(first))).created
        with pytest.raises(errors.RefusedError, match="another content") as caught:
            await ask("PublishRelease", iter(second))
        assert caught.value.code == "request_id_reused"
        listed = await ask("ListReleases", release_service_pb2.ListReleasesRequest())
        assert [each.version for each in listed.releases] == ["1.0.0"]


def _pieces(home: house.House, version: str) -> list[release_service_pb2.PublishReleaseRequest]:
    bundle = home.folder / f"{version}.tar"
    made = releases.build(home.tree(version), bundle)
    header = release_service_pb2.PublishReleaseHeader(digest=made.digest, size_bytes=made.size_bytes, request_id="one")
    return [
        release_service_pb2.PublishReleaseRequest(header=header),
        release_service_pb2.PublishReleaseRequest(chunk=bundle.read_bytes()),
    ]
