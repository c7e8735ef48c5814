"""The planner: what a request would do to the fleet as it is known now.

Rules kept: pure and deterministic: the same request on the same fleet gives the same plan, with the same fingerprint;
the order of the nodes is shuffled by the release, so that no node is always the canary; whether a node is reachable
plays no part. Refused is what names something unknown or would do something that nobody asked for; each refusal names
the field, the value and the rule, and nothing is planned. Left out: the version graph, dependencies, capacity.

Decisions on the canary: it must be smaller than the selection, unless one node is selected; where at most as many
nodes as it has remain to be changed, these are the canary and no second wave follows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import timedelta
from typing import assert_never

from controller.core import errors, model, selector, versions

DRIVER_METHODS = {"handover": model.Method.HOT_SWAP}  # the drivers that keep serving; all others stop and start
NAMES_SHOWN_MAX = 5  # node names in one message; the rest is a number
COUNT_MAX = 1_000_000  # nodes or requests that a policy may speak of; more is a slip of the hand
DURATION_MAX = timedelta(days=365)  # that a policy may speak of; more is a slip of the hand
MIN_HEALTHY_DURATION_MIN = timedelta(milliseconds=100)  # less could pass before a first probe


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
    canary = _canary_nodes(request)
    check_policy(request.policy)
    taken = selector.parse(request.selector)
    release = _resolve(request, releases)
    selected = sorted((node for node in nodes if taken.matches(node.labels)), key=lambda node: node.id)
    _check_selection(request, selected, canary)
    changing = [node for node in selected if _is_changed(request, node, release)]
    _check_nodes(changing, release)
    changes = tuple(_change(node, release) for node in _shuffled(changing, release))
    return model.Plan(
        fingerprint=_fingerprint(request, selected, release, taken),
        waves=_waves(changes, canary),
        unchanged=tuple(node.id for node in selected if not _is_changed(request, node, release)),
    )


def check_policy(policy: model.Policy) -> None:
    """Refuse numbers that contradict each other or mean nothing.

    Raises:
        InvalidRequestError: One of them; the error names the field.
    """
    for name in ("max_parallel", "max_failures", "soak_requests_min"):
        count = getattr(policy, name)
        if not 0 <= count <= COUNT_MAX:
            raise _bad_number(name, count, f"it must lie between 0 and {COUNT_MAX}")
    for name, least in _LEAST_DURATIONS.items():
        duration = getattr(policy, name)
        if not least <= duration <= DURATION_MAX:
            raise _bad_number(name, duration, f"it must lie between {least} and {DURATION_MAX}")
    if policy.min_healthy_duration >= policy.healthy_deadline:
        raise _bad_number("healthy_deadline", policy.healthy_deadline, "it must be longer than min_healthy_duration")
    if policy.healthy_deadline >= policy.progress_deadline:
        raise _bad_number("progress_deadline", policy.progress_deadline, "it must be longer than healthy_deadline")
    if policy.soak_duration >= policy.healthy_deadline:
        raise _bad_number("soak_duration", policy.soak_duration, "it must be shorter than healthy_deadline")


_LEAST_DURATIONS = {
    "min_healthy_duration": MIN_HEALTHY_DURATION_MIN,
    "healthy_deadline": MIN_HEALTHY_DURATION_MIN,
    "progress_deadline": MIN_HEALTHY_DURATION_MIN,
    "unknown_deadline": MIN_HEALTHY_DURATION_MIN,
    "soak_duration": timedelta(),
}


def _bad_number(name: str, value: object, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot plan with policy.{name} {value}: {rule}",
        code="invalid_policy",
        field=f"policy.{name}",
        value=str(value),
        rule=rule,
    )


def _canary_nodes(request: model.UpgradeRequest) -> int:
    """Read the parameters of the strategy; 0 where it has no canary."""
    match request.strategy:
        case model.Strategy.IMMEDIATE:
            if request.parameters is not None:
                raise _bad_parameters("parameters", "canary", "IMMEDIATE has no parameters")
            return 0
        case model.Strategy.CANARY:
            nodes = (request.parameters or model.CanaryParameters()).nodes
            if not 1 <= nodes <= COUNT_MAX:
                raise _bad_parameters("parameters.nodes", str(nodes), f"it must lie between 1 and {COUNT_MAX}")
            return nodes
        case _:
            assert_never(request.strategy)


def _bad_parameters(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot plan with {field} {value}: {rule}", code="invalid_parameters", field=field, value=value, rule=rule
    )


def _resolve(request: model.UpgradeRequest, releases: Iterable[model.Release]) -> model.Release:
    versions.parse(request.target_version, "target_version")
    of_component = [each for each in releases if each.component == request.component]
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
        raise errors.RefusedError(
            f"cannot upgrade component {request.component}: it is not installed on {_names(selected)}",
            code="component_not_installed",
            field="component",
            value=request.component,
            rule="at least one selected node must have it, or the request must install it",
        )


def _is_changed(request: model.UpgradeRequest, node: model.Node, release: model.Release) -> bool:
    installed = node.components.get(release.component)
    return request.install if installed is None else installed.digest != release.digest


def _check_nodes(changing: list[model.Node], release: model.Release) -> None:
    """Refuse what the changing nodes cannot or must not take; all nodes that stand against it are named."""
    _refuse_nodes(
        [node for node in changing if release.digest in node.bad_digests],
        f"{release.component} {release.version} was left for cause",
        "digest_left_for_cause",
        release,
        "a node is not offered a digest that it left for cause",
    )
    _refuse_nodes(
        [node for node in changing if _is_downgrade(node, release)],
        f"{release.component} {release.version} is older than what runs",
        "downgrade_not_allowed",
        release,
        "an upgrade must not lead to a lower version; a revert may",
    )
    _refuse_nodes(
        [node for node in changing if f"driver.{release.driver}" not in node.capabilities],
        f"{release.component} {release.version} needs the driver {release.driver}, which is missing",
        "driver_not_supported",
        release,
        f"a node must have the capability driver.{release.driver}",
    )


def _refuse_nodes(against: list[model.Node], why: str, code: str, release: model.Release, rule: str) -> None:
    if against:
        raise errors.RefusedError(
            f"cannot plan for target_version {release.version}: {why} on {_names(against)}",
            code=code,
            field="target_version",
            value=release.version,
            rule=rule,
        )


def _names(nodes: list[model.Node]) -> str:
    shown = ", ".join(node.id for node in nodes[:NAMES_SHOWN_MAX])
    rest = len(nodes) - NAMES_SHOWN_MAX
    return f"{shown} and {rest} more" if rest > 0 else shown


def _is_downgrade(node: model.Node, release: model.Release) -> bool:
    installed = node.components.get(release.component)
    return installed is not None and versions.is_lower(release.version, installed.version)


def _change(node: model.Node, release: model.Release) -> model.Change:
    installed = node.components.get(release.component)
    return model.Change(
        node_id=node.id,
        component=release.component,
        kind=model.ChangeKind.INSTALL if installed is None else model.ChangeKind.UPGRADE,
        method=DRIVER_METHODS.get(release.driver, model.Method.RESTART),
        from_version="" if installed is None else installed.version,
        from_digest=model.Digest("") if installed is None else installed.digest,
        to_version=release.version,
        to_digest=release.digest,
    )


def _shuffled(nodes: list[model.Node], release: model.Release) -> list[model.Node]:
    return sorted(nodes, key=lambda node: hashlib.sha256(f"{release.digest} {node.id}".encode()).digest())


def _waves(changes: tuple[model.Change, ...], canary: int) -> tuple[model.Wave, ...]:
    parts = [(changes[:canary], True), (changes[canary:], False)]
    filled = [(part, is_canary) for part, is_canary in parts if part]
    return tuple(model.Wave(index, is_canary, part) for index, (part, is_canary) in enumerate(filled, start=1))


def _fingerprint(
    request: model.UpgradeRequest, selected: list[model.Node], release: model.Release, taken: selector.Selector
) -> str:
    """Hash all that the plan depends on; what only says whether a node is up plays no part."""
    policy = request.policy
    parts = [
        [release.component, release.version, release.digest, release.driver],
        [request.strategy.value, _canary_nodes(request), request.install, request.selector],
        [str(getattr(policy, name)) for name in type(policy).__slots__],
        [_node_facts(node, release.component, sorted(taken.keys)) for node in selected],
    ]
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def _node_facts(node: model.Node, component: model.ComponentName, keys: list[str]) -> list[object]:
    installed = node.components.get(component)
    digest = "" if installed is None else installed.digest
    return [
        node.id,
        [node.labels.get(key) for key in keys],
        digest,
        sorted(node.bad_digests),
        sorted(node.capabilities),
    ]
