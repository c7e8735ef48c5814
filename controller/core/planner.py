"""The planner: what a request would do to the fleet as it is known now.

Rules kept: pure and deterministic: the same request on the same fleet gives the same plan, with the same fingerprint;
the order of the nodes is shuffled by what is asked, so that no node is always the canary; whether a node is reachable
plays no part. The method of each change, and whether there is a way back from it, is said beforehand (`methods`). A
request names a target version, or a kind: REMOVE, START, STOP or RESTART of what is installed. Refused is what names
something unknown or would do something that nobody asked for; each refusal names the field, the value and the rule, and
nothing is planned. Left out: the version graph, dependencies, capacity.

Decisions on the canary: it must be smaller than the selection, unless one node is selected; where at most as many
nodes as it has remain to be changed, these are the canary and no second wave follows. Decisions on kinds: nodes that
lack the component are left alone, as are those where it is so already; what is stopped is not restarted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from controller.core import errors, methods, model, refusals, requests, selector, versions


@dataclass(frozen=True, slots=True)
class _Aim:
    """What is asked, with what is known of the component.

    Args:
        target: The release that was named, or the kind that is asked for instead.
        releases: Those of the component, by digest.
    """

    request: model.UpgradeRequest
    target: model.Release | model.ChangeKind
    releases: Mapping[model.Digest, model.Release]

    @property
    def seed(self) -> str:
        """What shuffles the nodes."""
        return (
            self.target.digest
            if isinstance(self.target, model.Release)
            else f"{self.request.component} {self.target.value}"
        )


def plan(request: model.UpgradeRequest, nodes: Iterable[model.Node], releases: Iterable[model.Release]) -> model.Plan:
    """Plan a request.

    Args:
        request: What is wanted.
        nodes: The whole fleet, in any order.
        releases: All that is published, or at least the releases of the component.

    Raises:
        InvalidRequestError: The request is wrong in itself.
        NotFoundError: The component or its version was never published.
        RefusedError: The fleet, as it is known, does not allow it.
    """
    requests.check(request)
    taken = selector.parse(request.selector)
    known = {each.digest: each for each in releases if each.component == request.component}
    aim = _Aim(request, _resolve(request, known.values()), known)
    selected = sorted((node for node in nodes if taken.matches(node.labels)), key=lambda node: node.id)
    canary = requests.canary_nodes(request)
    _check_selection(request, selected, canary)
    changing = [node for node in selected if _is_changed(aim, node)]
    if isinstance(aim.target, model.Release):
        refusals.check(changing, aim.target, known, request.policy)
    changes = tuple(_change(aim, node) for node in _shuffled(changing, aim.seed))
    return model.Plan(
        fingerprint=_fingerprint(aim, selected, taken),
        waves=_waves(changes, canary),
        unchanged=tuple(node.id for node in selected if not _is_changed(aim, node)),
    )


def _resolve(request: model.UpgradeRequest, releases: Iterable[model.Release]) -> model.Release | model.ChangeKind:
    if request.kind is not None:
        return request.kind
    versions.parse(request.target_version, "target_version")
    of_component = list(releases)
    for release in of_component:
        if release.version == request.target_version:
            return release
    field, value = ("target_version", request.target_version) if of_component else ("component", request.component)
    raise errors.NotFoundError(
        f"cannot find release {request.component} {request.target_version}: no such {field} was published",
        code="release_not_found",
        field=field,
        value=value,
        rule="a release must be published before it can be rolled out",
    )


def _check_selection(request: model.UpgradeRequest, selected: list[model.Node], canary: int) -> None:
    if not selected:
        raise errors.RefusedError(
            f"cannot plan for selector {request.selector!r}: it takes none of the nodes",
            code="selector_matches_no_node",
            field="selector",
            value=request.selector,
            rule="it must take at least one node",
        )
    if len(selected) > 1 and canary >= len(selected):
        raise errors.RefusedError(
            f"cannot plan a canary of parameters.nodes {canary}: {len(selected)} nodes are selected",
            code="canary_too_large",
            field="parameters.nodes",
            value=str(canary),
            rule="a canary must be smaller than the selection",
        )
    if not request.install and not any(request.component in node.components for node in selected):
        verb = "upgrade" if request.kind is None else request.purpose
        raise errors.RefusedError(
            f"cannot {verb} component {request.component}: it is not installed on {refusals.names(selected)}",
            code="component_not_installed",
            field="component",
            value=request.component,
            rule="at least one selected node must have it, or the request must install it",
        )


def _is_changed(aim: _Aim, node: model.Node) -> bool:
    installed = node.components.get(aim.request.component)
    if isinstance(aim.target, model.Release):
        return aim.request.install if installed is None else installed.digest != aim.target.digest
    if installed is None or aim.target is model.ChangeKind.REMOVE:
        return installed is not None
    return installed.is_stopped is (aim.target is model.ChangeKind.START)


def _change(aim: _Aim, node: model.Node) -> model.Change:
    if isinstance(aim.target, model.Release):
        return _change_to(aim.target, node, aim)
    installed = node.components[aim.request.component]
    is_removed = aim.target is model.ChangeKind.REMOVE
    return model.Change(
        node_id=node.id,
        component=installed.name,
        kind=aim.target,
        method=methods.alone(node, aim.releases.get(installed.digest)),
        from_version=installed.version,
        from_digest=installed.digest,
        to_version="" if is_removed else installed.version,
        to_digest=model.Digest("") if is_removed else installed.digest,
    )


def _change_to(release: model.Release, node: model.Node, aim: _Aim) -> model.Change:
    installed = node.components.get(release.component)
    old = refusals.running(node, release, aim.releases)
    choice = methods.choose(node, old, release, aim.request.policy)
    return model.Change(
        node_id=node.id,
        component=release.component,
        kind=model.ChangeKind.INSTALL if installed is None else model.ChangeKind.UPGRADE,
        method=cast("model.Method", choice.method),  # what has none was refused
        from_version="" if installed is None else installed.version,
        from_digest=model.Digest("") if installed is None else installed.digest,
        to_version=release.version,
        to_digest=release.digest,
        no_way_back=methods.way_back(old, release, aim.request.policy),
    )


def _shuffled(nodes: list[model.Node], seed: str) -> list[model.Node]:
    return sorted(nodes, key=lambda node: hashlib.sha256(f"{seed} {node.id}".encode()).digest())


def _waves(changes: tuple[model.Change, ...], canary: int) -> tuple[model.Wave, ...]:
    parts = [(changes[:canary], True), (changes[canary:], False)]
    filled = [(part, is_canary) for part, is_canary in parts if part]
    return tuple(model.Wave(index, is_canary, part) for index, (part, is_canary) in enumerate(filled, start=1))


def _fingerprint(aim: _Aim, selected: list[model.Node], taken: selector.Selector) -> str:
    """Hash all that the plan depends on; what only says whether a node is up plays no part."""
    request, policy = aim.request, aim.request.policy
    parts = [
        [request.component, request.purpose, aim.seed],
        [request.strategy.value, requests.canary_nodes(request), request.install, request.selector],
        [str(getattr(policy, name)) for name in type(policy).__slots__],
        [_node_facts(node, aim, sorted(taken.keys)) for node in selected],
    ]
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def _node_facts(node: model.Node, aim: _Aim, keys: list[str]) -> list[object]:
    installed = node.components.get(aim.request.component)
    required = aim.target.requirements if isinstance(aim.target, model.Release) else ()
    found = (node.components.get(each.component) for each in required)
    return [
        node.id,
        [node.labels.get(key) for key in keys],
        "" if installed is None else [installed.digest, installed.is_stopped],
        sorted(node.bad_digests),
        sorted(node.capabilities),
        ["" if each is None else each.digest for each in found],
    ]
