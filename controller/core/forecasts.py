"""What the analysis of a request can find, said before anything moves.

Rules kept: pure; of each metric it is said how soon which harm is found, and from what that is reckoned; nothing is
said of a metric that was never measured. Left out: what nodes measure, which comes with the fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from controller.core import model, requests
from controller.core.analysis import power

CONTROL_NODES_MAX = 1_000  # untouched nodes that are compared with; more add nothing but work
NODES_NAMED_MAX = 20  # of them, in a plan


def forecast(
    request: model.UpgradeRequest,
    waves: Sequence[model.Wave],
    nodes: Iterable[model.Node],
    habits: Mapping[str, power.Habit],
) -> model.Forecast | None:
    """Say what is found of each metric; None where nothing is judged.

    Args:
        request: What is asked.
        waves: Those of its plan.
        nodes: The whole fleet, also what the request does not select.
        habits: How each metric behaves now, as far as it is measured.
    """
    analysis = requests.analysis(request)
    first = next((each for each in waves if each.is_canary and _is_own(each, request.component)), None)
    if analysis is None or first is None:
        return None
    canary = tuple(each.node_id for each in first.changes)
    left = {each.from_digest for each in first.changes}
    control = sorted(each.id for each in nodes if each.id not in canary and can_compare(each, request.component, left))
    counted = min(len(control), CONTROL_NODES_MAX)
    return model.Forecast(
        canary_nodes=canary,
        control_nodes=tuple(control[:NODES_NAMED_MAX]),
        control_total=len(control),
        powers=power.power(analysis, len(canary), counted, habits),
        basis=_basis(analysis, habits),
    )


def can_compare(node: model.Node, component: model.ComponentName, digests: Iterable[model.Digest]) -> bool:
    """Tell whether a node, as it stands, is one to compare a canary with that has left one of these digests."""
    found = node.components.get(component)
    is_kept_back = bool(node.cordoned_because or node.quarantined_because) or not node.is_connected
    return found is not None and not (is_kept_back or found.is_stopped) and found.digest in digests


def _is_own(wave: model.Wave, component: model.ComponentName) -> bool:
    return any(each.component == component for each in wave.changes)


def _basis(analysis: model.Analysis, habits: Mapping[str, power.Habit]) -> str:
    known = [each.name for each in analysis.metrics if each.name in habits]
    if not known:
        return "nothing of it is measured yet"
    rest = "" if len(known) == len(analysis.metrics) else f"; only {', '.join(known)} is measured yet"
    return f"reckoned from what nodes have measured in the past {analysis.past}{rest}"
