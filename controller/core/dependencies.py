"""In which order the components of one request change.

Rules kept: what a target requires changes before it, unless that would take away what the component requires now, and
the target could do with what is there: then it goes first. Where nothing is required, the order is that of the request.
A request whose targets require each other has no order, and is refused. Left out: whether every state on the way is
sound; that is judged for each kind of node (`moves`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controller.core import aims, errors, model, refusals

Arrows = dict[aims.Aim, set[aims.Aim]]


def ordered(asked: Sequence[aims.Aim], nodes: Iterable[model.Node], known: aims.Book) -> tuple[aims.Aim, ...]:
    """Put the aims of a request in the order in which nodes go to them.

    Args:
        asked: The aims, in the order of the request.
        nodes: One of each kind of node.
        known: All that is published.

    Raises:
        RefusedError: Code ``dependency_cycle``.
    """
    if len(asked) == 1:
        return tuple(asked)
    before = _before(asked, list(nodes), known)
    left, done = list(asked), list[aims.Aim]()
    while left:
        ready = next((each for each in left if before[each] <= set(done)), None)
        if ready is None:
            raise _cycle(left, before)
        done.append(ready)
        left.remove(ready)
    return tuple(done)


def requires(aim: aims.Aim, other: aims.Aim) -> bool:
    """Tell whether the target of one aim requires the component of another."""
    return any(each.component == other.component for each in aim.requirements)


def _before(asked: Sequence[aims.Aim], nodes: list[model.Node], known: aims.Book) -> Arrows:
    """Give for each aim those that come before it."""
    before: Arrows = {each: set() for each in asked}
    for user in asked:
        for used in asked:
            if user is used:
                continue
            if _must_leave_first(user, used, nodes, known):
                before[used].add(user)
            elif requires(user, used):
                before[user].add(used)
    return before


def _must_leave_first(user: aims.Aim, used: aims.Aim, nodes: list[model.Node], known: aims.Book) -> bool:
    """Tell whether a component has to change before one that it requires, and whether it can."""
    wanted = [each for each in user.requirements if each.component == used.component]
    both = [node for node in nodes if {user.component, used.component} <= node.components.keys()]
    would_break = any(not _keeps(user, used, node, known) for node in both)
    return would_break and all(refusals.is_met(each, _versions(node)) for each in wanted for node in both)


def _keeps(user: aims.Aim, used: aims.Aim, node: model.Node, known: aims.Book) -> bool:
    """Tell whether what a node runs of one component could do with the target of another."""
    installed = node.components[user.component]
    release = known.find(user.component, installed.digest)
    now = _versions(node)
    then = now | {used.component: used.version}
    wanted = () if release is None else release.requirements
    return all(refusals.is_met(each, then) for each in wanted if refusals.is_met(each, now))


def _versions(node: model.Node) -> dict[model.ComponentName, str]:
    return {name: each.version for name, each in node.components.items()}


def _cycle(left: list[aims.Aim], before: Arrows) -> errors.RefusedError:
    """Name the components that wait for each other."""
    path = [left[0]]
    while path[-1] not in path[:-1]:
        path.append(next(each for each in left if each in before[path[-1]]))
    named = " requires ".join(each.name for each in path[path.index(path[-1]) :])
    return errors.RefusedError(
        f"cannot plan for also {', '.join(each.value for each in left if each.field == 'also')}: {named}",
        code="dependency_cycle",
        field="also",
        value=", ".join(each.value for each in left if each.field == "also"),
        rule="the components of one request must not require each other in a circle",
    )
