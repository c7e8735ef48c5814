"""What would become of a node: the hops of each component in their order, or what stands against them.

Rules kept: each hop is judged with what runs on the node when its turn comes, so that at no time a component lacks what
it requires. A node that runs the target of a component already, or lacks it where nothing shall be installed, is left
alone by that component; one refusal keeps the whole node from changing. What has drifted goes straight to the version
that is permanent there. An installation takes no way through the version graph. Left out: which nodes, and when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

from controller.core import aims, methods, model, refusals, routes


@dataclass(frozen=True, slots=True)
class Move:
    """A change as all nodes make it that are alike.

    Args:
        bake_duration: Time that the nodes stay there before the next hop, where it is a barrier on the way; else None.
    """

    component: model.ComponentName
    kind: model.ChangeKind
    method: model.Method
    from_version: str
    from_digest: model.Digest
    to_version: str
    to_digest: model.Digest
    no_way_back: str = ""
    why_method: str = ""
    bake_duration: timedelta | None = None

    @property
    def is_restart(self) -> bool:
        """Tell whether it is a change of version that is no hot swap."""
        return self.kind is model.ChangeKind.UPGRADE and self.method is model.Method.RESTART


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a node; nothing at all where it needs no change.

    Args:
        moves: In their order; empty where there is a refusal.
    """

    moves: tuple[Move, ...] = ()
    refusal: refusals.Refusal | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked of every node.

    Args:
        order: What it asks, in the order in which a node goes to it.
        nets: The version graph, by component.
        found: Ways that were found already, for nodes that start alike.
    """

    request: model.UpgradeRequest
    order: tuple[aims.Aim, ...]
    known: aims.Book
    nets: Mapping[model.ComponentName, routes.Network]
    found: dict[object, tuple[routes.Hop, ...] | routes.NoWay] = field(default_factory=dict)


def judge(task: Task, node: model.Node, holds: tuple[tuple[str, bool | None], ...]) -> Verdict:
    """Say what becomes of a node.

    Args:
        task: What is asked.
        node: The node.
        holds: What the node makes of each condition in the version graph.
    """
    state = {name: (each.version, each.digest) for name, each in node.components.items()}
    made: list[Move] = []
    for aim in task.order:
        if isinstance(aim.target, model.Release):
            led = _led(task, aim, aim.target, _Here(node, holds, state))
        else:
            led = _done(task, aim, aim.target, node)
        if isinstance(led, refusals.Refusal):
            return Verdict(refusal=led)
        made += led
    return Verdict(tuple(made))


@dataclass(frozen=True, slots=True)
class _Here:
    """A node on its way; ``state`` goes along."""

    node: model.Node
    holds: tuple[tuple[str, bool | None], ...]
    state: dict[model.ComponentName, tuple[str, model.Digest]]


def _done(task: Task, aim: aims.Aim, kind: model.ChangeKind, node: model.Node) -> tuple[Move, ...] | refusals.Refusal:
    """Say what a kind does: nothing where it is so already; what is stopped is not restarted."""
    installed = node.components.get(aim.component)
    is_removed = kind is model.ChangeKind.REMOVE
    if installed is None or not (is_removed or installed.is_stopped is (kind is model.ChangeKind.START)):
        return ()
    state = {name: (each.version, each.digest) for name, each in node.components.items()}
    left = {name: version for name, version in refusals.versions_of(state).items() if name != aim.component}
    if is_removed and (broken := next(refusals.against_broken(aim, state, left, task.known), None)):
        return broken
    choice = methods.alone(node.capabilities, task.known.find(installed.name, installed.digest))
    move = Move(
        component=installed.name,
        kind=kind,
        method=cast("model.Method", choice.method),  # one of the two always does
        from_version=installed.version,
        from_digest=installed.digest,
        to_version="" if is_removed else installed.version,
        to_digest=model.Digest("") if is_removed else installed.digest,
        why_method=choice.why,
    )
    return (move,)


def _led(task: Task, aim: aims.Aim, target: model.Release, here: _Here) -> tuple[Move, ...] | refusals.Refusal:
    installed = here.node.components.get(target.component)
    if installed is None and not task.request.install:
        return ()
    if installed is not None and installed.digest == target.digest:
        return ()
    against = refusals.against_start(aim, target, here.node, may_go_down=task.request.downgrade_allowed)
    if against is not None:
        return against
    hops = _way(task, target, here, installed)
    if isinstance(hops, routes.NoWay):
        return refusals.Refusal(hops.code, hops.why, aim)
    return _leaps(task, aim, hops, here)


def _way(
    task: Task, target: model.Release, here: _Here, installed: model.InstalledComponent | None
) -> tuple[routes.Hop, ...] | routes.NoWay:
    net = task.nets[target.component]
    straight = (routes.Hop(target, model.Edge(target.component, "", target.version)),)
    if installed is None:
        blocked = routes.blocks_installation(net, target.version)
        return (
            routes.NoWay("edge_blocked", f"every edge to {target.version} is blocked ({blocked})")
            if blocked
            else straight
        )
    if refusals.is_set_right(here.node, target):
        return straight
    avoided = frozenset(each.digest for each in net.releases if each.digest in here.node.bad_digests)
    asked = tuple(each for each in here.holds if each[0] in net.conditions)
    traveller = routes.Traveller(installed.version, asked, avoided)
    key = (target.digest, traveller)
    if key not in task.found:
        task.found[key] = routes.find(net, traveller, target)
    return task.found[key]


def _leaps(task: Task, aim: aims.Aim, hops: Iterable[routes.Hop], here: _Here) -> tuple[Move, ...] | refusals.Refusal:
    made: list[Move] = []
    for hop in hops:
        move = _leap(task, aim, hop, here)
        if isinstance(move, refusals.Refusal):
            return move
        made.append(move)
        here.state[aim.component] = (move.to_version, move.to_digest)
    return tuple(made)


def _leap(task: Task, aim: aims.Aim, hop: routes.Hop, here: _Here) -> Move | refusals.Refusal:
    new, policy, can = hop.release, task.request.policy, here.node.capabilities
    running, digest = here.state.get(aim.component, ("", model.Digest("")))
    old = task.known.find(aim.component, digest)
    choice = methods.choose(can, running, old, new, policy, hop.edge.methods) if running else methods.alone(can, new)
    leap = refusals.Leap(aim, here.node, running, old, new, here.state, choice)
    against = refusals.against_leap(leap, task.request, task.known)
    if against is not None:
        return against
    no_return = f"the edge to {new.version} is one of no return" if hop.edge.is_no_return else ""
    return Move(
        component=aim.component,
        kind=model.ChangeKind.UPGRADE if running else model.ChangeKind.INSTALL,
        method=cast("model.Method", choice.method),  # what has none was refused
        from_version=running,
        from_digest=digest,
        to_version=new.version,
        to_digest=new.digest,
        no_way_back=no_return or methods.way_back(old, new, policy),
        why_method=choice.why,
        bake_duration=None if new is aim.target else hop.bake_duration,
    )
