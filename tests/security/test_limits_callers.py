"""Limits of what one caller may ask, hit over real gRPC: what the peer sees, and that the others see nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from controller.config import quotas as configured
from controller.config import settings
from controller.core import errors
from controller.rpc import (
    attempts,
    quotas,
)
from controller.rpc import errors as rpc_errors
from tests.security import posts, test_live_streams


async def test_a_caller_that_asks_too_much_is_told_when_to_come_back_and_the_others_are_answered(
    tmp_path: Path,
) -> None:
    async with posts.serving(tmp_path, quotas=configured.Quotas(calls_per_second=1, calls_burst=5)) as post:
        shown, other = (post.somebody(name, *test_live_streams.VIEWS) for name in ("ann", "bob"))
        found = await asyncio.gather(
            *(post.ask("ListNodes", posts.LIST, shown) for _ in range(40)), return_exceptions=True
        )
        failures = [each for each in found if isinstance(each, aio.AioRpcError)]
        assert len(found) - len(failures) >= 5
        error = rpc_errors.from_rpc(failures[-1])
        assert isinstance(error, errors.ExhaustedError)
        assert (failures[-1].code(), error.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, quotas.RATE_LIMITED)
        assert error.retry_after > timedelta()
        await post.ask("ListNodes", posts.LIST, other)
        await asyncio.sleep(error.retry_after.total_seconds())
        async with asyncio.timeout(posts.DEADLINE_SECONDS):
            while True:
                with contextlib.suppress(aio.AioRpcError):
                    await post.ask("ListNodes", posts.LIST, shown)
                    break


@pytest.fixture
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(attempts, "FORGIVEN_PER_SECOND", 0.0)
    monkeypatch.setattr(attempts, "WAITING_MAX", 2)


@pytest.mark.usefixtures("long_pause")
@pytest.mark.parametrize("wrong", ["wrong", "a.b.c"], ids=["ours", "an issuer's"])
async def test_wrong_tokens_of_one_address_have_to_wait_and_good_ones_pass(tmp_path: Path, wrong: str) -> None:
    async with posts.serving(tmp_path) as post:
        for _ in range(attempts.FREE_ATTEMPTS):
            error = await post.refused("ListNodes", posts.LIST, posts.bearer(wrong))
            assert isinstance(error, errors.UnauthenticatedError)
        stub: Any = post.channel.unary_unary("/instar.v1.FleetService/ListNodes")
        waiting = [stub(b"", metadata=posts.bearer(wrong)) for _ in range(2)]
        # The two places where an answer is held back are taken; whoever comes now is refused at once.
        async with asyncio.timeout(posts.DEADLINE_SECONDS):
            while True:
                error = await post.refused("ListNodes", posts.LIST, posts.bearer(wrong))
                if error.code == attempts.EXHAUSTED:
                    break
        assert isinstance(error, errors.ExhaustedError)
        assert not any(call.done() for call in waiting)
        await post.ask("ListNodes", posts.LIST, post.operator)
        for call in waiting:
            call.cancel()


def test_addresses_are_told_apart_without_their_ports_and_forgotten_past_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert attempts.address_of("ipv4:10.0.0.1:5") == attempts.address_of("ipv4:10.0.0.1:6") == "ipv4:10.0.0.1"
    assert attempts.address_of("ipv6:%5B::1%5D:5") == "ipv6:%5B::1%5D"
    assert attempts.address_of("unix:/run/x") == "unix:/run/x"
    monkeypatch.setattr(attempts, "ADDRESSES_MAX", 3)
    found = attempts.Attempts(lambda: 0.0)
    for number in range(10):
        found.failed(f"ipv4:10.0.0.{number}:1")
    assert len(found._wrong) == 3


def test_quotas_come_back_with_time_and_are_forgotten_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "CALLERS_MAX", 2)
    now = [0.0]
    found = quotas.Quotas(configured.Quotas(calls_per_second=2, calls_burst=2), lambda: now[0])
    found.take("a")
    found.take("a")
    with pytest.raises(errors.ExhaustedError) as caught:
        found.take("a")
    assert caught.value.retry_after == timedelta(seconds=0.5)
    now[0] = 0.5
    found.take("a")
    with pytest.raises(errors.ExhaustedError):
        found.take("a")
    for name in ("b", "c"):
        found.take(name)
    found.take("a")  # forgotten, and so new
    assert len(found._left) == 2


# What the configuration says.


@pytest.mark.parametrize(
    ("text", "field_name"),
    [
        ("calls_per_second = 0", "limits.calls_per_second"),
        ("calls_burst = 1.5", "limits.calls_burst"),
        ("streams_per_caller = 1", "limits.streams_per_caller"),
        ("connections = true", "limits.connections"),
        ('connection_age = "2d"', "limits.connection_age"),
        ('connection_age = "500ms"', "limits.connection_age"),
        ("colour = 1", "limits.colour"),
    ],
)
def test_what_a_limit_cannot_be_is_refused_by_its_key(tmp_path: Path, text: str, field_name: str) -> None:
    file = tmp_path / "controller.toml"
    file.write_text(f"[limits]\n{text}\n")
    with pytest.raises(errors.InvalidRequestError) as caught:
        settings.load({}, {}, file)
    assert caught.value.field == field_name


def test_limits_are_read_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.write_text('[limits]\ncalls_per_second = 5\nconnection_age = "10m"\n')
    found = settings.load({}, {}, file).quotas
    assert found == configured.Quotas(calls_per_second=5, connection_age=timedelta(minutes=10))
