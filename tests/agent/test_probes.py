"""Probes: a real socket answers, badly or not at all, and the agent is never held or filled by it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import probes
from agent.config import manifest
from agent.config.errors import ConfigError
from agent.core import model
from agent.probes import series

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PROBE = model.Probe(model.HttpCheck("/healthz"), timedelta(seconds=1), timedelta(seconds=5), 3)
SOURCE = model.MetricsSource("/metrics", ("requests_total", 'errors_total{code="500"}'), timedelta(seconds=5))
TEXT = b"""\
# HELP requests_total Requests.
requests_total{path="/a"} 3
requests_total{path="/b"} 4.5 1700000000000
errors_total{code="500"} 2
errors_total{code="404"} 9
other 1
requests_total{path="/c"} NaN
requests_total broken
"""


@dataclass(frozen=True, slots=True)
class Ran:
    exit_code: int | None
    is_timeout: bool = False
    output: str = ""


async def never_run(command: tuple[str, ...], _timeout: timedelta) -> Ran:
    raise AssertionError(command)


async def ask(probe: model.Probe, path: Path) -> probes.Answer:
    return await probes.ask(probe, f"unix:{path}", never_run)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(path: Path, handle: Handler) -> AsyncIterator[None]:
    """Serve connections; ends when the last of them has ended."""
    tasks: list[asyncio.Task[object]] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.extend(task for task in [asyncio.current_task()] if task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_unix_server(connected, path):
        yield
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def serving(folder: Path, *pieces: bytes, stays_open: bool = False) -> AsyncIterator[tuple[Path, list[bytes]]]:
    """Serve these bytes to whoever asks; yields the socket's path and the requests that came."""
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if stays_open:
            await reader.read()

    path = folder / "p"
    async with listening(path, answer):
        yield path, requests


async def test_an_instance_that_answers_is_well(tmp_path: Path) -> None:
    async with serving(tmp_path, OK) as (path, requests):
        assert await ask(PROBE, path) == probes.Answer(is_success=True)
    [request] = requests
    assert request.startswith(b"GET /healthz HTTP/1.1\r\nHost: ")
    assert b"\r\nConnection: close\r\n" in request


@pytest.mark.parametrize("status", [200, 204, 301, 399])
async def test_statuses_up_to_399_pass(tmp_path: Path, status: int) -> None:
    async with serving(tmp_path, b"HTTP/1.1 %d\r\n\r\n" % status, stays_open=True) as (path, _):
        assert (await ask(PROBE, path)).is_success


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", "status 503"),
        (b"HTTP/1.1 199 Odd\r\n\r\n", "status 199"),
        (b"HTTP/1.1 400 Bad\r\n\r\n", "status 400"),
        (b"HTTP/2 200\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "not HTTP/1.1"),
        (b"hello\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n", "ended within the head"),
        (b"", "ended within the head"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "more than 4096 bytes"),
    ],
)
async def test_any_other_answer_says_why_it_fails(tmp_path: Path, answer: bytes, reason: str) -> None:
    async with serving(tmp_path, answer) as (path, _):
        seen = await ask(PROBE, path)
    assert not seen.is_success
    assert reason in seen.reason


async def test_silence_fails_after_the_timeout(tmp_path: Path) -> None:
    async with serving(tmp_path, stays_open=True) as (path, _):
        seen = await ask(replace(PROBE, timeout=timedelta(milliseconds=50)), path)
    assert seen == probes.Answer(is_success=False, reason="no answer within 0.05 s")


async def test_a_head_that_trickles_in_fails_after_the_timeout(tmp_path: Path) -> None:
    async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with listening(tmp_path / "p", trickle):
        seen = await ask(replace(PROBE, timeout=timedelta(milliseconds=80)), tmp_path / "p")
    assert "no answer" in seen.reason


async def test_an_instance_that_is_gone_is_not_well(tmp_path: Path) -> None:
    seen = await ask(PROBE, tmp_path / "none")
    assert not seen.is_success
    assert "No such file" in seen.reason


async def test_a_tcp_check_asks_only_for_a_connection(tmp_path: Path) -> None:
    check = replace(PROBE, check=model.TcpCheck())
    assert not (await ask(check, tmp_path / "p")).is_success
    async with serving(tmp_path) as (path, _):
        assert (await ask(check, path)).is_success


async def test_a_service_is_asked_at_its_tcp_address_too() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert (await probes.ask(PROBE, address, never_run)).is_success
        assert (await probes.ask(replace(PROBE, check=model.TcpCheck()), address, never_run)).is_success
    assert "onnect" in (await probes.ask(PROBE, address, never_run)).reason


