"""How what is judged of a canary went over time: for people, who believe what they see.

Rules kept: a point of a count is of all events of its nodes together, of anything else the mean of the nodes; what is
unknown is no point. Left out: what is made of it (the judge), and how it is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from controller.core import forecasts, model, requests
from controller.engine import world as worlds
from controller.metrics import collector as collectors
from controller.metrics import figures

POINTS_MAX = 90  # of a course: as many as are told apart on a page
SPAN_PERIODS_MIN = 4  # heartbeats in the span of a point: with fewer, chance is all that there is to see
BAND_NODES_MIN = 3  # untouched nodes from which a band says something
BAND_PERCENTILES = (10, 90)
SPANS_BEFORE_MIN = 10  # of the past: what is found at once is seen beside how it was before
SPANS_BEHIND_MIN = 4  # of a verdict that takes the canary back: whether it is well again
_BEHIND = 5  # of the time judged, such a part is shown behind such a verdict


@dataclass(frozen=True, slots=True)
class Point:
    """One figure over a span of time.

    Args:
        at: The end of the span.
        canary: Over the nodes of the canary wave; None where it is unknown.
        control: Over the untouched nodes; None where it is unknown.
        control_low: Of ten untouched nodes one is lower; None where there are few.
        control_high: Of ten untouched nodes one is higher; None where there are few.
    """

    at: datetime
    canary: float | None
    control: float | None
    control_low: float | None
    control_high: float | None


@dataclass(frozen=True, slots=True)
class Course:
    """How one judged metric went; no points where its source keeps none here."""

    metric: model.JudgedMetric
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Courses:
    """How a canary wave went.

    Args:
        to_version: Version that the canary runs, or ran.
        canary_nodes: Nodes of the wave.
        control_nodes: How many nodes were untouched by it.
    """

    rollout: model.Rollout
    to_version: str
    canary_nodes: tuple[model.NodeId, ...]
    control_nodes: int
    courses: tuple[Course, ...]


def of(
    rollout: model.Rollout,
    record: model.Judging,
    world: worlds.World,
    collector: collectors.Collector,
    at: datetime,
) -> Courses:
    """Say how the wave that was judged went.

    Args:
        rollout: Of which it is.
        record: How it was judged.
        world: All that is known.
        collector: What the nodes measure.
        at: Now.
    """
    request = rollout.request
    changes = [each for each in rollout.plan.waves[record.wave - 1].changes if each.component == request.component]
    canary = tuple(each.node_id for each in changes)
    control = _control(rollout, record, world, {each.from_digest for each in changes})
    analysis = requests.analysis(request)
    metrics = () if analysis is None else analysis.metrics
    is_kept = analysis is not None and not analysis.source
    bounds = _bounds(analysis or model.Analysis(()), record, collector.period, at)
    found = collector.over(request.component, metrics, (*canary, *control), bounds) if is_kept else {}
    courses = (
        Course(each, tuple(_points(each, found[each.name], bounds, len(canary))) if found else ()) for each in metrics
    )
    return Courses(rollout, changes[0].to_version, canary, len(control), tuple(courses))


def _control(
    rollout: model.Rollout, record: model.Judging, world: worlds.World, left: set[model.Digest]
) -> tuple[model.NodeId, ...]:
    """Name the nodes that were untouched while the wave was judged: those of later waves, and others that still are."""
    component = rollout.request.component
    later = (each for wave in rollout.plan.waves[record.wave :] for each in wave.changes)
    found = dict.fromkeys(each.node_id for each in later if each.component == component)
    others = (node for node in world.nodes.values() if node.id not in rollout.plan.order.of_node)
    found |= dict.fromkeys(node.id for node in others if forecasts.can_compare(node, component, left))
    return tuple(sorted(found)[: forecasts.CONTROL_NODES_MAX])


def _bounds(analysis: model.Analysis, record: model.Judging, period: timedelta, at: datetime) -> list[datetime]:
    """Cut the time around the change into spans of one length; none lies on both sides of it."""
    changed_at, end = record.began_at, record.decided_at or at
    least = SPAN_PERIODS_MIN * period
    if record.decided is not None and record.decided.finding is model.Finding.WORSE:
        end = min(at, end + max((end - changed_at) / _BEHIND, SPANS_BEHIND_MIN * least))
    before = max(min(analysis.past, end - changed_at), SPANS_BEFORE_MIN * least)
    step = max((end - changed_at + before) / POINTS_MAX, least)
    return [changed_at + number * step for number in range(-(before // step), (end - changed_at) // step + 1)]


def _points(metric: model.JudgedMetric, found: figures.Figure, bounds: list[datetime], canary: int) -> Iterator[Point]:
    is_count = metric.measure.kind.is_count
    for span, at in enumerate(bounds[1:]):
        value, exposure = found.value[:, span], found.exposure[:, span]
        single = np.divide(value, exposure, out=np.full_like(value, np.nan), where=exposure > 0) if is_count else value
        known = single[canary:][np.isfinite(single[canary:])]
        low, high = np.percentile(known, BAND_PERCENTILES) if len(known) >= BAND_NODES_MIN else (None, None)
        yield Point(
            at=at,
            canary=_over(value[:canary], exposure[:canary], is_count=is_count),
            control=_over(value[canary:], exposure[canary:], is_count=is_count),
            control_low=None if low is None else float(low),
            control_high=None if high is None else float(high),
        )


def _over(value: figures.Floats, exposure: figures.Floats, *, is_count: bool) -> float | None:
    is_known = np.isfinite(value) & np.isfinite(exposure) & (exposure > 0)
    if not is_known.any():
        return None
    return float(value[is_known].sum() / exposure[is_known].sum() if is_count else value[is_known].mean())
