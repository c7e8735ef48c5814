"""Sends the spans of the outbox to a collector, through the exporter of the OpenTelemetry SDK.

Rules kept: a span is sent as it is stored, identities and times included, until the collector has taken it; so it
arrives at least once, and each time the same. A collector that is down costs nothing but a warning: the rows wait.
Made only where an endpoint is configured. Left out: sampling (rollouts are rare), metrics and logs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter
from opentelemetry.sdk import resources
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import export
from opentelemetry.sdk.util import instrumentation

# Spans in one request: a few hundred KiB, far below the 4 MiB that a gRPC message may have.
BATCH_MAX = 256
# Between two looks at an outbox that was empty.
POLL_SECONDS = 0.5
# After a failure: a collector that restarts is back within it, and its log is not flooded.
RETRY_SECONDS = 5.0
# For one request; the exporter spends it on its own retries too.
EXPORT_TIMEOUT_SECONDS = 3.0
# For sending the rest at the end; what does not get through is sent by the next life.
SHUTDOWN_SECONDS = 5.0

_SCOPE = instrumentation.InstrumentationScope("instar")
_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)
_log = logging.getLogger(__name__)


class Outbox(Protocol):
    """Where the spans wait."""

    async def pending_spans(self, limit: int) -> tuple[tuple[int, str], ...]:
        """Return the oldest spans that no collector has had: their numbers and bodies."""
        ...

    async def mark_emitted(self, numbers: tuple[int, ...]) -> None:
        """Remember that these have reached a collector."""
        ...


class Emitter:
    """Empties the outbox.

    Args:
        endpoint: URL of an OTLP gRPC receiver, for example ``http://127.0.0.1:4317``.
    """

    def __init__(self, outbox: Outbox, endpoint: str) -> None:
        self._outbox = outbox
        self._exporter = trace_exporter.OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_SECONDS)
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="instar-spans")

    async def run(self) -> None:
        """Send what comes, until cancelled."""
        while True:
            is_sent = await self.drain()
            await asyncio.sleep(POLL_SECONDS if is_sent else RETRY_SECONDS)

    async def drain(self) -> bool:
        """Send all that waits; False where the collector did not take it."""
        while pending := await self._outbox.pending_spans(BATCH_MAX):
            spans = [from_text(body) for _, body in pending]
            result = await asyncio.get_running_loop().run_in_executor(self._thread, self._exporter.export, spans)
            if result is not export.SpanExportResult.SUCCESS:
                return False
            await self._outbox.mark_emitted(tuple(number for number, _ in pending))
        return True

    async def close(self) -> None:
        """Send the rest, as far as it goes in a bounded time, and let the connection go."""
        try:
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await self.drain()
        except TimeoutError:
            _log.warning("cannot send all spans before the end: the rest waits for the next start")
        self._exporter.shutdown()
        self._thread.shutdown(wait=False, cancel_futures=True)


def from_text(body: str) -> sdk.ReadableSpan:
    """Read a stored span as the SDK's own, under its stored identities."""
    data = json.loads(body)
    return sdk.ReadableSpan(
        name=data["name"],
        context=_context(data["trace_id"], data["span_id"], is_remote=False),
        parent=_context(data["trace_id"], data["parent_id"], is_remote=True) if data["parent_id"] else None,
        resource=resources.Resource(data["resource"]),
        attributes=data["attributes"],
        kind=trace.SpanKind[data["kind"]],
        status=_status(data),
        start_time=data["started_at"],
        end_time=data["ended_at"],
        instrumentation_scope=_SCOPE,
    )


def _context(trace_id: str, span_id: str, *, is_remote: bool) -> trace.SpanContext:
    return trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=is_remote, trace_flags=_SAMPLED)


def _status(data: dict[str, Any]) -> trace.Status:
    return trace.Status(trace.StatusCode.ERROR, data["error"]) if data["is_failed"] else trace.Status()
