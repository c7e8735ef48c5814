"""What the node is doing when it is hit: one operation of each kind, from a saved state of the node.

Rules kept here: the saved state is made once by the product itself; the ordered operation ends by itself, in a known
state, where nothing is hit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from agent.core import model
from tests.agent import agent_release
from tests.faults import bundles, judgement, points, stage

QUICK: Mapping[str, Any] = {"soak_duration": timedelta(seconds=0.2), "min_healthy_duration": timedelta(seconds=0.3)}
UNWELL = {"UNWELL_AFTER_SECONDS": "0.3"}
BASE = "HOT_SWAP"  # what it covers the others need not play again
# Steps in which one kind of operation differs from another.
OWN_STEPS = frozenset({"SWITCH", "SOAK", "COMMIT", "SETTLING", "ABORTING"})
OF_SNAPSHOTS = frozenset({"rollback point being made", "rollback point in removal", "rollback points"})
COPIES = OF_SNAPSHOTS | {"snapshot being made"}
REMOVING = frozenset({"unlinkat", "rmdir"})
WHOLE = frozenset({"INSTALL", BASE})  # every point of these is played

Make = Callable[[stage.FaultNode], Awaitable[None]]
Order = Callable[[stage.FaultNode], str]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One operation and where it begins.

    Args:
        make: Brings a node that is empty to where the operation begins.
        order: Orders it; returns its id.
        ends: State in which it ends where nothing is hit.
        is_ending: The component comes or goes, so that requests fail anyhow.
        is_exclusive: Never two instances: while nothing serves, the keeper alone holds the sockets.
        answer_seconds: For which a client waits.
        judge: What must hold beside what holds for all.
        is_over: Whether what follows the operation is over too.
        own_steps: Steps whose points are played though the base scenario has the like.
        own_classes: Classes of paths of which the same is true.
    """

    name: str
    make: Make
    order: Order
    ends: str
    is_ending: bool = False
    is_exclusive: bool = False
    answer_seconds: float = stage.ANSWER_SECONDS
    judge: judgement.Judge = judgement.nothing
    is_over: judgement.Look = judgement.at_once
    own_steps: frozenset[str] = OWN_STEPS
    own_classes: frozenset[str] = frozenset()

    def may_fail_requests(self, point: points.Point) -> bool:
        """Say whether the death of a process at a point may fail requests; that of a host always may."""
        is_alone = self.is_exclusive and (point.role, point.step) == ("keeper", "SWITCH")
        return self.is_ending or is_alone

    def owns(self, point: points.Point) -> bool:
        """Say whether a point is played though the base scenario has the like."""
        return self.name in WHOLE or point.step in self.own_steps or point.path_class in self.own_classes


def is_by_chance(point: points.Point) -> bool:
    """Say whether a point is only there when a client writes at the instant of a copy, which is then made again."""
    is_again = point.step == "SWITCH" or point.name in REMOVING
    return is_again and point.path_class in COPIES


async def _nothing(_node: stage.FaultNode) -> None:
    """The node is empty."""


async def _one(node: stage.FaultNode) -> None:
    await _ended(node, _install(node))


async def _two(node: stage.FaultNode) -> None:
    await _one(node)
    await _ended(node, _upgrade(node))


async def _stopped(node: stage.FaultNode) -> None:
    await _one(node)
    await _ended(node, _stop(node))


async def _old_ledger(node: stage.FaultNode) -> None:
    await _ended(
        node, node.assign("1.0.0", node.publish(*bundles.ledger("1.0.0", 1)), method=model.Method.RESTART, **QUICK)
    )
    await node.write_some()


async def _new_ledger(node: stage.FaultNode) -> None:
    await _old_ledger(node)
    await _ended(node, _migrate(node))
    await node.write_some()


async def _ended(node: stage.FaultNode, operation_id: str) -> None:
    await node.until_state(operation_id, "PERMANENT")


