"""What the demo's requests add up to.

Rules kept: figures are taken from what the load client noted and from nothing else; a request is "during the swap"
when it was due on a node between that node's activation and the end of the old version's drain.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from controller.cli.demo import receiver, record


@dataclass(frozen=True, slots=True)
class Window:
    """One swap on one node, from activate to drained."""

    node_id: str
    started_at: datetime
    ended_at: datetime

    def holds(self, request: record.Record) -> bool:
        """Whether the request was due in it."""
        return request.node_id == self.node_id and self.started_at <= request.due_at <= self.ended_at


@dataclass(frozen=True, slots=True)
class Figures:
    """The sums.

    Args:
        failures: Number of lost requests by what went wrong; empty when none was lost.
        p99_ms_during_swap: None when no request fell into a swap.
    """

    total: int
    during_swap: int
    failures: Mapping[str, int]
    by_version: Mapping[str, int]
    p50_ms: float | None
    p99_ms: float | None
    p99_ms_during_swap: float | None

    @property
    def failed(self) -> int:
        """Number of lost requests."""
        return sum(self.failures.values())


def windows(trace: receiver.Trace) -> tuple[Window, ...]:
    """The swaps that a trace tells of: from the start of each node's switch to the end of its drain."""
    drains = {span.node_id: span.ended_at for span in trace.named("drain")}
    return tuple(
        Window(span.node_id, span.started_at, drains[span.node_id])
        for span in trace.named("switch")
        if span.node_id in drains
    )


def figures(records: Iterable[record.Record], swaps: Sequence[Window]) -> Figures:
    """Add up.

    Args:
        records: What the load client noted.
        swaps: The windows to look at separately.
    """
    requests = tuple(records)
    answered = [request for request in requests if request.failure is None]
    within = [request for request in requests if any(swap.holds(request) for swap in swaps)]
    return Figures(
        total=len(requests),
        during_swap=len(within),
        failures=Counter(request.failure.value for request in requests if request.failure),
        by_version=dict(sorted(Counter(request.version for request in requests if request.version).items())),
        p50_ms=percentile([request.latency_ms for request in answered], 50),
        p99_ms=percentile([request.latency_ms for request in answered], 99),
        p99_ms_during_swap=percentile([request.latency_ms for request in within if request.failure is None], 99),
    )


def percentile(values: Sequence[float], percent: int) -> float | None:
    """The smallest value that so many percent of the values do not exceed; None of nothing."""
    if not values:
        return None
    return round(sorted(values)[math.ceil(len(values) * percent / 100) - 1], 3)
