"""Applications from the registry, run unchanged and swapped under a load that forgives nothing."""

import asyncio
import dataclasses

import pytest
from websockets import exceptions
from websockets.asyncio import client

from agent import processes
from instar_handover import asgi_application
from tests.agent.keeper import node
from tests.instar_handover import http_load, swaps

SERVE = ("python", "-m", "instar_handover", "serve")


def of(a_node: node.Node, kind: str, *options: str) -> swaps.Make:
    """Serve the Starlette application as ASGI, or the Flask one as WSGI."""
    program = {"asgi": "starlette_app", "wsgi": "flask_app"}[kind]
    return swaps.maker(a_node, f"{program}.py", (*SERVE, kind, f"{program}:app", *options))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("asgi", ["--http", "h11"]), ("asgi", ["--http", "httptools"]), ("wsgi", []), ("asgi", ["--workers", "2"])],
    ids=["h11", "httptools", "wsgi", "workers"],
)
async def test_an_application_is_swapped_without_a_failed_request(
    a_node: node.Node, kind: str, options: list[str]
) -> None:
    keeper = await a_node.attached()
    make = of(a_node, kind, *options)
    old = await swaps.serving(keeper, make(swaps.OLD))
    async with http_load.on(a_node.address) as seen:
        await seen.until_served(swaps.OLD, 50)
        new = await swaps.switched(keeper, make(swaps.NEW), old)
        await seen.until_served(swaps.NEW, 50)
        ended = await swaps.committed(keeper, new, old)
        await seen.until_served(swaps.NEW, 20)
    assert seen.failures == []
    assert (ended.exit_code, ended.restarts, ended.in_flight) == (0, 0, 0)
    assert ended.served == seen.by_version[swaps.OLD]


