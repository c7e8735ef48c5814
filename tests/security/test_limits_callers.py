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


def test_addresses_are_told_apart_without_their_ports() -> None:
    assert attempts.address_of("ipv4:10.0.0.1:5") == attempts.address_of("ipv4:10.0.0.1:6") == "ipv4:10.0.0.1"
    assert attempts.address_of("ipv6:%5B::1%5D:5") == "ipv6:%5B::1%5D"
    assert attempts.address_of("unix:/run/x") == "unix:/run/x"


class Attempts:
    """Wrong tokens of addresses, by a clock that stands; a pause is asked for and never waited for."""

    def __init__(self) -> None:
        self.at_seconds = 0.0
        self.known = attempts.Attempts(lambda: self.at_seconds, waiting_max=0)

    def fail(self, peer: str, times: int = attempts.FREE_ATTEMPTS) -> None:
        for _ in range(times):
            self.known.failed(peer)

    async def has_to_wait(self, peer: str) -> bool:
        try:
            await self.known.wait(peer)
        except errors.ExhaustedError:
            return True
        return False


async def test_the_first_wrong_tokens_of_an_address_are_free_and_no_more() -> None:
    made = Attempts()
    made.fail("ipv4:10.0.0.1:5", attempts.FREE_ATTEMPTS - 1)
    assert not await made.has_to_wait("ipv4:10.0.0.1:6")
    made.fail("ipv4:10.0.0.1:7", 1)
    assert await made.has_to_wait("ipv4:10.0.0.1:8")
    assert not await made.has_to_wait("ipv4:10.0.0.2:8")


async def test_wrong_tokens_are_forgiven_one_by_one_as_time_goes_on_and_never_in_advance() -> None:
    made, peer, each_seconds = Attempts(), "ipv4:10.0.0.1:5", 1 / attempts.FORGIVEN_PER_SECOND
    made.fail(peer)
    made.at_seconds = each_seconds
    assert not await made.has_to_wait(peer)
    made.fail(peer, 1)
    assert await made.has_to_wait(peer)
    for _ in range(3):  # what is forgiven meanwhile counts between two of them as well
        made.at_seconds += each_seconds
        made.fail(peer, 1)
    assert await made.has_to_wait(peer)
    made.at_seconds += each_seconds
    assert not await made.has_to_wait(peer)
    made.at_seconds += 1000 * each_seconds
    made.fail(peer)
    assert await made.has_to_wait(peer), "a long quiet time is no credit"


async def test_of_too_many_addresses_the_longest_quiet_one_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "ADDRESSES_MAX", 3)
    made = Attempts()
    for number in (1, 2, 3):
        made.fail(f"ipv4:10.0.0.{number}:1")
    made.fail("ipv4:10.0.0.1:1", 1)
    assert len(made.known._wrong) == 3
    made.fail("ipv4:10.0.0.4:1")
    assert [await made.has_to_wait(f"ipv4:10.0.0.{number}:1") for number in (1, 2, 3, 4)] == [True, False, True, True]


@pytest.mark.usefixtures("long_pause")
async def test_whoever_waits_no_longer_leaves_its_place_to_the_next() -> None:
    known = attempts.Attempts(lambda: 0.0, waiting_max=1)
    for _ in range(attempts.FREE_ATTEMPTS):
        known.failed("a")
    for _ in range(2):
        waiting = asyncio.ensure_future(known.wait("a"))
        await asyncio.sleep(0)  # it waits now
        with pytest.raises(errors.ExhaustedError):
            await known.wait("a")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


class Quotas:
    """Two calls a second, and so many at once, by a clock that stands."""

    def __init__(self, burst: int = 2, streams: int = 2) -> None:
        self.at_seconds = 0.0
        allowed = configured.Quotas(calls_per_second=2, calls_burst=burst, streams_per_caller=streams)
        self.known = quotas.Quotas(allowed, lambda: self.at_seconds)

    def granted(self, caller: str) -> int:
        """How many calls are taken before one is refused."""
        count = 0
        with contextlib.suppress(errors.ExhaustedError):
            while True:
                self.known.take(caller)
                count += 1
        return count


def test_calls_come_back_with_time_and_never_more_than_at_once() -> None:
    made = Quotas()
    assert made.granted("a") == 2
    with pytest.raises(errors.ExhaustedError) as caught:
        made.known.take("a")
    assert caught.value.retry_after == timedelta(seconds=0.5)
    made.at_seconds = 0.25
    with pytest.raises(errors.ExhaustedError) as caught:  # and it costs nothing
        made.known.take("a")
    assert caught.value.retry_after == timedelta(seconds=0.25)
    made.at_seconds = 0.5
    assert made.granted("a") == 1
    made.at_seconds = 100.0
    assert made.granted("a") == 2


def test_of_too_many_callers_the_one_that_was_longest_away_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "CALLERS_MAX", 2)
    made = Quotas()
    assert [made.granted(caller) for caller in ("a", "b", "a")] == [2, 2, 0]
    assert made.granted("c") == 2  # and b is forgotten
    assert [made.granted(caller) for caller in ("a", "c", "b")] == [0, 0, 2]
    assert len(made.known._left) == 2


def test_places_for_streams_are_each_callers_own_and_free_again_whatever_ends_them() -> None:
    made = Quotas(streams=1)
    with made.known.stream("a"), made.known.stream("b"), pytest.raises(errors.ExhaustedError):
        made.known.stream("a").__enter__()
    with contextlib.suppress(ZeroDivisionError), made.known.stream("a"):
        raise ZeroDivisionError
    with made.known.stream("a"):
        pass
    assert not made.known._streams, "nothing is kept of who has none"


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
