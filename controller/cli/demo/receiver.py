"""A real OTLP/gRPC receiver on loopback: it keeps the spans that it is sent and answers what a trace holds.

Rules kept: a span that comes twice counts once (delivery is at least once). Left out: metrics, logs, storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

NANOSECONDS = 1e9  # in a second


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it was received.

    Args:
        parent_id: Empty for a root.
        attributes: The span's own; values as text.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    started_at: datetime
    ended_at: datetime
    attributes: Mapping[str, str]

    @property
    def node_id(self) -> str:
        """The node that the span tells of; empty for the controller's own."""
        return self.attributes.get("host.id", "")


@dataclass(frozen=True, slots=True)
class Trace:
    """All spans of one trace id.

    Args:
        spans: In no order.
    """

    trace_id: str
    spans: tuple[Span, ...]

    @property
    def roots(self) -> tuple[Span, ...]:
        """Spans without a parent."""
        return tuple(span for span in self.spans if not span.parent_id)

    @property
    def orphans(self) -> tuple[Span, ...]:
        """Spans whose parent was never received."""
        known = {span.span_id for span in self.spans}
        return tuple(span for span in self.spans if span.parent_id and span.parent_id not in known)

    @property
    def node_ids(self) -> frozenset[str]:
        """Every node that some span tells of."""
        return frozenset(span.node_id for span in self.spans if span.node_id)

    def named(self, name: str) -> tuple[Span, ...]:
        """The spans of one name."""
        return tuple(span for span in self.spans if span.name == name)


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """The service that exporters call."""

    def __init__(self) -> None:
        self._spans: dict[str, Span] = {}

    async def Export(  # noqa: N802 the method's name on the wire
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Keep the spans of one request."""
        del context
        for resource_spans in request.resource_spans:
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    self._spans.setdefault(span.span_id.hex(), _span(span))
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: str) -> Trace:
        """What has come of one trace so far.

        Args:
            trace_id: 32 hexadecimal digits.
        """
        return Trace(trace_id, tuple(span for span in self._spans.values() if span.trace_id == trace_id))


async def serve(receiver: Receiver) -> tuple[grpc.aio.Server, int]:
    """Listen on a free port of the loopback.

    Returns:
        The running server and its port.
    """
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]  # generated without types
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def _span(span: trace_pb2.Span) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        started_at=datetime.fromtimestamp(span.start_time_unix_nano / NANOSECONDS, UTC),
        ended_at=datetime.fromtimestamp(span.end_time_unix_nano / NANOSECONDS, UTC),
        attributes=_texts(span.attributes),
    )


def _texts(attributes: Iterable[common_pb2.KeyValue]) -> Mapping[str, str]:
    return {attribute.key: _text(attribute.value) for attribute in attributes}


def _text(value: common_pb2.AnyValue) -> str:
    kind = value.WhichOneof("value")
    return "" if kind is None else str(getattr(value, kind))
