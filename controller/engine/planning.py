"""Plans requests against the world as it is: at once where the fleet is small, else beside the loop.

Rules kept: a plan is made from one world, which never changes under it; one that takes too long is given up, as is one
that nobody waits for any longer; a plan that was made beside the loop stands for a later world only where nothing has
changed that it depends on. Left out: what a plan says (`controller.core.planner`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller import conditions
from controller.core import errors, model, planner, requests
from controller.core.analysis import power
from controller.engine import sources
from controller.engine import world as worlds

# Nodes that are planned without leaving the loop: some ten milliseconds.
INLINE_NODES_MAX = 1_000
PLAN_DEADLINE = timedelta(seconds=30)
# Differences of a stale plan that its refusal names.
_DIFFERENCES_SHOWN = 5

Metrics = Callable[[model.NodeId], Mapping[str, float]]


class _Abandoned(Exception):  # noqa: N818 nothing is wrong: nobody waits for the plan any longer
    pass


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The nodes of a world, for as long as somebody waits for the plan."""

    world: worlds.World
    is_abandoned: threading.Event

    def __iter__(self) -> Iterator[model.Node]:
        for node in self.world.nodes.values():
            if self.is_abandoned.is_set():
                raise _Abandoned
            yield node


class Planning:
    """Makes plans.

    Args:
        metrics: The latest metrics of a node's host, by name.
        source: Where the figures of an analysis come from.
        rules: Names of the rules of the monitor.
    """

    def __init__(self, metrics: Metrics, source: sources.Sources, rules: frozenset[str]) -> None:
        self._metrics = metrics
        self._sources = source
        self._rules = rules

    def is_large(self, world: worlds.World, request: model.UpgradeRequest) -> bool:
        """Tell whether a plan is made beside the loop: for many nodes, or with a forecast of what an analysis finds."""
        return len(world.nodes) > INLINE_NODES_MAX or requests.analysis(request) is not None

    def now(self, world: worlds.World, request: model.UpgradeRequest, at: datetime) -> model.Plan:
        """Plan a request at once.

        Raises:
            InstarError: The planner's.
        """
        return planner.plan(request, self.fleet(world, request, at))

    async def plan(self, world: worlds.World, request: model.UpgradeRequest, at: datetime) -> model.Plan:
        """Plan a request.

        Raises:
            InstarError: The planner's.
            UnavailableError: It takes too long, code ``plan_late``.
        """
        if not self.is_large(world, request):
            return self.now(world, request, at)
        is_abandoned = threading.Event()
        fleet = self.fleet(world, request, at, is_abandoned)
        try:
            async with asyncio.timeout(PLAN_DEADLINE.total_seconds()):
                return await asyncio.to_thread(planner.plan, request, fleet)
        except TimeoutError as late:
            raise errors.UnavailableError(
                f"cannot plan for {len(world.nodes)} nodes: it takes longer than {PLAN_DEADLINE}",
                code="plan_late",
                rule="a plan is made in time, or not at all",
            ) from late
        finally:
            is_abandoned.set()

    def fleet(
        self,
        world: worlds.World,
        request: model.UpgradeRequest | None,
        at: datetime,
        is_abandoned: threading.Event | None = None,
    ) -> planner.Fleet:
        """Give what a plan is made against; without a request, what only says what becomes of a node."""

        def holds(condition: str, node: model.Node) -> bool | None:
            return conditions.holds(condition, node, self._metrics(node.id))

        return planner.Fleet(
            nodes=_Nodes(world, is_abandoned or threading.Event()),
            releases=world.releases.values(),
            graph=world.graph,
            freezes=tuple(sorted(world.freezes.values(), key=lambda each: (each.since, each.id))),
            holds=holds,
            memory=world.memory,
            rules=self._rules,
            sources=self._sources.names,
            habits=self._habits(world, request, at),
            at=at,
        )

    def _habits(
        self, world: worlds.World, request: model.UpgradeRequest | None, at: datetime
    ) -> Mapping[str, power.Habit]:
        analysis = None if request is None else requests.analysis(request)
        if request is None or analysis is None:
            return {}
        having = (node.id for node in world.nodes.values() if request.component in node.components)
        return self._sources.habits(request.component, analysis, sorted(having), at)


def is_same(before: worlds.World, after: worlds.World) -> bool:
    """Tell whether a plan made from the first world stands for the second."""
    if before.nodes is after.nodes:
        are_nodes_same = True
    else:
        pairs = ((node, before.nodes.get(node.id)) for node in after.nodes.values())
        are_nodes_same = len(before.nodes) == len(after.nodes) and all(
            known is node or (known is not None and _facts(known) == _facts(node)) for node, known in pairs
        )
    return are_nodes_same and (before.graph, before.freezes, before.releases) == (
        after.graph,
        after.freezes,
        after.releases,
    )


def check_fresh(planned: model.Plan, now: model.Plan, verb: str) -> None:
    """Refuse to carry out a plan that was made earlier, where the fleet gives another one by now.

    Args:
        planned: The earlier one.
        now: The one of now.
        verb: What cannot be done then, for people, for example ``apply the saved plan``.

    Raises:
        RefusedError: Code ``plan_stale``; it says what has changed.
    """
    if planned.fingerprint == now.fingerprint:
        return
    found = planner.differences(planned, now)
    shown = "; ".join(found[:_DIFFERENCES_SHOWN])
    more = f"; and {len(found) - _DIFFERENCES_SHOWN} more" if len(found) > _DIFFERENCES_SHOWN else ""
    raise stale(planned, f"cannot {verb}: {shown or 'the fleet gives another one by now'}{more}")


def stale(planned: model.Plan, message: str) -> errors.RefusedError:
    """Make the refusal of a plan that is no longer what the fleet gives."""
    return errors.RefusedError(
        message,
        code="plan_stale",
        field="plan.fingerprint",
        value=planned.fingerprint,
        rule="a plan that was saved or approved is carried out exactly, or not at all",
    )


def _facts(node: model.Node) -> tuple[object, ...]:
    """Name what a plan may depend on; whether a node is up plays no part."""
    installed = sorted((each.name, each.digest, each.is_stopped) for each in node.components.values())
    return (
        node.labels,
        node.capabilities,
        node.bad_digests,
        node.cordoned_because,
        node.quarantined_because,
        installed,
    )
