"""Drafts an emergency rollback: nothing new starts, and what was done last is taken back all at once.

Theory of operation. In one transaction: a freeze over the nodes, which only what goes back passes and only people lift;
each rollout of the component that is under way goes back, and one that waits ends; where none is under way, the latest
that ended goes back, if one of the nodes still runs what it led to. Rollouts go back whole.

Rules kept: what cannot go back (no way back, nodes that another rollout has) is kept as a refusal and harms no other;
it is frozen all the same. Left out: how it goes back, and whether in time (`controller.core.rollout`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta

from controller.core import errors, events, model, selector
from controller.engine import draft as drafts
from controller.engine import stepping
from controller.engine import world as worlds
from controller.store import rows

# Ended rollouts of a component that are looked at for one whose target still runs.
ENDED_MAX = 20
CAN_GO_BACK = frozenset({model.RolloutState.SUCCEEDED, model.RolloutState.FAILED, model.RolloutState.CANCELLED})

Stepped = tuple[model.Rollout, rows.Lease]
Ended = Callable[[drafts.Draft, model.ComponentName], Iterator[Stepped]]
TakeUp = Callable[[drafts.Draft, model.Rollout, rows.Lease], model.Rollout]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants back.

    Args:
        component: Empty for every one.
        selector: Label selector; empty for all nodes.
    """

    component: model.ComponentName
    selector: str
    time_limit: timedelta
    reason: str
    actor: str


def roll_back(
    draft: drafts.Draft, wanted: Wanted, freeze_id: model.FreezeId, ended: Ended, take_up: TakeUp
) -> tuple[model.RolloutId, ...]:
    """Draft all of it; ``ended`` finds the newest rollouts of a component that are over, ``take_up`` readies one.

    Raises:
        InvalidRequestError: The selector or the time cannot be.
    """
    if wanted.time_limit <= timedelta():
        raise errors.InvalidRequestError(
            f"cannot roll back within {wanted.time_limit}: time_limit must be positive",
            code="invalid_time_limit",
            field="time_limit",
            value=str(wanted.time_limit),
            rule="longer than nothing",
        )
    taken = selector.parse(wanted.selector)
    freeze = model.Freeze(freeze_id, wanted.selector, draft.at, None, wanted.reason, wanted.actor, is_emergency=True)
    draft.put_freeze(freeze)
    draft.put_audit(wanted.actor, "rollback.emergency", freeze_id, wanted.reason)
    unfinished = [each for each in _unfinished(draft.world, wanted) if _has_node(draft.world, each, taken)]
    begun = [each.id for each in unfinished if _stop(draft, each, wanted, take_up)]
    busy = {name for each in unfinished for name in _components(each)}
    for component in _wanted_components(draft.world, wanted):
        found = None if component in busy else _latest(draft, component, taken, ended)
        if found is None or found[0].id in begun:
            continue
        busy |= _components(found[0])
        if _go_back(draft, *found, wanted, take_up):
            begun.append(found[0].id)
    return tuple(begun)


def _unfinished(world: worlds.World, wanted: Wanted) -> Iterator[model.Rollout]:
    for rollout_id in sorted(world.rollouts):
        rollout = world.rollouts[rollout_id]
        if not wanted.component or wanted.component in _components(rollout):
            yield rollout


def _components(rollout: model.Rollout) -> set[model.ComponentName]:
    return {rollout.request.component, *(each.component for each in rollout.request.also)}


def _wanted_components(world: worlds.World, wanted: Wanted) -> tuple[model.ComponentName, ...]:
    return (wanted.component,) if wanted.component else tuple(sorted({component for component, _ in world.releases}))


def _has_node(world: worlds.World, rollout: model.Rollout, taken: selector.Selector) -> bool:
    nodes = (world.nodes.get(change.node_id) for change in worlds.planned(rollout))
    return any(node is not None and taken.matches(node.labels) for node in nodes)


def latest(
    draft: drafts.Draft,
    component: model.ComponentName,
    taken: selector.Selector,
    states: Collection[model.RolloutState],
    ended: Ended,
) -> Stepped | None:
    """Find the newest rollout of a component that is in one of some states, else one that led to what a node runs."""
    world = draft.world
    for rollout_id in sorted(world.rollouts, reverse=True):
        rollout = world.rollouts[rollout_id]
        is_meant = component in _components(rollout) and rollout.state in states
        if is_meant and _has_node(world, rollout, taken):
            return rollout, world.leases[rollout_id]
    return _latest(draft, component, taken, ended)


def _latest(
    draft: drafts.Draft, component: model.ComponentName, taken: selector.Selector, ended: Ended
) -> Stepped | None:
    for rollout, lease in ended(draft, component):
        is_over = rollout.id not in draft.world.rollouts and rollout.state in CAN_GO_BACK
        if is_over and _still_runs(draft.world, rollout, taken):
            return rollout, lease
    return None


def _still_runs(world: worlds.World, rollout: model.Rollout, taken: selector.Selector) -> bool:
    """Tell whether one of the nodes runs what the rollout led to."""
    for change in worlds.planned(rollout):
        node = world.nodes.get(change.node_id)
        installed = None if node is None else node.components.get(change.component)
        if node is None or installed is None or not taken.matches(node.labels):
            continue
        if installed.digest == change.to_digest != change.from_digest:
            return True
    return False


def _stop(draft: drafts.Draft, rollout: model.Rollout, wanted: Wanted, take_up: TakeUp) -> bool:
    lease = draft.world.leases[rollout.id]
    if rollout.state is not model.RolloutState.PENDING:
        return _go_back(draft, rollout, lease, wanted, take_up)
    event = events.CancelRequested(draft.at, wanted.actor, f"emergency: {wanted.reason}")
    stepping.feed(draft, rollout, lease, event, actor=wanted.actor)
    return False


def _go_back(draft: drafts.Draft, rollout: model.Rollout, lease: rows.Lease, wanted: Wanted, take_up: TakeUp) -> bool:
    """Take one rollout back; False where it cannot be, which is then kept."""
    event = events.RevertRequested(
        draft.at, wanted.actor, f"emergency: {wanted.reason}", is_emergency=True, time_limit=wanted.time_limit
    )
    try:
        stepping.feed(draft, take_up(draft, rollout, lease), lease, event, actor=wanted.actor)
    except (errors.IllegalEventError, errors.RefusedError) as error:
        stepping.record_refusal(draft, event, error, wanted.actor)
        return False
    return True
