"""What speaks against changing a node now, and telling the rollouts that count the node whenever that is news.

Theory of operation. A standing follows from the world and the instant alone: whether the node is trusted, cordoned,
away, well, changed by another rollout, and whether a freeze covers it. Nobody keeps it but the rollouts, which were
told; telling them anew is comparing. So it is safe to look again too often, and whoever changes something of a node
does so.

Rules kept: a node that was only just cut off is not away (`lookout` says when it is); what a rollout's own operation
does to a node speaks against nobody; what is unwell counts, and may be changed; a freeze does not hold what goes back;
only nodes that a rollout changes, or that have what it changes, count in it. A rollout that waits is told when it
begins, and one that has ended when it is taken up again.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from datetime import datetime

from controller.core import events, model, progress
from controller.engine import draft as drafts
from controller.engine import freezing, stepping
from controller.engine import world as worlds
from controller.store import rows

NOTHING = model.Standing()
_OVER = progress.ENDS | {model.OperationState.PERMANENT}


def of(
    world: worlds.World,
    rollout: model.Rollout,
    node: model.Node,
    at: datetime,
    changed: Container[model.NodeId] | None = None,
    *,
    goes_back: bool = False,
) -> model.Standing:
    """Say what speaks against changing a node in a rollout now.

    Args:
        world: All that is known.
        rollout: The one that is meant.
        node: The node.
        at: Now.
        changed: Nodes that the rollout changes, where it does not know them yet; None for those that it knows.
        goes_back: It is about to go back; one that goes back already is known by its state.
    """
    is_changed = node.id in (rollout.plan.order.of_node if changed is None else changed)
    is_joined = world.claims.get(node.id) == rollout.id
    if not (is_changed or is_joined or any(name in node.components for name in _components(rollout))):
        return NOTHING
    is_going_back = goes_back or rollout.state is model.RolloutState.REVERTING
    down, frozen = _down(world, rollout, node), "" if is_going_back else _frozen(world, node, at)
    return model.Standing(down=down, frozen=frozen, unwell="" if down else _unwell(world, rollout, node))


def refresh(draft: drafts.Draft, node_ids: Iterable[model.NodeId]) -> None:
    """Tell every rollout that is under way what is news of these nodes."""
    for node_id in node_ids:
        for rollout in _under_way(draft.world, node_id):
            tell(draft, rollout, draft.world.leases[rollout.id], (node_id,))


def has_news(world: worlds.World, node_ids: Iterable[model.NodeId], at: datetime) -> bool:
    """Tell whether ``refresh`` would tell anybody anything."""
    return any(
        of(world, rollout, node, at) != rollout.standings.get(node.id, NOTHING)
        for node in map(world.nodes.get, node_ids)
        if node is not None
        for rollout in _under_way(world, node.id)
    )


def _under_way(world: worlds.World, node_id: model.NodeId) -> Iterator[model.Rollout]:
    for rollout_id in world.concerned.get(node_id, ()):
        rollout = world.rollouts.get(rollout_id)
        if rollout is not None and rollout.state is not model.RolloutState.PENDING:
            yield rollout


def news(world: worlds.World, rollout: model.Rollout, at: datetime) -> Iterator[tuple[model.NodeId, model.Standing]]:
    """Find what a rollout that is under way was not told of the nodes that it counts."""
    for node_id in worlds.population(rollout):
        node = world.nodes.get(node_id)
        now = NOTHING if node is None else of(world, rollout, node, at)
        if now != rollout.standings.get(node_id, NOTHING):
            yield node_id, now


def tell(
    draft: drafts.Draft,
    rollout: model.Rollout,
    lease: rows.Lease,
    node_ids: Iterable[model.NodeId],
    *,
    changed: Container[model.NodeId] | None = None,
    goes_back: bool = False,
) -> model.Rollout:
    """Tell one rollout what is news of these nodes; give it back as it then is."""
    for node_id in node_ids:
        node = draft.world.nodes.get(node_id)
        if node is None:
            continue
        now = of(draft.world, rollout, node, draft.at, changed, goes_back=goes_back)
        if now != rollout.standings.get(node_id, NOTHING):
            rollout = stepping.feed(draft, rollout, lease, events.StandingChanged(draft.at, node_id, now))
    return rollout


def _down(world: worlds.World, rollout: model.Rollout, node: model.Node) -> str:
    if node.quarantined_because:
        return f"quarantined: {node.quarantined_because}"
    if node.cordoned_because:
        return f"cordoned: {node.cordoned_because}"
    if node.offline_since is not None:
        return f"offline since {node.offline_since.isoformat(timespec='seconds')}"
    found = model.hindrance(node.conditions)
    if found is not None:
        return f"{found.code}: {found.message}"
    return _changing(world, rollout, node)


def _changing(world: worlds.World, rollout: model.Rollout, node: model.Node) -> str:
    """Name another rollout that changes the node now: what it takes away is missing from every floor (G5)."""
    out = (each for each in world.of_node(node.id) if each.rollout_id != rollout.id and each.state not in _OVER)
    other = next(out, None)
    return "" if other is None else f"changed by rollout {other.rollout_id}"


def _unwell(world: worlds.World, rollout: model.Rollout, node: model.Node) -> str:
    """Name a component of the rollout that is unwell by no doing of it."""
    for name in _components(rollout):
        installed = node.components.get(name)
        if installed is not None and installed.health is model.Health.UNHEALTHY and not installed.is_stopped:
            is_own_doing = any(each.rollout_id == rollout.id for each in world.of_node(node.id))
            return "" if is_own_doing else f"its component {name} is unhealthy"
    return ""


def _components(rollout: model.Rollout) -> tuple[model.ComponentName, ...]:
    return (rollout.request.component, *(each.component for each in rollout.request.also))


def _frozen(world: worlds.World, node: model.Node, at: datetime) -> str:
    for each in freezing.of_node(world, node):
        if freezing.is_in_force(each, at):
            return f"frozen by {each.actor}: {each.reason}"
    return ""
