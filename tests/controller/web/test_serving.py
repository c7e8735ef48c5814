"""The HTTP server: on, off, and what it needs to begin."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import cast

import httpx
import pytest

from controller import engine
from controller.config import settings, webs
from controller.core import errors
from controller.rpc import attempts
from controller.web import bodies, serving
from tests.controller.web import house, test_alerts


def read(folder: Path, text: str) -> webs.Web | None:
    file = folder / "controller.toml"
    file.write_text(text)
    return settings.load({}, {}, file).web


def test_it_is_off_unless_it_is_configured(tmp_path: Path) -> None:
    assert read(tmp_path, "") is None


def test_everything_is_read(tmp_path: Path) -> None:
    more = 'events_secret_file = "/secret"\nalertmanager_token_file = "/token"\n'
    found = read(tmp_path, f'[web]\nlisten = "localhost:7480"\n{more}')
    assert found == webs.Web("127.0.0.1:7480", Path("/secret"), Path("/token"))
    assert read(tmp_path, '[web]\nlisten = "[::1]:0"') == webs.Web("[::1]:0")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("web = 7", "web"),
        ('[web]\nevents_secret_file = "/x"', "web.listen"),
        ('[web]\nlisten = "0.0.0.0:7480"', "web.listen"),
        ('[web]\nlisten = "127.0.0.1"', "web.listen"),
        ('[web]\nlisten = "127.0.0.1:7480"\nevents_secret_file = "x"', "web.events_secret_file"),
        ('[web]\nlisten = "127.0.0.1:7480"\ncolour = "red"', "web.colour"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        read(tmp_path, text)
    assert caught.value.field == field


def told() -> tuple[house.StillClock, attempts.Attempts]:
    time = house.StillClock()
    return time, attempts.Attempts(time.monotonic)


async def test_a_way_in_whose_secret_is_not_named_is_shut() -> None:
    machine = house.Engine()
    async with (
        serving.serving(webs.Web("127.0.0.1:0"), cast("engine.Engine", machine), *told()) as address,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        for path in ("events", "alertmanager"):
            answer = await client.post(f"http://{address}/v1/{path}", content=b"{}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_configured")
        assert (await client.get(f"http://{address}/healthz")).status_code == 200


@pytest.mark.parametrize("secret", [None, b"", b"too short\n"])
async def test_it_does_not_begin_without_the_secret_that_is_named(tmp_path: Path, secret: bytes | None) -> None:
    file = tmp_path / "secret"
    if secret is not None:
        file.write_bytes(secret)
    for web, field in (
        (webs.Web("127.0.0.1:0", file), "web.events_secret_file"),
        (webs.Web("127.0.0.1:0", None, file), "web.alertmanager_token_file"),
    ):
        with pytest.raises(errors.InvalidRequestError) as caught:
            async with serving.serving(web, cast("engine.Engine", house.Engine()), *told()):
                pytest.fail("it served")
        assert caught.value.field == field


async def test_an_address_that_is_taken_is_refused_by_name(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(errors.RefusedError, match=f"cannot listen on {address}") as caught:
            async with house.standing(tmp_path, address):
                pytest.fail("it served")
    assert (caught.value.code, caught.value.field) == ("address_in_use", "web.listen")


async def test_an_address_is_free_again_once_it_has_ended(tmp_path: Path) -> None:
    async with house.standing(tmp_path) as door:
        address = door.address
        assert (await door.alerts({})).status_code == 400
    for _ in range(2):
        async with house.standing(tmp_path, address) as door:
            assert door.address == address
            assert (await door.alerts({})).status_code == 400


async def test_it_answers_on_the_other_loopback_address_too(tmp_path: Path) -> None:
    async with house.standing(tmp_path, "[::1]:0") as door:
        assert door.address.startswith("[::1]:")
        assert (await door.alerts({})).status_code == 400


async def test_an_end_waits_for_what_is_being_answered_and_lets_nobody_else_in(tmp_path: Path) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    stack = contextlib.AsyncExitStack()
    door = await stack.enter_async_context(house.standing(tmp_path))
    door.engine.waits = (reached, go_on)
    async with asyncio.TaskGroup() as group, asyncio.timeout(60):
        asked = group.create_task(door.alerts(test_alerts.NOTIFICATION))
        await reached.wait()
        ending = group.create_task(stack.aclose())
        while await _is_open(door.address):
            continue
        assert not asked.done()
        assert not ending.done()
        go_on.set()
        assert (await asked).status_code == 200


async def test_an_end_does_not_wait_for_who_is_too_slow(tmp_path: Path) -> None:
    async with asyncio.timeout(serving.STOP_GRACE_SECONDS + 30):
        async with house.standing(tmp_path) as door:
            reader, writer = await asyncio.open_connection(*door.address.split(":"))
            writer.write(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
            await writer.drain()
            assert (await door.alerts({})).status_code == 400  # by then the slow one is being read
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < bodies.SECONDS_MAX
        await reader.read()
        writer.close()


async def _is_open(address: str) -> bool:
    try:
        _, writer = await asyncio.open_connection(*address.split(":"))
    except ConnectionError:
        return False
    writer.close()
    return True
