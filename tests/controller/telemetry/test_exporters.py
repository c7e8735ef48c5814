"""Spans reach a collector over gRPC and over HTTP alike, as the variables of OpenTelemetry say, or wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
import trustme
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from controller.config import traces
from controller.core import model
from controller.store import database, executor, reading
from controller.telemetry import emit, ids, spans
from tests.controller.engine import fleet
from tests.controller.telemetry import collectors

PROTOCOLS = pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
LATE_SECONDS = 20


@pytest.fixture(name="told", scope="module")
def _store_with_a_rollout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[database.Store, model.RolloutId]]:
    """The store of a rollout on three nodes, one of which failed, and its id."""
    place = tmp_path_factory.mktemp("told") / "store"

    async def story() -> model.RolloutId:
        controller = fleet.Controller(place)
        first, *others = await fleet.upgraded_fleet(controller)
        begun = await controller.engine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        for agent in others:
            await agent.obey(controller.engine)
        await first.fail(controller.engine)
        for agent in others:
            await agent.obey(controller.engine)
        assert controller.engine.rollout(begun.id).state is model.RolloutState.REVERTED
        await controller.stop()
        return begun.id

    rollout_id = fleet.in_virtual_time(story)
    store = database.Store(place, executor.WriterThread())
    yield store, rollout_id
    store.close()


@pytest.fixture(name="store")
async def _store_with_all_spans_waiting(told: tuple[database.Store, model.RolloutId]) -> database.Store:
    store, _ = told
    await store.write(lambda connection: connection.exec_driver_sql("UPDATE outbox SET is_emitted = 0"))
    return store


def _receiver(protocol: str, tls: collectors.Tls | None = None) -> collectors.Collector | collectors.HttpCollector:
    return collectors.Collector(tls) if protocol == "grpc" else collectors.HttpCollector(tls)


def _to(variables: dict[str, str], protocol: str, endpoint: str) -> traces.Traces:
    named = {f"OTEL_EXPORTER_OTLP_TRACES_{name}": value for name, value in variables.items()}
    given = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": protocol}
    found = traces.read(given | named)
    assert found is not None
    return found


async def _send_all(store: database.Store, to: traces.Traces) -> None:
    emitter = emit.Emitter(store, to)
    assert await emitter.drain()
    await emitter.close()


def _sorted(received: collectors.Kept) -> list[bytes]:
    """Each span with its resource, as bytes."""
    found = []
    for resource, span in received.spans():
        one = trace_service_pb2.ExportTraceServiceRequest()
        scope = one.resource_spans.add(resource=resource).scope_spans.add()
        scope.spans.append(span)
        found.append(one.SerializeToString(deterministic=True))
    return sorted(found)


async def test_the_trace_of_a_rollout_over_http_equals_the_one_over_grpc(
    told: tuple[database.Store, model.RolloutId], store: database.Store
) -> None:
    received = []
    for protocol in ("grpc", "http/protobuf"):
        await store.write(lambda connection: connection.exec_driver_sql("UPDATE outbox SET is_emitted = 0"))
        collector = _receiver(protocol)
        await _send_all(store, _to({}, protocol, collector.endpoint))
        collector.stop()
        received.append(collector)
    over_grpc, over_http = received
    _, rollout_id = told
    stored = store.read(lambda connection: reading.trace(connection, ids.trace_id(rollout_id)))
    of_rollout = [span for _, span in over_http.spans() if span.trace_id.hex() == ids.trace_id(rollout_id)]
    assert len(of_rollout) == len(stored)
    assert {"RUN rollout", "wave", "upgrade node", "apply upgrade", "revert"} <= {span.name for span in of_rollout}
    assert _sorted(over_http) == _sorted(over_grpc)


@pytest.fixture(name="files", scope="module")
def _files_of_both_sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[collectors.Tls, dict[str, str]]:
    """What a receiver has, and the variables of who calls it: each trusts an authority of the other alone."""
    folder = tmp_path_factory.mktemp("tls")
    servers, callers = trustme.CA(), trustme.CA()
    server, caller = servers.issue_cert("127.0.0.1"), callers.issue_cert("controller@fleet.example")
    servers.cert_pem.write_to_path(folder / "servers.pem")
    callers.cert_pem.write_to_path(folder / "callers.pem")
    for name, one in (("server", server), ("caller", caller)):
        one.private_key_pem.write_to_path(folder / f"{name}.key")
        one.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    mine = {
        "CERTIFICATE": str(folder / "servers.pem"),
        "CLIENT_KEY": str(folder / "caller.key"),
        "CLIENT_CERTIFICATE": str(folder / "caller.pem"),
    }
    return collectors.Tls(folder / "server.pem", folder / "server.key", folder / "callers.pem"), mine


@PROTOCOLS
async def test_a_receiver_that_checks_who_calls_is_shown_the_certificate_and_the_headers(
    protocol: str, store: database.Store, files: tuple[collectors.Tls, dict[str, str]]
) -> None:
    tls, variables = files
    collector = _receiver(protocol, tls)
    headers = {"HEADERS": "Authorization=Bearer%20abc,x-tenant=blue"}
    await _send_all(store, _to(variables | headers, protocol, collector.endpoint))
    collector.stop()
    assert collector.spans()
    assert {(each["authorization"], each["x-tenant"]) for each in collector.headers} == {("Bearer abc", "blue")}


@PROTOCOLS
async def test_a_receiver_whom_no_known_authority_vouches_for_gets_nothing(
    protocol: str, store: database.Store, files: tuple[collectors.Tls, dict[str, str]]
) -> None:
    tls, variables = files
    collector = _receiver(protocol, tls)
    wrong = variables | {"CERTIFICATE": str(tls.callers), "TIMEOUT": "500"}
    emitter = emit.Emitter(store, _to(wrong, protocol, collector.endpoint))
    assert not await emitter.drain()
    emitter._exporter.shutdown()
    collector.stop()
    assert collector.requests == []


class _Relay:
    """Passes bytes on to a port, and counts those that go there."""

    def __init__(self, port: int) -> None:
        self.bytes = 0
        self.port = 0
        self._to = port
        self._connections: list[asyncio.Task[None]] = []

    async def _passed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_counted: bool) -> None:
        while block := await reader.read(65536):
            self.bytes += len(block) if is_counted else 0
            writer.write(block)
        writer.close()
        await writer.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        current = asyncio.current_task()
        assert current is not None
        self._connections.append(current)
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(self._passed(reader, back, is_counted=True), self._passed(there, writer, is_counted=False))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        yield
        server.close()
        await asyncio.gather(*self._connections)


@PROTOCOLS
async def test_what_is_to_be_packed_is_sent_packed(protocol: str, store: database.Store) -> None:
    collector = _receiver(protocol)
    sizes = []
    for compression in ("none", "gzip"):
        await store.write(lambda connection: connection.exec_driver_sql("UPDATE outbox SET is_emitted = 0"))
        relay = _Relay(collector.port)
        async with relay.running():
            endpoint = collector.endpoint.replace(str(collector.port), str(relay.port))
            await _send_all(store, _to({"COMPRESSION": compression}, protocol, endpoint))
        sizes.append(relay.bytes)
    collector.stop()
    plain, packed = sizes
    assert packed * 3 < plain
    assert collector.requests[0] == collector.requests[-1]


async def test_what_is_said_of_the_service_is_the_controllers_and_not_the_agents(store: database.Store) -> None:
    collector = collectors.Collector()
    given = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_SERVICE_NAME": "upgrades",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod",
    }
    to = traces.read(given)
    assert to is not None
    await _send_all(store, to)
    collector.stop()
    told = [{each.key: each.value.string_value for each in resource.attributes} for resource, _ in collector.spans()]
    mine = {"service.name": "upgrades", "service.namespace": "instar", "deployment.environment.name": "prod"}
    assert all(each == mine for each in told if each["service.name"] != spans.AGENT_SERVICE)
    assert mine in told
    assert all("deployment.environment.name" not in each for each in told if "host.id" in each)


@PROTOCOLS
async def test_a_receiver_that_hangs_holds_up_neither_the_loop_nor_the_end(
    protocol: str, store: database.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emit, "SHUTDOWN_SECONDS", 0.3)
    silent = socket.create_server(("127.0.0.1", 0))
    endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
    emitter = emit.Emitter(store, replace(_to({}, protocol, endpoint), timeout=timedelta(seconds=LATE_SECONDS)))
    turns = 0
    sending = asyncio.ensure_future(emitter.drain())
    while turns < 20:
        await asyncio.sleep(0.01)
        turns += 1
    assert not sending.done()
    async with asyncio.timeout(LATE_SECONDS / 2):
        await emitter.close()
    sending.cancel()
    left = [each for each in threading.enumerate() if each.name == "instar-spans"]
    assert all(each.daemon for each in left)
    assert await store.pending_spans(1000)
    silent.close()
    for each in left:
        await asyncio.to_thread(each.join, LATE_SECONDS)


def test_without_an_endpoint_nothing_of_it_is_imported_and_nothing_is_said() -> None:
    program = """
import asyncio, sys
from controller import server
async def story():
    async with server._emitting(None, None):
        print([name for name in sys.modules if name.startswith(("opentelemetry", "requests"))])
asyncio.run(story())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