class Health(grpc.GenericRpcHandler):
    """grpc.health.v1.Health/Check, as any server has it: the messages are those of the wire."""

    def __init__(self) -> None:
        self.answer = b"\x08\x01"
        self.asked: list[bytes] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        if details.method != "/grpc.health.v1.Health/Check":
            return None

        async def check(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            self.asked.append(request)
            if request == b"\n\x04none":
                await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
            return self.answer

        return grpc.unary_unary_rpc_method_handler(check)


@pytest.fixture
async def health(tmp_path: Path) -> AsyncIterator[tuple[str, Health]]:
    handler, server = Health(), grpc.aio.server()
    server.add_generic_rpc_handlers([handler])
    address = f"unix:{tmp_path}/g"
    server.add_insecure_port(address)
    await server.start()
    yield address, handler
    await server.stop(None)


def grpc_probe(service: str) -> model.Probe:
    return replace(PROBE, check=model.GrpcCheck(service))


async def test_a_grpc_service_that_serves_is_well(health: tuple[str, Health]) -> None:
    address, handler = health
    assert (await probes.ask(grpc_probe("web"), address, never_run)).is_success
    assert (await probes.ask(grpc_probe(""), address, never_run)).is_success
    assert (await probes.ask(grpc_probe("x" * 200), address, never_run)).is_success
    assert handler.asked == [b"\n\x03web", b"", b"\n\xc8\x01" + b"x" * 200]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(b"\x08\x02", "NOT_SERVING"), (b"", "UNKNOWN"), (b"\x08\x81\x01", "129"), (b"\x12\x01a", "UNKNOWN")],
)
async def test_any_other_status_of_a_grpc_service_fails(health: tuple[str, Health], answer: bytes, reason: str) -> None:
    address, handler = health
    handler.answer = answer
    seen = await probes.ask(grpc_probe("web"), address, never_run)
    assert not seen.is_success
    assert reason in seen.reason


async def test_a_grpc_service_that_is_not_there_fails(health: tuple[str, Health], tmp_path: Path) -> None:
    assert "unknown service" in (await probes.ask(grpc_probe("none"), health[0], never_run)).reason
    seen = await probes.ask(grpc_probe("web"), f"unix:{tmp_path}/none", never_run)
    assert (seen.is_success, "UNAVAILABLE" in seen.reason) == (False, True)


@pytest.mark.parametrize(
    ("ran", "reason"),
    [
        (Ran(0), ""),
        (Ran(3, output="the disk is gone"), "cannot accept check: exit code 3: the disk is gone"),
        (Ran(None), "cannot accept check: exit code None: "),
        (Ran(0, is_timeout=True), "cannot accept check: it did not end in time"),
    ],
)
async def test_a_command_of_the_release_passes_with_exit_code_0(ran: Ran, reason: str) -> None:
    asked: list[tuple[tuple[str, ...], timedelta]] = []

    async def run(command: tuple[str, ...], timeout: timedelta) -> Ran:  # noqa: ASYNC109  # as the keeper has it
        asked.append((command, timeout))
        return ran

    probe = replace(PROBE, check=model.ExecCheck(("check", "-v")))
    assert await probes.ask(probe, "", run) == probes.Answer(not reason, reason)
    assert asked == [(("check", "-v"), probe.timeout)]


def read(driver: str, more: str = "", sockets: tuple[str, ...] = ("http", "admin")) -> model.Manifest:
    named = "".join(f'[[sockets]]\nname = "{name}"\n' for name in sockets)
    return manifest.parse_toml(f'name = "web"\nversion = "1.0.0"\ndriver = "{driver}"\ncommand = ["x"]\n{more}{named}')


ADDRESSES = {"http": "127.0.0.1:80", "admin": "unix:/a"}


@pytest.mark.parametrize(
    ("chosen", "asked", "target"),
    [
        (read("handover"), "", "unix:/r/i.probe"),
        (read("handover"), "admin", "unix:/a"),
        (read("handover", "handover.listen_fds_only = true\n"), "", "127.0.0.1:80"),
        (read("held"), "", "127.0.0.1:80"),
        (read("process"), "admin", "unix:/a"),
        (read("process", sockets=()), "", ""),
        (read("acme.own", sockets=()), "", "unix:/r/i.probe"),
    ],
)
def test_the_private_socket_is_asked_where_it_is_served_else_the_named_or_first_one(
    chosen: model.Manifest, asked: str, target: str
) -> None:
    assert probes.target(asked, chosen, ADDRESSES, Path("/r"), "i") == target


