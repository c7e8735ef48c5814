"""What is known of a node only as long as its session lives: never stored, so never older than it says it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from controller.core import model
from controller.engine import reporting

# Metrics kept of one node: a dozen of the host, and some two hundred of each of a few components.
METRICS_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Presence:
    """The live session of a node.

    Args:
        components: What the node runs, with what changes with each heartbeat.
        metrics: The latest value of each metric.
    """

    session_id: model.SessionId
    last_seen_at: datetime
    components: Mapping[model.ComponentName, model.InstalledComponent] = field(default_factory=dict)
    metrics: Mapping[tuple[str, str], model.Metric] = field(default_factory=dict)


def heard(presence: Presence, report: model.NodeReport, at: datetime) -> Presence:
    """Return what is known after a report; what is no number, or shown no longer, is unknown."""
    told = {(each.component, each.name): each for each in report.metrics if math.isfinite(each.value)}
    gone = {(component, name) for name, component in report.gone_metrics}
    kept = {key: each for key, each in presence.metrics.items() if key not in gone}
    metrics = told if report.is_full else {**kept, **told}
    return replace(
        presence,
        last_seen_at=at,
        components=reporting.merged(presence.components.values(), report),
        metrics=dict(list(metrics.items())[:METRICS_MAX]),
    )


def shown(node: model.Node, presence: Presence | None) -> model.Node:
    """Return a node's row with what its live session adds."""
    if presence is None:
        return node
    return replace(node, is_connected=True, last_seen_at=presence.last_seen_at, components=dict(presence.components))
