"""The limits of the web side, each hit over real HTTP, or HTTPS, by peers that go beyond it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from controller import clock, tasks
from controller.rpc import attempts
from controller.trust import authorities, listening
from controller.web import bodies, connections, serving
from tests.controller.web import house, test_alerts

PATIENCE_SECONDS = 60.0
WRONG = "a token that nobody has been given"
Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[house.Door]:
    async with house.standing(tmp_path) as found, asyncio.timeout(PATIENCE_SECONDS):
        yield found


async def connect(door: house.Door, address: str = "127.0.0.1") -> Connected:
    host, _, port = door.address.rpartition(":")
    return await asyncio.open_connection(host, int(port), local_addr=(address, 0))


async def answer_to(connected: Connected, said: bytes) -> bytes:
    """All that comes until the connection ends; nothing where it ends without a word."""
    reader, writer = connected
    found = b""
    with contextlib.suppress(ConnectionError):
        writer.write(said)
        await writer.drain()
        while part := await reader.read(65536):
            found += part
    writer.close()
    return found


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 "


async def test_one_address_never_has_all_places(door: house.Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PLACES_PER_ADDRESS_MAX", 3)
    held = [await connect(door) for _ in range(3)]
    assert await answer_to(await connect(door), HEALTH) == b""
    assert (await answer_to(await connect(door, "127.0.0.2"), HEALTH)).startswith(OK)
    assert (await answer_to(held[0], HEALTH)).startswith(OK)
    assert (await _answered_at_last(door)).startswith(OK)
    for _, writer in held:
        writer.close()


async def test_who_finds_no_place_is_closed_without_a_word_until_somebody_goes(
    door: house.Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PLACES_MAX", 4)
    held = [await connect(door, f"127.0.0.{number}") for number in (2, 3, 4, 5)]
    assert await answer_to(await connect(door), HEALTH) == b""
    held[0][1].close()
    assert (await _answered_at_last(door)).startswith(OK)
    for _, writer in held:
        writer.close()


async def _answered_at_last(door: house.Door) -> bytes:
    """What is answered as soon as there is a place."""
    while not (found := await answer_to(await connect(door), HEALTH)):
        continue
    return found


async def test_a_connection_is_cut_when_it_is_too_old_whatever_it_waits_for(
    door: house.Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "AGE_SECONDS_MAX", 0.5)
    reached, go_on = asyncio.Event(), asyncio.Event()
    door.engine.waits = (reached, go_on)
    with pytest.raises(httpx.TransportError):
        await door.alerts(test_alerts.NOTIFICATION)
    assert reached.is_set()
    go_on.set()


async def test_a_connection_whose_headers_are_here_is_not_cut_for_them(
    door: house.Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADERS_SECONDS", 0.2)
    reached, go_on, late = asyncio.Event(), asyncio.Event(), asyncio.Event()
    door.engine.waits = (reached, go_on)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(door.alerts(test_alerts.NOTIFICATION))
        await reached.wait()
        asyncio.get_running_loop().call_later(connections.HEADERS_SECONDS, late.set)
        await late.wait()
        go_on.set()
    assert asked.result().status_code == 200


async def test_nothing_waits_for_a_connection_that_is_gone(door: house.Door, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[connections.Protocol] = []

    class Noted(connections.Protocol):
        def __init__(self, *about: Any) -> None:  # noqa: ANN401  # as its parent has them
            super().__init__(*about)
            made.append(self)

    monkeypatch.setattr(connections, "Protocol", Noted)
    assert (await answer_to(await connect(door), HEALTH)).startswith(OK)
    (protocol,) = made
    await protocol.gone.wait()
    assert protocol._late is not None
    assert protocol._late.cancelled()


class Failing(socket.socket):
    """A listener whose accept fails at first."""

    failures: ClassVar[list[OSError]] = []

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            raise self.failures.pop(0)
        return super().accept()


@pytest.mark.parametrize(
    ("fault", "pause_seconds", "warnings"),
    [(BlockingIOError(), 3600.0, 0), (OSError(errno.EMFILE, "too many open files"), 0.0, 1)],
    ids=["gone again", "no descriptors"],
)
async def test_what_keeps_a_connection_from_being_taken_keeps_no_other(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: OSError,
    pause_seconds: float,
    warnings: int,
) -> None:
    monkeypatch.setattr(connections, "PAUSE_SECONDS", pause_seconds)
    monkeypatch.setattr(Failing, "failures", [fault])
    async with _taking(_speak_to_nobody) as (_, address), asyncio.timeout(PATIENCE_SECONDS):
        assert await answer_to(await asyncio.open_connection(*address), HEALTH) == b""
    assert caplog.text.count("cannot take a connection") == warnings


async def test_while_no_connection_can_be_taken_it_is_not_tried_without_a_pause(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(Failing, "failures", [OSError(errno.EMFILE, "too many open files") for _ in range(100)])
    async with _taking(_speak_to_nobody) as (_, address), asyncio.timeout(PATIENCE_SECONDS):
        _, writer = await asyncio.open_connection(*address)
        while "cannot take a connection" not in caplog.text:  # noqa: ASYNC110  # there is no event
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        writer.close()
    assert caplog.text.count("cannot take a connection") == 1


async def test_of_a_connection_that_has_ended_nothing_is_kept_and_nothing_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with _taking(_speak_to_nobody) as (known, address), asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(3):
            await answer_to(await asyncio.open_connection(*address), HEALTH)
        while known._tasks or known._by_address:  # noqa: ASYNC110  # there is no event
            await asyncio.sleep(0)
    gc.collect()  # what nobody has heard of says so
    assert not [each for each in caplog.records if each.levelname != "DEBUG"]


async def test_an_end_cuts_who_has_not_come_to_terms_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 3600.0)
    monkeypatch.setattr(connections, "AGE_SECONDS_MAX", 3600.0)
    secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with _taking(asyncio.Protocol, secured) as (known, address):
            silent = await asyncio.open_connection(*address)
            while not len(known):  # noqa: ASYNC110  # there is no event
                await asyncio.sleep(0)
        assert len(known) == 0
        assert await answer_to(silent, b"") == b""


@contextlib.asynccontextmanager
async def _taking(
    make: Callable[[], Any], secured: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[connections.Connections, tuple[str, int]]]:
    """Take connections while the block runs; yields where."""
    with contextlib.closing(Failing()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0)  # the loop waits for it
        known, guard = connections.Connections(make, secured), tasks.Guard()
        guard.start(known.take(listener), "taking")
        yield known, listener.getsockname()
        await guard.stop()
        await known.close()


async def test_on_a_connection_one_request_is_answered(door: house.Door) -> None:
    found = await answer_to(await connect(door), HEALTH + HEALTH)
    assert found.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in found
    assert b"server:" not in found  # which program answers, and of which version, is nobody's business


async def test_headers_that_are_too_large_are_refused_whether_they_come_at_once_or_in_parts(door: house.Door) -> None:
    full = b"x" * bodies.HEADERS_BYTES_MAX
    for said in (
        b"POST /v1/events?" + full + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-A: " + full + b"\r\nContent-Length: 0\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-" + full + b": a\r\nContent-Length: 0\r\n\r\n",
    ):
        found = await answer_to(await connect(door), said)
        assert found.startswith(b"HTTP/1.1 431 ")
        assert json.loads(found.partition(b"\r\n\r\n")[2])["code"] == "headers_too_large"
    reader, writer = await connect(door)
    writer.write(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-A: " + full)  # and it goes on
    assert (await answer_to((reader, writer), b"")).startswith(b"HTTP/1.1 400 ")


async def test_a_peer_that_does_not_come_to_terms_by_tls_is_cut_and_holds_its_place_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PLACES_MAX", 2)
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 1.0)
    known = authorities.create(tmp_path / "ca", "fleet.example", clock.SystemClock().now())
    own = listening.Listening(tmp_path / "ca", ["127.0.0.1"], clock.SystemClock())
    trusting = ssl.create_default_context(cadata=known.bundle(authorities.Kind.SERVERS))
    async with house.standing(tmp_path, own=own) as door, asyncio.timeout(PATIENCE_SECONDS):
        silent, half = await connect(door), await connect(door)
        half[1].write(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a hello
        assert await answer_to(await connect(door), HEALTH) == b""
        assert await answer_to(silent, b"") == b""
        assert await answer_to(half, b"") == b""
        async with httpx.AsyncClient(verify=trusting, trust_env=False, timeout=PATIENCE_SECONDS) as client:
            answer = await client.get(f"https://{door.address}/healthz")
    assert answer.status_code == 200


async def test_an_end_cuts_who_has_not_yet_come_to_terms_by_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 10 * PATIENCE_SECONDS)
    authorities.create(tmp_path / "ca", "fleet.example", clock.SystemClock().now())
    own = listening.Listening(tmp_path / "ca", ["127.0.0.1"], clock.SystemClock())
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with house.standing(tmp_path, own=own) as door:
            silent = await connect(door)
            silent[1].write(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a hello
        assert await answer_to(silent, b"") == b""


async def test_a_peer_that_does_not_take_leave_by_tls_holds_its_place_for_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PLACES_MAX", 1)
    monkeypatch.setattr(connections, "FAREWELL_SECONDS", 0.1)
    known = authorities.create(tmp_path / "ca", "fleet.example", clock.SystemClock().now())
    own = listening.Listening(tmp_path / "ca", ["127.0.0.1"], clock.SystemClock())
    trusting = ssl.create_default_context(cadata=known.bundle(authorities.Kind.SERVERS))
    by_default_seconds = 30.0  # of asyncio, which would keep it so long
    async with house.standing(tmp_path, own=own) as door, asyncio.timeout(by_default_seconds * 2 / 3):
        host, _, port = door.address.rpartition(":")
        _, silent = await asyncio.open_connection(host, int(port), ssl=trusting)
        silent.transport.pause_reading()  # type: ignore[attr-defined]  # of any transport of a connection
        silent.write(HEALTH)
        async with httpx.AsyncClient(verify=trusting, trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    assert (await client.get(f"https://{door.address}/healthz")).status_code == httpx.codes.OK
                    break
        silent.transport.abort()


async def test_whoever_shows_many_wrong_secrets_waits_for_each_answer_and_nobody_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(attempts, "FORGIVEN_PER_SECOND", 0.0)
    monkeypatch.setattr(serving, "HELD_BACK_MAX", 2)
    async with house.standing(tmp_path) as door, asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        for number in range(attempts.FREE_ATTEMPTS // 2):
            elsewhere = {"authorization": f"Bearer {WRONG}", "x-forwarded-for": f"10.0.0.{number}"}  # so it says
            assert (await door.post("/v1/alertmanager", b"{}", elsewhere)).status_code == 401
            assert (await door.events([], secret=b"a secret that is not known here")).status_code == 401
        asked = {group.create_task(door.alerts(test_alerts.NOTIFICATION, WRONG)) for _ in range(3)}
        answered, held = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        (answer,) = [task.result() for task in answered]
        assert (answer.status_code, answer.json()["code"]) == (429, attempts.EXHAUSTED)
        assert answer.headers["retry-after"] == "3600"
        assert (await door.alerts(test_alerts.NOTIFICATION)).status_code == 200
        asking = b"POST /v1/alertmanager HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        found = await answer_to(await connect(door, "127.0.0.2"), asking)
        assert found.startswith(b"HTTP/1.1 401 ")
        assert not any(task.done() for task in held)
        for task in held:
            task.cancel()


async def test_whoever_is_taken_as_the_web_side_ends_is_closed_at_any_step_of_the_way() -> None:
    for steps in range(12):
        await _take_for(steps)
        gc.collect()  # what is still open says so, and fails this test


async def _take_for(steps: int) -> None:
    """Take connections; one comes, and so many steps later it is over."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(0)  # the loop waits for it
        known = connections.Connections(_speak_to_nobody, None)
        guard = tasks.Guard()
        guard.start(known.take(listener), "taking")
        await asyncio.sleep(0)  # it waits now
        with contextlib.closing(socket.create_connection(listener.getsockname())):
            for _ in range(steps):
                await asyncio.sleep(0)
            await guard.stop()
            await known.close()
        assert len(known) == 0
        assert not known._tasks


def _speak_to_nobody() -> connections.Protocol:
    raise ConnectionAbortedError
