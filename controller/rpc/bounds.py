"""How far a role reaches that is held for some nodes only: what a call is about, held against the caller's scope.

Rules kept here: what lies in part outside of a scope lies outside; what does not exist is refused in the same words as
what lies outside, so that nobody learns of other people's nodes; a role for the whole fleet is never asked anything.
Left out: which method is about what (`policies`), and lists, which show less instead (the services).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, assert_never

from controller.core import errors, model, roles, selector
from controller.engine import world as worlds
from controller.rpc import errors as rpc_errors
from controller.rpc import policies
from instar.v1 import rollout_pb2


class Fleet(Protocol):
    """What has to be known of the fleet."""

    def labels(self, node_id: model.NodeId) -> Mapping[str, str] | None:
        """Return the labels of a node; None where there is none."""
        ...

    def rollout(self, name_or_id: str) -> model.Rollout:
        """Find a rollout; raises NotFoundError."""
        ...

    def freezes(self) -> tuple[model.Freeze, ...]:
        """Return the freezes."""
        ...


class Bounds:
    """The bounds of scopes."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def check(self, reach: policies.Reach, scope: roles.Scope, request: Any) -> None:  # noqa: ANN401  # any message
        """Refuse a request that is not wholly within a scope.

        Raises:
            RefusedError: Code PERMISSION_DENIED.
        """
        if scope.is_whole:
            return
        field, is_within = self._judged(reach, scope, request)
        if not is_within:
            raise errors.RefusedError(
                f"cannot let the caller do it: its role is held for some nodes only, and there {reach.value}",
                code=rpc_errors.PERMISSION_DENIED,
                field=field,
                rule=reach.value,
            )

    def _judged(self, reach: policies.Reach, scope: roles.Scope, request: Any) -> tuple[str, bool]:  # noqa: ANN401
        match reach:
            case policies.Reach.FLEET:
                return "token", False
            case policies.Reach.ANY | policies.Reach.LIST:
                return "", True
            case policies.Reach.NODE:
                return "node_id", self.has_node(scope, model.NodeId(request.node_id))
            case policies.Reach.ROLLOUT:
                return "rollout", self._has_named(scope, request.rollout)
            case policies.Reach.SELECTOR:
                return _selects_within(scope, request)
            case policies.Reach.FREEZE:
                return "freeze_id", self._has_freeze(scope, request.freeze_id)
            case _:
                assert_never(reach)

    def has_node(self, scope: roles.Scope, node_id: model.NodeId) -> bool:
        """Tell whether a node lies within a scope."""
        labels = self._fleet.labels(node_id)
        return scope.is_whole or (labels is not None and scope.takes(labels))

    def has_rollout(self, scope: roles.Scope, rollout: model.Rollout) -> bool:
        """Tell whether every node of a rollout lies within a scope; of those that are gone its selector has to tell."""
        if scope.is_whole:
            return True
        found = [self._fleet.labels(node_id) for node_id in worlds.population(rollout)]
        if not all(scope.takes(labels) for labels in found if labels is not None):
            return False
        is_known = bool(found) and None not in found
        return is_known or scope.holds(selector.parse(rollout.request.selector))

    def _has_named(self, scope: roles.Scope, name_or_id: str) -> bool:
        try:
            return self.has_rollout(scope, self._fleet.rollout(name_or_id))
        except errors.NotFoundError:
            return False

    def _has_freeze(self, scope: roles.Scope, freeze_id: str) -> bool:
        found = (each for each in self._fleet.freezes() if each.id == freeze_id and not each.is_emergency)
        return any(scope.holds(selector.parse(each.selector)) for each in found)


def _selects_within(scope: roles.Scope, request: Any) -> tuple[str, bool]:  # noqa: ANN401  # any of two messages
    """Hold what a request selects, now and later, against a scope."""
    if hasattr(request, "freeze"):
        return "freeze.selector", scope.holds(selector.parse(request.freeze.selector))
    upgrade: rollout_pb2.UpgradeRequest = request.upgrade
    if upgrade.conflict == rollout_pb2.CONFLICT_POLICY_SUPERSEDE:
        return "conflict", False
    return "selector", scope.holds(selector.parse(upgrade.selector))
