"""Which method a change of version takes, and whether there is a way back from it: settled before anything moves.

Rules kept: a hot swap needs a driver that can do it on the node, a version before that `hot_swap_from` admits, the same
driver before and after, an edge of the version graph that allows it, and a state that the new version reads and writes
as it is: two versions then share it, and either may be the one that stays. A state that must be migrated allows one
instance at a time, and so a RESTART. What undoes a change takes the same method: the rule is the same backwards. There
is a way back where the old version finds its state again: it was never changed, or one of the two versions declares a
migration back, or there is a snapshot and the policy gives up what was written since. Left out: which schema the state
of a node really has after releases that left it as it was; the node knows it, and its own preflight outranks this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controller.core import model, versions

BOTH = frozenset(model.Method)
RESTART_ONLY = frozenset({model.Method.RESTART})
HOT_SWAP_ONLY = frozenset({model.Method.HOT_SWAP})

# What the drivers of the agent can do; of a driver of somebody else, the node says it.
DRIVER_METHODS = {
    "handover": BOTH,
    "held": RESTART_ONLY,
    "process": RESTART_ONLY,
    "reload": HOT_SWAP_ONLY,
    "module": HOT_SWAP_ONLY,
    "systemd": BOTH,
    "exec": BOTH,  # as far as the release allows: its own commands may break or not
    "agent": HOT_SWAP_ONLY,
}


@dataclass(frozen=True, slots=True)
class Choice:
    """How a node changes.

    Args:
        method: None where it cannot, or must not.
        why: Why it is no hot swap, in a few words; empty where it is one.
    """

    method: model.Method | None
    why: str = ""


def possible(capabilities: frozenset[str], release: model.Release) -> frozenset[model.Method]:
    """Tell which methods a node has for a release.

    A node says them as ``driver.NAME.METHOD``; of one that says only ``driver.NAME`` the table is believed, and a
    driver that is not in the table stops and starts.
    """
    told = {method for method in model.Method if f"driver.{release.driver}.{method.value}" in capabilities}
    return (frozenset(told) or DRIVER_METHODS.get(release.driver, RESTART_ONLY)) & release.methods


def alone(capabilities: frozenset[str], release: model.Release | None) -> Choice:
    """Choose for a change that leads to the version that runs, or to none: the gentlest method that there is."""
    if release is None:
        return Choice(model.Method.RESTART, "what runs was never published here")
    if model.Method.HOT_SWAP in possible(capabilities, release):
        return Choice(model.Method.HOT_SWAP)
    return Choice(model.Method.RESTART, _driver_cannot(release))


def choose(
    capabilities: frozenset[str],
    running: str,
    old: model.Release | None,
    new: model.Release,
    policy: model.Policy,
    allowed: frozenset[model.Method] = BOTH,
) -> Choice:
    """Choose the method by which a node goes from one version to another.

    Args:
        capabilities: Those of the node.
        running: The version before.
        old: Its release; None where it is not known here, and then it forbids nothing.
        new: What the node shall run.
        policy: Whether a restart is allowed.
        allowed: Methods of the edge between the two.
    """
    can = possible(capabilities, new)
    why = _against_hot_swap(can, running, old, new) or _against_edge(allowed, new)
    if not why:
        return Choice(model.Method.HOT_SWAP)
    if model.Method.RESTART not in can:
        return Choice(None, f"{why}, and its driver {new.driver} cannot restart it")
    if model.Method.RESTART not in allowed:
        return Choice(None, f"{why}, and the edge to {new.version} allows no restart")
    if policy.restart_allowed or model.Method.HOT_SWAP not in can:
        return Choice(model.Method.RESTART, why)
    return Choice(None, why)


def _against_hot_swap(can: frozenset[model.Method], running: str, old: model.Release | None, new: model.Release) -> str:
    if model.Method.HOT_SWAP not in can:
        return _driver_cannot(new)
    if old is not None and old.driver != new.driver:
        return f"the driver changes from {old.driver} to {new.driver}"
    if not versions.matches(running, new.hot_swap_from):
        return f"hot_swap_from {new.hot_swap_from} does not admit {running}"
    states = _states(old, new)
    return "" if states is None or _shares(*states) else "the state must be migrated"


def _against_edge(allowed: frozenset[model.Method], new: model.Release) -> str:
    return "" if model.Method.HOT_SWAP in allowed else f"the edge to {new.version} allows no hot swap"


def _driver_cannot(release: model.Release) -> str:
    return f"its driver {release.driver} cannot do a hot swap"


def can_reach(old: model.Release | None, new: model.Release, policy: model.Policy) -> bool:
    """Tell whether a release can use the state that another one leaves: as it is, migrated, or out of a snapshot."""
    states = _states(old, new)
    if states is None or _shares(*states):
        return True
    if _leads(states[0].schema, states[1].schema, states):
        return True
    return is_newer_state(old, new) and not _against_snapshot(states, policy)


def is_newer_state(old: model.Release | None, new: model.Release) -> bool:
    """Tell whether the state that a release leaves is newer than what the next one writes."""
    states = _states(old, new)
    return states is not None and states[0].schema > states[1].schema


def way_back(old: model.Release | None, new: model.Release, policy: model.Policy) -> str:
    """Say why a node could not go back from a release to the one before; empty where it can."""
    states = _states(old, new)
    if states is None or _shares(*states):
        return ""
    before, after = states
    if after.schema in before.reads or _leads(after.schema, before.schema, states):
        return ""
    why = _against_snapshot(states, policy)
    return f"no way leads back from state schema {after.schema} to {before.schema}, and {why}" if why else ""


def _against_snapshot(states: tuple[model.StateSchema, model.StateSchema], policy: model.Policy) -> str:
    """Say why the state cannot be restored as it was; what was written since would be lost, so that is not for free."""
    if not policy.discard_writes:
        return "discard_writes is not set"
    return "" if any(each.has_snapshot for each in states) else "neither version has a snapshot made"


def _states(old: model.Release | None, new: model.Release) -> tuple[model.StateSchema, model.StateSchema] | None:
    """Give what the two keep; None unless both keep something, for else nothing has to be agreed upon."""
    if old is None or old.state is None or new.state is None:
        return None
    return old.state, new.state


def _shares(before: model.StateSchema, after: model.StateSchema) -> bool:
    return before.schema == after.schema or before.schema in after.reads


def _leads(first: int, last: int, states: Iterable[model.StateSchema]) -> bool:
    """Tell whether migrations that one of the releases declares lead from a schema to another, over any others."""
    steps = {(way.from_schema, way.to_schema) for state in states for way in state.migrations}
    reached = {first}
    while more := {to for start, to in steps if start in reached} - reached:
        reached |= more
    return last in reached
