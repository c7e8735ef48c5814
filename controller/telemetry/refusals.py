"""The span of a request that was refused, derived from what is stored of it.

Rules kept: a refused request is a trace of its own with one span, whose identity is a hash of its number among the
refused requests and its instant; texts that callers have chosen are cut off at a bound. Left out: refused reports of
nodes, which are repeated until they are acknowledged and would be one trace for each heartbeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from controller.core import errors
from controller.telemetry import ids, spans

# Characters of one text: with it, as many spans as are sent at once stay below the 4 MiB that a gRPC message may have.
TEXT_CHARS_MAX = 512


@dataclass(frozen=True, slots=True)
class Refused:
    """What is known of a refused request.

    Args:
        number: How-manieth it is, since the store was made.
        at: When it was refused.
        actor: Who asked; empty where nobody said.
        action: What for, for example ``start_upgrade``.
        component: The one that it is about; empty for none, or for several.
        error: Why it was refused.
    """

    number: int
    at: datetime
    actor: str
    action: str
    component: str
    error: errors.InstarError


def refused(told: Refused) -> spans.Span:
    """Make the span of a refused request."""
    message = str(told.error)[:TEXT_CHARS_MAX]
    return spans.Span(
        trace_id=ids.refusal_trace(told.number, told.at),
        span_id=ids.refusal(told.number, told.at),
        parent_id="",
        name="refuse request",
        kind=spans.Kind.SERVER,
        started_at=told.at,
        ended_at=told.at,
        resource=spans.controller_resource(),
        attributes={"upgrade.refusal.number": told.number, **_texts(told), "error.message": message},
        is_failed=True,
        error=message,
    )


def _texts(told: Refused) -> Mapping[str, str]:
    texts = {
        "upgrade.action": told.action,
        "upgrade.actor": told.actor,
        "upgrade.component": told.component,
        "upgrade.refusal.field": told.error.field,
        "upgrade.refusal.rule": told.error.rule,
        "error.type": told.error.code,
    }
    return {name: text[:TEXT_CHARS_MAX] for name, text in texts.items() if text}
