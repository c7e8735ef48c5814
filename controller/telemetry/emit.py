"""Sends the spans of the outbox to a collector, through the exporter of the OpenTelemetry SDK.

Rules kept: a span is sent as it is stored, identities and times included, until the collector has taken it; so it
arrives at least once, and each time the same. A collector that is down or hangs costs nothing but a warning: the rows
wait, whatever it does the event loop goes on, and the process ends in time. Made only where an endpoint is configured.
Left out: sampling (rollouts are rare), metrics and logs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.sdk import resources
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import export
from opentelemetry.sdk.util import instrumentation

from controller.config import traces
from controller.telemetry import exporters, spans

# Spans in one request: a few hundred KiB, far below the 4 MiB that a gRPC message may have.
BATCH_MAX = 256
# Between two looks at an outbox that was empty.
POLL_SECONDS = 0.5
# After a failure: a collector that restarts is back within it, and its log is not flooded.
RETRY_SECONDS = 5.0
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
        to: The receiver, and how it is spoken to.
    """

    def __init__(self, outbox: Outbox, to: traces.Traces) -> None:
        self._outbox = outbox
        self._resource = to.resource
        self._exporter = exporters.make(to)
        self._one_at_a_time = threading.Lock()

    async def run(self) -> None:
        """Send what comes, until cancelled."""
        while True:
            is_sent = await self.drain()
            await asyncio.sleep(POLL_SECONDS if is_sent else RETRY_SECONDS)

    async def drain(self) -> bool:
        """Send all that waits; False where the collector did not take it."""
        while pending := await self._outbox.pending_spans(BATCH_MAX):
            if not await self._beside([body for _, body in pending]):
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

    def _beside(self, bodies: Sequence[str]) -> asyncio.Future[bool]:
        """Send in a thread that nobody waits for at the end of the process, as one of a pool would be."""
        sent: concurrent.futures.Future[bool] = concurrent.futures.Future()
        sent.set_running_or_notify_cancel()  # a send that has begun is not called back
        threading.Thread(target=self._send, args=(bodies, sent), name="instar-spans", daemon=True).start()
        return asyncio.wrap_future(sent)

    def _send(self, bodies: Sequence[str], sent: concurrent.futures.Future[bool]) -> None:
        try:
            with self._one_at_a_time:
                result = self._exporter.export([from_text(body, self._resource) for body in bodies])
            sent.set_result(result is export.SpanExportResult.SUCCESS)
        except Exception as fault:  # noqa: BLE001  # whatever it is, it is raised where it is waited for
            sent.set_exception(fault)


def from_text(body: str, resource: Mapping[str, str] | None = None) -> sdk.ReadableSpan:
    """Read a stored span as the SDK's own, under its stored identities.

    Args:
        body: As it is stored.
        resource: What the controller says of itself, besides and instead of what is stored.
    """
    data = json.loads(body)
    is_own = data["resource"]["service.name"] == spans.CONTROLLER_SERVICE
    return sdk.ReadableSpan(
        name=data["name"],
        context=_context(data["trace_id"], data["span_id"], is_remote=False),
        parent=_context(data["trace_id"], data["parent_id"], is_remote=True) if data["parent_id"] else None,
        resource=resources.Resource({**data["resource"], **(resource or {})} if is_own else data["resource"]),
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
