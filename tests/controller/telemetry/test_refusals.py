"""A refused request is stored, counted and traced: one span for each, whoever sends it and how often."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common import trace_encoder
from opentelemetry.proto.trace.v1 import trace_pb2

from controller.config import traces
from controller.core import errors, model
from controller.engine import office
from controller.store import database, executor, reading
from controller.telemetry import emit, ids, refusals, spans
from tests.controller.engine import fleet
from tests.controller.telemetry import collectors

PENDING_MAX = 1000
GRPC_BYTES_MAX = 4 << 20


async def refused_spans(store: database.Store) -> list[dict[str, Any]]:
    """The spans of refused requests that wait to be sent, oldest first."""
    told = [json.loads(body) for _, body in await store.pending_spans(PENDING_MAX)]
    return [each for each in told if each["name"] == "refuse request"]


def test_each_refused_request_is_a_trace_of_its_own_that_says_who_asked_for_what_and_why_not(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        machine = controller.engine
        with pytest.raises(errors.NotFoundError) as unknown:
            await machine.plan(fleet.request(target_version="9.9.9"), actor="ann")
        with pytest.raises(errors.RefusedError):
            await machine.start_upgrade(fleet.request(selector="zone=z"), request_id="one", actor="bob")
        with pytest.raises(errors.NotFoundError):
            await machine.cordon_node(model.NodeId("n9"), reason="disk", actor="ann")
        first, second, third = await refused_spans(controller.store)
        assert first["attributes"] == {
            "upgrade.refusal.number": 1,
            "upgrade.action": "plan_upgrade",
            "upgrade.actor": "ann",
            "upgrade.component": "web",
            "upgrade.refusal.field": "target_version",
            "upgrade.refusal.rule": unknown.value.rule,
            "error.type": "release_not_found",
            "error.message": str(unknown.value),
        }
        assert (first["is_failed"], first["error"], first["parent_id"]) == (True, str(unknown.value), "")
        assert [
            (each["attributes"]["upgrade.action"], each["attributes"]["error.type"]) for each in (second, third)
        ] == [
            ("start_upgrade", "selector_matches_no_node"),
            ("cordon_node", "node_not_found"),
        ]
        assert "upgrade.component" not in third["attributes"]
        assert len({each["trace_id"] for each in (first, second, third)}) == 3
        stored = controller.store.read(lambda connection: reading.refusals(connection, 10))
        assert len(stored) == machine.statistics().refused == 3
        assert [spans._nanoseconds(each.at) for each in reversed(stored)] == [
            each["started_at"] for each in (first, second, third)
        ]

    fleet.told(tmp_path, tale)


def test_the_same_request_refused_again_at_the_same_instant_and_by_the_next_life_is_another_span(
    tmp_path: Path,
) -> None:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        for _life in range(2):
            for _time in range(2):
                with pytest.raises(errors.NotFoundError):
                    await controller.engine.plan(fleet.request(target_version="9.9.9"), actor="ann")
            await controller.restart()
        told = await refused_spans(controller.store)
        assert [each["attributes"]["upgrade.refusal.number"] for each in told] == [1, 2, 3, 4]
        assert len({each["started_at"] for each in told}) == 1
        assert len({each["trace_id"] for each in told}) == len({each["span_id"] for each in told}) == 4

    fleet.told(tmp_path, tale)


def test_what_a_caller_is_not_to_blame_for_and_what_a_node_says_amiss_is_no_refused_request(tmp_path: Path) -> None:
    async def tale(controller: fleet.Controller, agents: list[fleet.Agent]) -> None:
        machine = controller.engine
        await machine.start_upgrade(fleet.request(), request_id="one", actor="ann")
        command = agents[0].assigned(machine)[0]
        await agents[1].tell_status(machine, command, model.OperationState.RUNNING)
        assert controller.store.read(lambda connection: reading.refusals(connection, 10))
        late = errors.UnavailableError("cannot plan: it takes too long", code="plan_late")
        await machine.keep_refusal(office.Asked("ann", "plan", "all of it"), late)
        assert await refused_spans(controller.store) == []

    fleet.told(tmp_path, tale)


def test_texts_of_callers_are_cut_off_so_that_a_batch_of_such_spans_fits_into_one_message() -> None:
    long = "\N{BUG}" * 100_000
    error = errors.RefusedError(f"cannot: {long}", code="no", field=long, rule=long)
    span = refusals.refused(refusals.Refused(1, fleet.EPOCH, long, long, long, error))
    assert {len(str(each)) for name, each in span.attributes.items() if name != "upgrade.refusal.number"} == {
        len("no"),
        refusals.TEXT_CHARS_MAX,
    }
    sent = trace_encoder.encode_spans([emit.from_text(spans.to_text(span))] * emit.BATCH_MAX)
    assert sent.ByteSize() < GRPC_BYTES_MAX


def test_the_identity_of_a_refusal_is_made_of_its_number_and_its_instant_alone() -> None:
    later = fleet.EPOCH + timedelta(microseconds=1)
    for identity in (ids.refusal, ids.refusal_trace):
        assert identity(1, fleet.EPOCH) == identity(1, fleet.EPOCH)
        assert len({identity(1, fleet.EPOCH), identity(2, fleet.EPOCH), identity(1, later)}) == 3
    assert ids.refusal(1, fleet.EPOCH) not in ids.refusal_trace(1, fleet.EPOCH)


@pytest.fixture(name="store")
def _store_with_a_refusal(tmp_path: Path) -> Iterator[database.Store]:
    async def tale(controller: fleet.Controller, _: list[fleet.Agent]) -> None:
        with pytest.raises(errors.NotFoundError):
            await controller.engine.start_upgrade(fleet.request(target_version="9.9.9"), request_id="", actor="ann")

    fleet.told(tmp_path, tale)
    store = database.Store(tmp_path / "store", executor.WriterThread())
    yield store
    store.close()


async def test_a_collector_gets_a_refused_request_as_an_error_and_each_time_the_same(store: database.Store) -> None:
    collector = collectors.Collector()
    for _ in range(2):
        emitter = emit.Emitter(store, traces.Traces(collector.endpoint))
        assert await emitter.drain()
        assert await emitter.drain()
        await emitter.close()
        assert await store.pending_spans(PENDING_MAX) == ()
        await store.write(lambda connection: connection.exec_driver_sql("UPDATE outbox SET is_emitted = 0"))
    first, second = (request.SerializeToString(deterministic=True) for request in collector.requests)
    assert first == second
    resource, span = collector.spans()[0]
    assert {each.key: each.value.string_value for each in resource.attributes} == spans.controller_resource()
    assert (span.name, span.kind, span.parent_span_id) == ("refuse request", trace_pb2.Span.SPAN_KIND_SERVER, b"")
    assert (span.status.code, span.status.message) == (
        trace_pb2.Status.STATUS_CODE_ERROR,
        "cannot find release web 9.9.9: no such target_version was published",
    )
    told = {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
    assert (told["error.type"], told["upgrade.actor"], told["upgrade.component"]) == ("release_not_found", "ann", "web")
    assert span.trace_id.hex() == ids.refusal_trace(1, fleet.EPOCH)
    assert span.span_id.hex() == ids.refusal(1, fleet.EPOCH)
    collector.stop()
