"""Whatever a stranger, an agent, somebody who may use the API, or a controller that is none sends: nothing breaks.

Broken is: a status INTERNAL or UNKNOWN, an exception in the log, an agent that ends, memory that grows and grows. Each
test takes some seconds; `make fuzz MINUTES=10` goes on with other examples for so long.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import hypothesis
import psutil
import pytest
from google.protobuf import json_format, message
from grpc import aio
from hypothesis import strategies as st

from agent.config import errors as agent_errors
from agent.config import manifest as agent_manifest
from agent.core import admission, secret, session
from agent.core import model as agent_model
from agent.link import convert, transport
from agent.link import loop as agent_loop
from controller import clock
from controller.cli.demo import ports
from controller.config import manifest
from controller.config import quotas as configured
from controller.core import errors
from controller.rpc import attempts
from instar.v1 import agent_service_pb2, agent_service_pb2_grpc, enrolment_service_pb2, manifest_pb2
from tests.security import house, messages, nodes, posts, test_limits_connections

MINUTES = float(os.environ.get("INSTAR_FUZZ_MINUTES", "0"))
TARGETS = 9  # tests that share the minutes
EXAMPLES = 60  # of one round; CI has one
CALL_SECONDS = 20.0
WATCH_SECONDS = 0.3  # without an answer, after which a watch is taken for one: it would go on for ever
GROWTH_BYTES_MAX = 96 << 20  # of this process, which is client and server at once, over all rounds of a test
VISIT_SECONDS_MAX = 20.0
AWAY_MAX_SECONDS = 3600.0  # that a controller can keep an agent away at one stroke
BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
UNTRUE = st.one_of(
    st.just(()),
    st.sampled_from(["wrong", "a.b.c", "..", "", "." * 500, "eyJhbGciOiJub25lIn0.e30.", "x" * 5000]).map(posts.bearer),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=50).map(
        lambda text: (("authorization", text),)
    ),
)


def explore(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], examples: int = EXAMPLES) -> None:
    """Check examples: always the same ones in CI; by `make fuzz` others and others until the time is over."""
    until_seconds = time.monotonic() + 60 * MINUTES / TARGETS
    before = psutil.Process().memory_info().rss
    for number in range(10_000_000):
        settings = hypothesis.settings(
            max_examples=examples,
            database=None,
            derandomize=not MINUTES,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        wanted = settings(hypothesis.given(strategy)(check))
        hypothesis.seed(number + int(time.time() * 1000))(wanted)() if MINUTES else wanted()  # noqa: TID251
        if time.monotonic() >= until_seconds:
            break
    grown = psutil.Process().memory_info().rss - before
    assert grown < GROWTH_BYTES_MAX, f"{grown >> 20} MiB more than before"


class Arena:
    """A controller, led step by step from tests that are not asynchronous themselves."""

    def __init__(self, runner: asyncio.Runner, post: posts.Post) -> None:
        self.runner = runner
        self.post = post
        self.operator = post.operator
        self.agent = post.agent("n-1")

    def sends(
        self, method: posts.Method, bodies: list[bytes], shown: posts.Metadata, watch_seconds: float = WATCH_SECONDS
    ) -> grpc.StatusCode:
        """Send something, and return what became of it."""
        return self.runner.run(send(self.post.channel, method, bodies, shown, watch_seconds))

    def is_well(self) -> None:
        """Answer somebody who asks nothing special."""
        self.runner.run(self.post.ask("ListFreezes", posts.METHODS["ListFreezes"].request(), self.operator))


async def send(
    channel: aio.Channel,
    method: posts.Method,
    bodies: list[bytes],
    shown: posts.Metadata,
    watch_seconds: float = WATCH_SECONDS,
) -> grpc.StatusCode:
    """Send something, and return what became of it."""
    call = _raw(channel, method, bodies, shown)
    try:
        if method.has_streams[1]:
            for _ in range(50):
                async with asyncio.timeout(watch_seconds if method.has_streams == (False, True) else CALL_SECONDS):
                    if await call.read() is aio.EOF:
                        break
        else:
            await call
    except aio.AioRpcError as failure:
        return grpc.StatusCode.CANCELLED if failure.details() == nodes.OUR_END else failure.code()
    except TimeoutError:
        return grpc.StatusCode.OK
    finally:
        call.cancel()
    return grpc.StatusCode.OK


def _raw(channel: aio.Channel, method: posts.Method, bodies: list[bytes], shown: posts.Metadata) -> Any:  # noqa: ANN401
    words = {False: "unary", True: "stream"}
    make: Any = getattr(channel, f"{words[method.has_streams[0]]}_{words[method.has_streams[1]]}")
    asked: Any = _each(bodies) if method.has_streams[0] else bodies[0]
    return make(method.path)(asked, metadata=shown, timeout=CALL_SECONDS)


async def _each(bodies: list[bytes]) -> AsyncIterator[bytes]:
    for body in bodies:
        yield body


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setattr(attempts, "PAUSE_SECONDS", 0.0)
        stack = contextlib.AsyncExitStack()
        much = configured.Quotas(calls_per_second=100_000, calls_burst=100_000, streams_per_caller=1_000)
        post = runner.run(stack.enter_async_context(posts.serving(tmp_path, quotas=much)))
        yield Arena(runner, post)
        runner.run(stack.aclose())


@pytest.fixture(autouse=True)
def nothing_breaks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    broken = [each for each in caplog.records if each.levelno >= logging.ERROR or each.exc_info]
    assert not broken, [each.getMessage() for each in broken]


def any_body(method: posts.Method) -> st.SearchStrategy[bytes]:
    whole = messages.messages(method.request).map(lambda one: one.SerializeToString())
    return st.one_of(whole, whole, messages.bodies(method.request))


def any_call(known: list[posts.Method]) -> st.SearchStrategy[tuple[posts.Method, list[bytes]]]:
    return st.sampled_from(known).flatmap(
        lambda method: st.tuples(
            st.just(method), st.lists(any_body(method), min_size=1, max_size=3 if method.has_streams[0] else 1)
        )
    )


def test_whatever_a_stranger_sends_it_is_a_stranger(arena: Arena) -> None:
    def check(drawn: tuple[tuple[posts.Method, list[bytes]], posts.Metadata]) -> None:
        (method, bodies), shown = drawn
        # Whoever is still writing when the answer comes may miss it: it is asked for once more, by a stream of nothing.
        tries = (arena.sends(method, each, shown, CALL_SECONDS) for each in (bodies, *([[]] * nodes.ATTEMPTS_MAX)))
        found = next((each for each in tries if each is not grpc.StatusCode.CANCELLED), grpc.StatusCode.CANCELLED)
        assert found in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED), (method.path, found)

    explore(st.tuples(any_call(list(posts.methods())), UNTRUE), check)
    arena.is_well()


def test_whatever_somebody_sends_who_may_use_the_api_it_is_answered_or_refused(arena: Arena) -> None:
    arena.runner.run(_meet(arena))

    def check(drawn: tuple[posts.Method, list[bytes]]) -> None:
        method, bodies = drawn
        assert arena.sends(method, bodies, arena.operator) not in BROKEN, method.path

    known = [each for each in posts.methods() if "AgentService" not in each.path]
    explore(any_call(known), check, examples=3 * EXAMPLES)
    arena.is_well()


async def _meet(arena: Arena) -> None:
    async with posts.session(arena.post.channel, "n-1", arena.agent, {"zone": "a"}):
        pass


@pytest.fixture
def door_for_nodes(tmp_path: Path) -> Iterator[tuple[asyncio.Runner, house.House, aio.Channel]]:
    """Where nodes come in that have no certificate yet."""
    (port,) = ports.free(1)
    home = house.House(tmp_path, enrol_listen=f"127.0.0.1:{port}")
    much = configured.Quotas(calls_per_second=100_000, calls_burst=100_000)
    home.settings = dataclasses.replace(home.settings, quotas=much)
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        runner.run(stack.enter_async_context(home.serving()))
        channel = runner.run(stack.enter_async_context(_to(home.enrol_address, home.roots)))
        yield runner, home, channel
        runner.run(stack.aclose())


@contextlib.asynccontextmanager
async def _to(address: str, roots: bytes) -> AsyncIterator[aio.Channel]:
    """A channel of the running loop."""
    async with aio.secure_channel(address, grpc.ssl_channel_credentials(roots)) as channel:
        yield channel


def test_whatever_a_node_sends_that_has_no_certificate_nothing_breaks(
    door_for_nodes: tuple[asyncio.Runner, house.House, aio.Channel],
) -> None:
    runner, home, channel = door_for_nodes
    token = runner.run(nodes.token(home, "n-1"))

    def check(drawn: tuple[posts.Method, list[bytes]]) -> None:
        method, bodies = drawn
        assert runner.run(send(channel, method, bodies, ())) not in BROKEN, method.path

    with_token = st.builds(
        lambda text: enrolment_service_pb2.EnrolRequest(token=token, certificate_request=text).SerializeToString(),
        st.one_of(st.text(max_size=200), st.just(nodes.request(nodes.key())[:-40])),
    )
    known = list(posts.methods(for_enrolment=True))
    enrol = next(each for each in known if each.path.endswith("/Enrol"))
    explore(st.one_of(any_call(known), with_token.map(lambda body: (enrol, [body]))), check)
    runner.run(nodes.Host(home, "n-1").enrol(token))


CONNECT, READ_BLOB = posts.METHODS["Connect"], posts.METHODS["ReadBlob"]
REQUESTS = messages.messages(agent_service_pb2.ConnectRequest)


def _numbered(drawn: tuple[list[message.Message], bool, bool]) -> list[bytes]:
    """What an agent says: mostly numbered as it should be, and often with a proper Hello in front."""
    said, has_hello, is_numbered = drawn
    found: list[Any] = [*([posts.hello("n-1")] if has_hello else []), *said]
    for number, each in enumerate(found, start=1):
        if is_numbered:
            each.sequence = number
        if each.HasField("hello") and is_numbered:
            each.hello.node_id = "n-1"
            each.hello.protocol_versions.append(1)
    return [each.SerializeToString() for each in found]


SAID = st.one_of(
    st.tuples(st.lists(REQUESTS, min_size=1, max_size=5), st.booleans(), st.sampled_from([True, True, False])).map(
        _numbered
    ),
    st.lists(any_body(CONNECT), min_size=1, max_size=3).map(
        lambda bodies: [posts.hello("n-1").SerializeToString(), *bodies]
    ),
)


def test_whatever_an_agent_says_the_controller_goes_on(arena: Arena) -> None:
    def check(bodies: list[bytes]) -> None:
        assert arena.sends(CONNECT, bodies, arena.agent) not in BROKEN
        shown: Any = arena.runner.run(arena.post.ask("ListNodes", posts.LIST, arena.operator))
        assert len(shown.nodes) <= 1

    explore(SAID, check, examples=2 * EXAMPLES)
    arena.is_well()


def test_whatever_bundle_an_agent_asks_for_the_controller_goes_on(arena: Arena) -> None:
    def check(body: bytes) -> None:
        assert arena.sends(READ_BLOB, [body], arena.agent) not in BROKEN

    explore(any_body(READ_BLOB), check)
    arena.is_well()


# The agent's edge.

RESPONSES = messages.messages(agent_service_pb2.ConnectResponse)
WELCOME = agent_service_pb2.ConnectResponse(
    welcome=agent_service_pb2.Welcome(session_id="s", session_generation=1, protocol_version=1)
)
WELCOME.welcome.heartbeat_period.FromMilliseconds(100)
WELCOME.welcome.server_time.GetCurrentTime()
ENDS = st.one_of(st.none(), st.sampled_from(["0", "1", "9" * 30, "-1", "x", "1" * 400]))


class Hostile(agent_service_pb2_grpc.AgentServiceServicer):
    """A controller that says whatever it is told to, and ends with whatever it is told to."""

    said: tuple[message.Message, ...] = ()
    ends_with: str | None = None

    async def Connect(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401, N802
        await anext(request_iterator)
        for each in self.said:
            yield each
        if self.ends_with is not None:
            told = ((transport.RETRY_AFTER_KEY, self.ends_with),)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "go", told)

    async def ReadBlob(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401, N802
        del request, context
        yield agent_service_pb2.ReadBlobResponse()

    async def ReadTrust(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401, N802
        del request, context
        yield agent_service_pb2.ReadTrustResponse()


def test_whatever_a_controller_says_the_agent_goes_on_and_comes_back(tmp_path: Path) -> None:
    hostile = Hostile()
    del tmp_path

    async def serve() -> tuple[aio.Server, int]:
        server = aio.server()
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(hostile, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    with asyncio.Runner() as runner:
        server, port = runner.run(serve())

        async def visit() -> float:
            way = transport.GrpcTransport(f"127.0.0.1:{port}", lambda: secret.Secret("token"))
            link = agent_loop.Link(way, node_id="n-1", now=clock.SystemClock().now, draw=lambda: 0.999)
            async with asyncio.timeout(VISIT_SECONDS_MAX):
                return (await link._visit(test_limits_connections.Node())).total_seconds()

        def check(drawn: tuple[bool, list[message.Message], str | None]) -> None:
            is_welcome, said, hostile.ends_with = drawn
            hostile.said = (*([WELCOME] if is_welcome else []), *said)
            assert runner.run(visit()) <= AWAY_MAX_SECONDS

        explore(st.tuples(st.booleans(), st.lists(RESPONSES, max_size=4), ENDS), check)
        runner.run(server.stop(None))


def test_whatever_is_assigned_the_agent_judges_it(tmp_path: Path) -> None:
    del tmp_path
    at = clock.SystemClock().now()

    def check(said: message.Message) -> None:
        response: Any = said
        try:
            event = convert.response(response, at)
        except convert.MessageError:
            return
        if isinstance(event, session.Commanded) and isinstance(event.command, agent_model.Assign):
            ledger = admission.Ledger(5, {"r/1": 5}, None, {"web": "sha256:" + "0" * 64}, frozenset(), frozenset(), at)
            assert admission.admit(event.command.assignment, ledger).verdict in admission.Verdict

    explore(RESPONSES, check, examples=2 * EXAMPLES)


# Manifests.


def toml(value: object) -> str:
    """A value as TOML, in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(value: str) -> str:
    return json.dumps(value).replace("\x7f", "\\u007f")


def _document(told: message.Message) -> str:
    try:
        found = json_format.MessageToDict(told, preserving_proto_field_name=True)
    except (ValueError, json_format.Error):  # times that no JSON can say
        return "x = 1"
    return "".join(f"{_text(key)} = {toml(one)}\n" for key, one in found.items())


MANIFESTS = st.one_of(
    messages.messages(manifest_pb2.Manifest).map(_document),
    st.tuples(messages.messages(manifest_pb2.Manifest).map(_document), st.integers(0, 5_000), st.text(max_size=3)).map(
        lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] :]
    ),
    st.text(max_size=50),
    st.sampled_from(["x = " + "[" * 500 + "]" * 500, "a." * 2_000 + "b = 1", "[[a]]\n" * 1_000, "x = 1e999"]),
)


def test_whatever_a_manifest_says_both_sides_read_it_or_refuse_it() -> None:
    def check(text: str) -> None:
        with contextlib.suppress(errors.InvalidRequestError):
            manifest.parse(text)
        with contextlib.suppress(agent_errors.ConfigError):
            agent_manifest.parse_toml(text)

    explore(MANIFESTS, check, examples=3 * EXAMPLES)