def test_a_socket_without_an_address_cannot_be_asked() -> None:
    with pytest.raises(ConfigError) as caught:
        probes.target("admin", read("held"), {"http": "127.0.0.1:80"}, Path("/r"), "i")
    assert caught.value.field == "sockets.web.admin"


FRAMINGS = {
    "by length": b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(TEXT) + TEXT,
    "by its end": b"HTTP/1.1 200 OK\r\n\r\n" + TEXT,
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"%x;note=1\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (50, TEXT[:50], len(TEXT) - 50, TEXT[50:]),
}


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_only_the_named_series_are_read_however_the_answer_is_framed(tmp_path: Path, framing: str) -> None:
    async with serving(tmp_path, FRAMINGS[framing], stays_open=framing != "by its end") as (path, _):
        seen = await probes.scrape(SOURCE, "web", f"unix:{path}", life=9)
    assert seen == (
        model.Metric('errors_total{code="500"}', "web", 2.0, model.SeriesKind.COUNTER, 9),
        model.Metric("requests_total", "web", 7.5, model.SeriesKind.COUNTER, 9),
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 10_000,
    ],
)
async def test_metrics_that_are_not_whole_are_no_metrics(tmp_path: Path, answer: bytes) -> None:
    async with serving(tmp_path, answer) as (path, _):
        with pytest.raises(probes.ProbeError, match="cannot"):
            await probes.scrape(SOURCE, "web", f"unix:{path}")


async def test_metrics_that_do_not_come_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SCRAPE_TIMEOUT_SECONDS", 0.05)
    async with serving(tmp_path, b"HTTP/1.1 200 OK\r\n\r\n", stays_open=True) as (path, _):
        with pytest.raises(probes.ProbeError, match="no answer within"):
            await probes.scrape(SOURCE, "web", f"unix:{path}")


async def test_a_text_with_too_many_lines_is_no_metrics(tmp_path: Path) -> None:
    text = b"requests_total 1\n" * (series.LINES_MAX + 1)
    async with serving(tmp_path, b"HTTP/1.1 200 OK\r\n\r\n" + text) as (path, _):
        with pytest.raises(probes.ProbeError, match="more than 2000"):
            await probes.scrape(SOURCE, "web", f"unix:{path}")


def test_health_breaks_only_at_the_threshold() -> None:
    watch = probes.HealthWatch(3)
    assert (watch.health, watch.healthy_for(5)) == (model.Health.UNKNOWN, timedelta())
    watch = watch.seen(is_success=True, now_seconds=10).seen(is_success=True, now_seconds=11)
    watch = watch.seen(is_success=False, now_seconds=12).seen(is_success=False, now_seconds=13)
    assert (watch.health, watch.healthy_for(14)) == (model.Health.HEALTHY, timedelta(seconds=4))
    broken = watch.seen(is_success=False, now_seconds=15)
    assert (broken.health, broken.healthy_for(16)) == (model.Health.UNHEALTHY, timedelta())
    again = broken.seen(is_success=True, now_seconds=20)
    assert (again.health, again.healthy_for(21)) == (model.Health.HEALTHY, timedelta(seconds=1))


def test_a_success_between_failures_counts_from_the_start() -> None:
    watch = probes.HealthWatch(2).seen(is_success=True, now_seconds=0)
    for now in range(1, 9):
        watch = watch.seen(is_success=now % 2 == 0, now_seconds=now)
    assert watch.healthy_for(9) == timedelta(seconds=9)


def test_an_instance_that_was_never_well_becomes_unhealthy_at_the_threshold() -> None:
    watch = probes.HealthWatch(2).seen(is_success=False, now_seconds=0)
    assert watch.health is model.Health.UNKNOWN
    assert watch.seen(is_success=False, now_seconds=1).health is model.Health.UNHEALTHY


@given(threshold=st.integers(1, 4), answers=st.lists(st.booleans(), max_size=40))
def test_healthy_time_never_spans_a_break(threshold: int, answers: list[bool]) -> None:
    watch = probes.HealthWatch(threshold)
    for now, is_success in enumerate(answers):
        watch = watch.seen(is_success=is_success, now_seconds=now)
        assert (watch.healthy_since_seconds is not None) == (watch.health is model.Health.HEALTHY)
    words = "".join("s" if answer else "f" for answer in answers)
    since_break = words.rpartition("f" * threshold)[2]
    if "s" in since_break:
        first = len(words) - len(since_break) + since_break.index("s")
        assert watch.healthy_since_seconds == first
    else:
        assert watch.healthy_since_seconds is None
