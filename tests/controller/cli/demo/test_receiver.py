from __future__ import annotations

import asyncio
from collections.abc import Sequence

from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from controller.cli.demo import receiver


class Collected(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


def recorded() -> Sequence[ReadableSpan]:
    collected = Collected()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(collected))
    tracer = provider.get_tracer("test")
    with (
        tracer.start_as_current_span("RUN rollout"),
        tracer.start_as_current_span("soak", attributes={"host.id": "n1"}),
    ):
        otel.get_current_span().set_attribute("upgrade.attempt", 1)
    return collected.spans


async def test_spans_of_the_sdk_s_own_exporter_arrive_whole_and_once() -> None:
    spans = recorded()
    kept = receiver.Receiver()
    server, port = await receiver.serve(kept)
    exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True)
    try:
        for _ in range(2):
            assert await asyncio.to_thread(exporter.export, spans) is SpanExportResult.SUCCESS
    finally:
        await asyncio.to_thread(exporter.shutdown)
        await server.stop(None)

    context = spans[0].context
    assert context is not None
    trace = kept.trace(f"{context.trace_id:032x}")
    assert len(trace.spans) == 2
    assert [root.name for root in trace.roots] == ["RUN rollout"]
    assert not trace.orphans
    (soak,) = trace.named("soak")
    assert soak.attributes["upgrade.attempt"] == "1"
    assert soak.node_id == "n1"
    assert soak.started_at <= soak.ended_at