async def test_an_aborted_swap_of_an_application_fails_no_request(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    make = of(a_node, "asgi")
    old = await swaps.serving(keeper, make(swaps.OLD))
    async with http_load.on(a_node.address) as seen:
        new = await swaps.switched(keeper, make(swaps.NEW), old)
        await seen.until_served(swaps.NEW, 30)
        await swaps.aborted(keeper, new, old)
        await seen.until_served(swaps.OLD, 30)
    assert seen.failures == []
    assert (await node.find(keeper, old.id)).state is processes.InstanceState.ACTIVE


async def test_the_lifespan_starts_before_prepared_and_stops_after_the_last_request(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    made = await node.prepared(keeper, of(a_node, "asgi")(swaps.OLD))
    log = a_node.run / f"{made.id}.log"
    assert "application started" in log.read_text()
    await keeper.say(made.id, processes.Word.ACTIVATE, node.WORD_TIMEOUT)
    reader, writer = await asyncio.open_connection(*a_node.address)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    await keeper.say(made.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
    assert "application stopped" not in log.read_text()
    assert (await reader.read()).endswith(b"0\r\n\r\n")
    writer.close()
    assert (await node.reaches(keeper, made.id, processes.InstanceState.EXITED)).exit_code == 0
    assert log.read_text().rindex("application stopped") > log.read_text().rindex("GET /stream")


async def test_a_background_task_is_finished_before_the_lifespan_stops(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    made = await swaps.serving(keeper, of(a_node, "asgi")(swaps.OLD))
    reader, writer = await asyncio.open_connection(*a_node.address)
    writer.write(b"GET /background HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"in the background")
    writer.close()
    await keeper.say(made.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
    await node.reaches(keeper, made.id, processes.InstanceState.EXITED)
    log = (a_node.run / f"{made.id}.log").read_text()
    assert 0 <= log.find("background done") < log.find("application stopped")


BROKEN_AT_IMPORT = "raise ValueError('broken')"
BROKEN_AT_START = """
import contextlib
from starlette import applications

@contextlib.asynccontextmanager
async def lifespan(app):
    raise ValueError("broken")
    yield

app = applications.Starlette(lifespan=lifespan)
"""


@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
@pytest.mark.parametrize("source", [BROKEN_AT_IMPORT, BROKEN_AT_START])
async def test_an_application_that_does_not_start_ends_before_it_is_prepared(
    a_node: node.Node, source: str, options: list[str]
) -> None:
    keeper = await a_node.attached()
    released = a_node.release(swaps.OLD, source=source, name="broken.py")
    spec = dataclasses.replace(released, command=(*SERVE, "asgi", "broken:app", *options))
    await keeper.start(spec)
    ended = await node.reaches(keeper, spec.id, processes.InstanceState.EXITED)
    assert ended.exit_code not in (0, None)


@pytest.mark.parametrize("parser", ["h11", "httptools"])
async def test_the_probe_listener_serves_the_applications_paths_from_prepared_on_and_counts_nothing(
    a_node: node.Node, parser: str
) -> None:
    keeper = await a_node.attached()
    made = await node.prepared(keeper, of(a_node, "asgi", "--http", parser)(swaps.OLD))
    async with http_load.on(str(a_node.run / f"{made.id}.probe"), [http_load.PLAIN]) as seen:
        await seen.until_served(swaps.OLD, 10)
    shown = await node.find(keeper, made.id)
    assert seen.failures == []
    assert (shown.state, shown.served, shown.accepted) == (processes.InstanceState.PREPARED, 0, 0)
    reader, writer = await asyncio.open_unix_connection(str(a_node.run / f"{made.id}.probe"))
    writer.write(b"GET /background HTTP/1.1\r\nHost: test\r\n\r\n")
    await reader.readuntil(b"in the background")
    await keeper.say(made.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
    await node.reaches(keeper, made.id, processes.InstanceState.EXITED)
    writer.close()
    assert "background done" not in (a_node.run / f"{made.id}.log").read_text()


async def test_a_websocket_lives_through_the_swap_and_is_told_of_the_restart_near_the_deadline_of_the_drain(
    a_node: node.Node,
) -> None:
    keeper = await a_node.attached()
    make = swaps.with_environment(of(a_node, "asgi"), INSTAR_DRAIN_SECONDS="3")
    old = await swaps.serving(keeper, make(swaps.OLD))
    url = f"ws://{a_node.address[0]}:{a_node.address[1]}/ws"
    idle, writer = await asyncio.open_connection(*a_node.address)
    async with client.connect(url) as kept, client.connect(url) as quiet:
        await kept.send("before")
        assert await kept.recv() == "1.0.0 before"
        new = await swaps.switched(keeper, make(swaps.NEW), old)
        async with client.connect(url) as other:
            await other.send("new")
            assert await other.recv() == "1.1.0 new"
        await kept.send("paused")
        assert await kept.recv() == "1.0.0 paused"
        await keeper.commit("op-1", new.id)
        await keeper.say(old.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
        await kept.send("draining")
        assert await kept.recv() == "1.0.0 draining"
        assert await idle.read() == b""  # what is idle is closed by now
        await quiet.send("draining")
        assert await quiet.recv() == "1.0.0 draining"
        writer.close()
        with pytest.raises(exceptions.ConnectionClosed):
            await asyncio.wait_for(kept.recv(), node.PATIENCE_SECONDS)
    assert kept.close_code == asgi_application.SERVICE_RESTART
    ended = await node.reaches(keeper, old.id, processes.InstanceState.EXITED)
    assert (ended.exit_code, ended.served) == (0, 2)


async def test_a_drain_that_is_turned_back_leaves_the_websockets_alone(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    make = swaps.with_environment(of(a_node, "asgi"), INSTAR_DRAIN_SECONDS="0.5")
    old = await swaps.serving(keeper, make(swaps.OLD))
    async with client.connect(f"ws://{a_node.address[0]}:{a_node.address[1]}/ws") as kept:
        await keeper.say(old.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
        await keeper.say(old.id, processes.Word.RESUME, node.WORD_TIMEOUT)
        for _ in range(60):  # well past the deadline of the drain that was
            await kept.send("still")
            assert await kept.recv() == "1.0.0 still"
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("parser", ["h11", "httptools"])
async def test_a_request_sent_ahead_is_answered_before_the_connection_ends(a_node: node.Node, parser: str) -> None:
    keeper = await a_node.attached()
    old = await swaps.serving(keeper, of(a_node, "asgi", "--http", parser)(swaps.OLD))
    reader, writer = await asyncio.open_connection(*a_node.address)
    request = b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n"
    writer.write(request)
    await reader.readuntil(b"\r\n\r\n")
    await keeper.say(old.id, processes.Word.PAUSE, node.WORD_TIMEOUT)
    writer.write(request + request)
    answers = await asyncio.wait_for(reader.read(), node.PATIENCE_SECONDS)
    writer.close()
    assert answers.count(b"HTTP/1.1 200 OK") == 2  # beside the first, whose head is read already
    assert answers.count(b"connection: close") == 1
    assert answers.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("parser", ["h11", "httptools"])
async def test_an_answer_before_the_request_is_whole_leaves_the_connection_open_for_the_rest(
    a_node: node.Node, parser: str
) -> None:
    keeper = await a_node.attached()
    old = await swaps.serving(keeper, of(a_node, "asgi", "--http", parser)(swaps.OLD))
    reader, writer = await asyncio.open_connection(*a_node.address)
    writer.write(b"POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nfirst")
    assert b"connection: close" not in await reader.readuntil(b"not read")
    await keeper.say(old.id, processes.Word.PAUSE, node.WORD_TIMEOUT)
    writer.write(b"other" + b"POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nfirst")
    assert b"connection: close" not in await reader.readuntil(b"not read")
    writer.write(b"other" + b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), node.PATIENCE_SECONDS)
    writer.close()
    assert b"connection: close" in answer
    assert answer.endswith(b"1.0.0 hello")
