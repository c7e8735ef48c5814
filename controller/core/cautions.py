"""What is allowed in a plan and worth knowing: its warnings, each with its counts.

Rules kept: a warning never changes the plan; a STRICT request is refused for it. Left out: what is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controller.core import model, requests

CANARY_PERCENT_MIN = 1  # a smaller canary sees too little of a fleet to speak for it


@dataclass(frozen=True, slots=True)
class Sight:
    """What a plan is seen to be.

    Args:
        total: Nodes that have one of the components, or will.
        together: Most nodes that change at the same time.
        changing: Nodes that change; the others are counts among these.
        offline: Not connected now.
        frozen: Covered by a freeze now.
        homeless: Without the label that names the failure domain.
        stranded: With a change that could not be undone.
        restarted: Changes of version that are no hot swap.
    """

    request: model.UpgradeRequest
    total: int
    together: int
    changing: int
    offline: int
    frozen: int
    homeless: int
    stranded: int
    restarted: int


def find(sight: Sight) -> Iterator[model.PlanWarning]:
    """Find them, in a fixed order."""
    for code, message in (*_of_strategy(sight), *_of_nodes(sight)):
        yield model.PlanWarning(code, message)


def _of_strategy(sight: Sight) -> Iterator[tuple[str, str]]:
    canary = requests.canary_nodes(sight.request)
    if canary and canary * requests.PERCENT_MAX < sight.changing * CANARY_PERCENT_MIN:
        yield "small_canary", f"the canary has {canary} of {sight.changing} nodes, less than {CANARY_PERCENT_MIN} %"
    is_judgeable = sight.request.kind in (None, model.ChangeKind.RESTART)
    if canary and is_judgeable and requests.analysis(sight.request) is None:
        yield "no_analysis", "the canary is not judged by what it measures: its health alone lets the others follow"
    is_free = sight.request.strategy is model.Strategy.IMMEDIATE and not sight.request.policy.floor_percent
    if is_free and sight.total > 1 and 2 * sight.together > sight.total:
        several = f"{sight.together} of {sight.total} nodes change at the same time"
        yield "no_floor", f"{several}, and policy.floor_percent is not set"


def _of_nodes(sight: Sight) -> Iterator[tuple[str, str]]:
    of = f"of {sight.changing} nodes"
    if sight.restarted:
        yield "restart_planned", f"{sight.restarted} changes are no hot swap"
    if sight.stranded:
        yield "no_way_back_somewhere", f"{sight.stranded} {of} could not go back"
    if sight.offline:
        yield "nodes_offline", f"{sight.offline} {of} are not connected now"
    if sight.frozen:
        yield "frozen_now", f"{sight.frozen} {of} are frozen now"
    if sight.homeless:
        label = sight.request.policy.domain_label
        yield "domain_label_missing", f"{sight.homeless} {of} have no label {label}, and count as one domain"
