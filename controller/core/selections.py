"""What becomes of each selected node: it changes, it needs no change, or it is left out.

Rules kept: a node that needs no change is unchanged, whatever else it is. Left out, always, are the quarantined and the
cordoned ones; then those that are not connected, where the policy skips them; then, where the request is PERMISSIVE,
those that something stands against. At the other levels the request is refused for these. Nodes of which none is left
are a refusal at every level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from controller.core import capacity, errors, model, refusals, requests, surveys, waves


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected nodes.

    Args:
        changing: Those that change, in the order of their names.
        kinds: How many nodes of each kind change.
        offline: Those that change and are not connected now.
        frozen: Those that change and are covered by a freeze now.
    """

    changing: waves.Members
    unchanged: tuple[model.NodeId, ...]
    excluded: tuple[model.Exclusion, ...]
    population: capacity.Population
    kinds: Mapping[int, int]
    offline: int
    frozen: int


def check(survey: surveys.Survey) -> None:
    """Refuse a selector that takes too few nodes for what is asked.

    Raises:
        RefusedError: The error names the field.
    """
    request, selected = survey.request, survey.nodes
    if not selected:
        raise errors.RefusedError(
            f"cannot plan for selector {request.selector!r}: it takes none of the nodes",
            code="selector_matches_no_node",
            field="selector",
            value=request.selector,
            rule="it must take at least one node",
        )
    canary = requests.canary_nodes(request)
    if len(selected) > 1 and canary >= len(selected):
        raise errors.RefusedError(
            f"cannot plan a canary of parameters.nodes {canary}: {len(selected)} nodes are selected",
            code="canary_too_large",
            field="parameters.nodes",
            value=str(canary),
            rule="a canary must be smaller than the selection",
        )
    if not request.install:
        _check_installed(survey)


def _check_installed(survey: surveys.Survey) -> None:
    for aim in survey.order:
        if not any(aim.component in each.node.components for each in survey.kinds):
            is_own = aim.component == survey.request.component
            verb = "upgrade" if survey.request.kind is None else survey.request.purpose
            ids = [each.id for each in survey.nodes]
            raise errors.RefusedError(
                f"cannot {verb} component {aim.component}: it is not installed on {refusals.names(ids)}",
                code="component_not_installed",
                field="component" if is_own else aim.field,
                value=aim.component,
                rule="at least one selected node must have it, or the request must install it",
            )


def sort_out(survey: surveys.Survey) -> Selection:
    """Say what becomes of each selected node.

    Raises:
        RefusedError: Something stands against a node, or no node is left.
    """
    unchanged, excluded, against = list[model.NodeId](), list[model.Exclusion](), list[tuple[model.Node, int]]()
    changing = list[int]()
    nodes, kinds = survey.nodes, survey.indexes
    away = _away(nodes)
    is_idle = [not each.moves and each.refusal is None for each in survey.verdicts]
    is_against = [each.refusal is not None for each in survey.verdicts]
    for place, kind in enumerate(kinds):
        if is_idle[kind]:
            unchanged.append(nodes[place].id)
        elif place in away and (left_out := _left_out(nodes[place], survey.request.policy)):
            excluded.append(left_out)
        elif is_against[kind]:
            against.append((nodes[place], kind))
        else:
            changing.append(place)
    if against:
        excluded += _permitted(survey, against)
    if not changing and not unchanged:
        raise _nobody(survey.request, excluded)
    changed = [nodes[place] for place in changing]
    covering = [each for each in survey.freezings if each.is_in_force]
    members = waves.Members(
        [each.id for each in changed], [kinds[place] for place in changing], _domains(survey, changed)
    )
    return Selection(
        changing=members,
        unchanged=tuple(unchanged),
        excluded=tuple(sorted(excluded, key=lambda each: each.node_id)),
        population=_population(survey, away),
        kinds=Counter(members.kinds),
        offline=len(away.intersection(changing)),
        frozen=sum(any(each.covers(node) for each in covering) for node in changed) if covering else 0,
    )


def _away(nodes: Sequence[model.Node]) -> frozenset[int]:
    """Give the places of the nodes that are unavailable now."""
    return frozenset(
        place
        for place, node in enumerate(nodes)
        if not node.is_connected or node.cordoned_because or node.quarantined_because
    )


def _population(survey: surveys.Survey, away: frozenset[int]) -> capacity.Population:
    counts = survey.counts()
    down = [survey.nodes[place] for place in sorted(away) if counts[survey.indexes[place]]]
    by_id = dict(zip((node.id for node in down), _domains(survey, down), strict=True))
    return capacity.Population(sum(map(counts.__getitem__, survey.indexes)), by_id)


def _domains(survey: surveys.Survey, nodes: Sequence[model.Node]) -> list[str]:
    """Give the failure domain of each node; empty where it has no label for it, or the policy names none."""
    label = survey.request.policy.domain_label
    return [node.labels.get(label, "") for node in nodes] if label else [""] * len(nodes)


def _left_out(node: model.Node, policy: model.Policy) -> model.Exclusion | None:
    """Say why a node that is unavailable now is left out; None where it is waited for."""
    if node.quarantined_because:
        return model.Exclusion(node.id, "node_quarantined", f"it is quarantined: {node.quarantined_because}")
    if node.cordoned_because:
        return model.Exclusion(node.id, "node_cordoned", f"it is cordoned: {node.cordoned_because}")
    if policy.offline is model.OfflinePolicy.SKIP:
        return model.Exclusion(node.id, "node_offline", "it is not connected, and policy.offline is SKIP")
    return None


def _permitted(survey: surveys.Survey, against: Sequence[tuple[model.Node, int]]) -> Iterator[model.Exclusion]:
    """Leave out the nodes that something stands against, where the request permits that; else refuse it for the first.

    Raises:
        RefusedError: All nodes are named that the same stands against.
    """
    found = [(node, refusal) for node, kind in against if (refusal := survey.verdicts[kind].refusal) is not None]
    if survey.request.level is not model.ValidationLevel.PERMISSIVE:
        _, first = min(found, key=lambda each: each[1].rank)
        raise first.error([node.id for node, refusal in found if refusal == first])
    return (model.Exclusion(node.id, refusal.code, refusal.message) for node, refusal in found)


def _nobody(request: model.UpgradeRequest, excluded: Sequence[model.Exclusion]) -> errors.RefusedError:
    codes = ", ".join(f"{count} by {code}" for code, count in sorted(Counter(each.code for each in excluded).items()))
    return errors.RefusedError(
        f"cannot plan for selector {request.selector!r}: every node that it takes is left out, {codes}",
        code="no_node_left",
        field="selector",
        value=request.selector,
        rule="at least one selected node must be able to change, or need no change",
    )