def _install(node: stage.FaultNode) -> str:
    return node.assign("1.0.0", node.bundle("1.0.0"), **QUICK)


def _upgrade(node: stage.FaultNode) -> str:
    return node.assign("1.1.0", node.bundle("1.1.0"), node.bundle("1.0.0"), **QUICK)


def _restart(node: stage.FaultNode) -> str:
    method = model.Method.RESTART
    return node.assign("1.1.0", node.bundle("1.1.0"), node.bundle("1.0.0"), method=method, **QUICK)


def _abort(node: stage.FaultNode) -> str:
    bad = node.bundle("1.2.0", UNWELL)
    return node.assign("1.2.0", bad, node.bundle("1.0.0"), soak_duration=timedelta(seconds=10))


def _rollback(node: stage.FaultNode) -> str:
    return node.assign("1.0.0", node.bundle("1.0.0"), node.bundle("1.1.0"), **QUICK)


def _remove(node: stage.FaultNode) -> str:
    return node.assign("", "", node.bundle("1.0.0"), kind=model.ChangeKind.REMOVE, **QUICK)


def _stop(node: stage.FaultNode) -> str:
    return node.assign("", "", node.bundle("1.0.0"), kind=model.ChangeKind.STOP, **QUICK)


def _start(node: stage.FaultNode) -> str:
    return node.assign("", "", node.bundle("1.0.0"), kind=model.ChangeKind.START, **QUICK)


def _upgrade_agent(node: stage.FaultNode) -> str:
    digest = node.publish(*agent_release.bundle(judgement.NEW_AGENT))
    return node.assign(judgement.NEW_AGENT, digest, component=agent_release.COMPONENT, **QUICK)


def _migrate(node: stage.FaultNode) -> str:
    old, new = (node.publish(*bundles.ledger(f"1.{schema - 1}.0", schema)) for schema in (1, 2))
    return node.assign("1.1.0", new, old, method=model.Method.RESTART, **QUICK)


def _migrate_back(node: stage.FaultNode) -> str:
    old, new = (node.publish(*bundles.ledger(f"1.{schema - 1}.0", schema)) for schema in (1, 2))
    return node.assign("1.0.0", old, new, method=model.Method.RESTART, **QUICK)


def _upgrade_environment(node: stage.FaultNode) -> str:
    return node.assign("1.1.0", node.publish(*bundles.with_environment("1.1.0")), node.bundle("1.0.0"), **QUICK)


_LEDGER: Mapping[str, Any] = {
    "is_exclusive": True,
    "answer_seconds": stage.PATIENCE_SECONDS,
    "judge": judgement.state,
    "own_classes": OF_SNAPSHOTS,
}
SCENARIOS: Mapping[str, Scenario] = {
    each.name: each
    for each in (
        Scenario("INSTALL", _nothing, _install, "PERMANENT"),
        Scenario(BASE, _one, _upgrade, "PERMANENT"),
        Scenario("RESTART", _one, _restart, "PERMANENT", is_exclusive=True),
        Scenario("abort", _one, _abort, "ABORTED"),
        Scenario("rollback", _two, _rollback, "PERMANENT"),
        Scenario("REMOVE", _one, _remove, "PERMANENT", is_ending=True),
        Scenario("STOP", _one, _stop, "PERMANENT", is_ending=True),
        Scenario("START", _stopped, _start, "PERMANENT", is_ending=True),
        Scenario(
            "self-upgrade",
            _one,
            _upgrade_agent,
            "PERMANENT",
            judge=judgement.one_agent,
            is_over=judgement.keeper_has_followed,
        ),
        Scenario("migration", _old_ledger, _migrate, "PERMANENT", **_LEDGER),
        Scenario("migration back", _new_ledger, _migrate_back, "PERMANENT", **_LEDGER),
        Scenario(
            "environment",
            _one,
            _upgrade_environment,
            "PERMANENT",
            judge=judgement.environments,
            own_steps=frozenset(),
        ),
    )
}
