"""The fleet as one request sees it: which nodes it takes, of which kinds they are, and what becomes of each kind.

Rules kept: nodes that are alike are judged once. Left out: which of them are left out of the plan, and in which waves
the others change (`planner`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from controller.core import aims, alike, dependencies, feedback, fingerprints, model, moves, routes, selector
from controller.core.analysis import power

NOTHING_DECLARED = model.VersionGraph()
NOTHING_TAUGHT = feedback.Memory()


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a plan is made against.

    Args:
        nodes: The whole fleet, in any order.
        releases: All that is published.
        holds: Evaluates a condition of an edge over a node; None where that is unknown.
        memory: What past operations teach.
        rules: Names of the rules of the monitor.
        sources: Names of the Prometheus servers that are configured.
        habits: How the metrics of the request's analysis behave now, as far as they are measured.
        at: Now.
    """

    nodes: Iterable[model.Node]
    releases: Iterable[model.Release]
    graph: model.VersionGraph = NOTHING_DECLARED
    freezes: tuple[model.Freeze, ...] = ()
    holds: alike.Holds = lambda _condition, _node: None
    memory: feedback.Memory = NOTHING_TAUGHT
    rules: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    habits: Mapping[str, power.Habit] = field(default_factory=dict)
    at: datetime = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Freezing:
    """A freeze that has not passed, and what it covers."""

    freeze: model.Freeze
    taken: selector.Selector
    is_in_force: bool

    def covers(self, node: model.Node) -> bool:
        """Tell whether it covers a node, now or later."""
        return self.taken.matches(node.labels)


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known once every kind of node has been judged.

    Args:
        order: The aims, in the order in which nodes go to them.
        components: Those concerned.
        labels: Those that were looked at.
        freezings: Those that cover selected nodes.
        nodes: The selected ones, in the order of their names.
        indexes: Of the kind of each of them.
        kinds: The kinds of nodes.
        verdicts: What becomes of each kind.
    """

    request: model.UpgradeRequest
    order: Sequence[aims.Aim]
    components: Sequence[model.ComponentName]
    labels: Sequence[str]
    freezings: Sequence[Freezing]
    nodes: Sequence[model.Node]
    indexes: Sequence[int]
    kinds: Sequence[alike.Kind]
    verdicts: Sequence[moves.Verdict]

    @property
    def seed(self) -> str:
        """What shuffles the nodes: what is asked of the request's own component."""
        own = next(each for each in self.order if each.component == self.request.component)
        return own.target.digest if isinstance(own.target, model.Release) else f"{own.component} {own.value}"

    def counts(self) -> Sequence[bool]:
        """Tell of which kinds the nodes have one of the components, or will."""
        names = {each.component for each in self.order}
        both = zip(self.kinds, self.verdicts, strict=True)
        return [bool(verdict.moves) or not names.isdisjoint(kind.node.components) for kind, verdict in both]

    def facts(self, graph: model.VersionGraph) -> tuple[tuple[str, str], ...]:
        """Give what the plan depends on, in the order of the names."""
        both = zip(self.kinds, self.verdicts, strict=True)
        marks = [fingerprints.of_kind(kind, verdict, self.components) for kind, verdict in both]
        common = fingerprints.gather(self.request, self.order, graph, (each.freeze for each in self.freezings))
        return tuple(sorted([*common, *fingerprints.of_nodes(self.nodes, self.indexes, marks, self.labels)]))


def survey(request: model.UpgradeRequest, fleet: Fleet) -> Survey:
    """Look at a fleet for a request that is right in itself.

    Raises:
        InvalidRequestError: The selector or a target cannot be read.
        NotFoundError: A component or its version was never published.
        RefusedError: The components of the request require each other.
    """
    taken = selector.parse(request.selector)
    known = aims.book(fleet.releases)
    asked = aims.resolve(request, known, fleet.graph)
    nets = {each.component: routes.network(each.component, known.of(each.component), fleet.graph) for each in asked}
    components = alike.concerned(asked, known)
    conditions = tuple(sorted({each for net in nets.values() for each in net.conditions}))
    nodes = sorted((node for node in fleet.nodes if taken.matches(node.labels)), key=lambda node: node.id)
    kinds, indexes = alike.sort_out(nodes, alike.Looks(components, conditions, fleet.holds))
    order = dependencies.ordered(asked, [each.node for each in kinds], known)
    freezings = _freezings(fleet, nodes)
    task = moves.Task(request, order, known, nets)
    return Survey(
        request=request,
        order=order,
        components=components,
        labels=_labels(request, taken, freezings),
        freezings=freezings,
        nodes=nodes,
        indexes=indexes,
        kinds=kinds,
        verdicts=[moves.judge(task, each.node, each.holds) for each in kinds],
    )


def _freezings(fleet: Fleet, nodes: Sequence[model.Node]) -> tuple[Freezing, ...]:
    left = [each for each in fleet.freezes if each.until is None or each.until > fleet.at]
    found = [Freezing(each, selector.parse(each.selector), is_in_force=each.since <= fleet.at) for each in left]
    return tuple(each for each in found if any(map(each.covers, nodes)))


def _labels(request: model.UpgradeRequest, taken: selector.Selector, freezings: Iterable[Freezing]) -> tuple[str, ...]:
    found = taken.keys.union({request.policy.domain_label} - {""}, *(each.taken.keys for each in freezings))
    return tuple(sorted(found))
