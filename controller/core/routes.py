"""Ways through the version graph: which releases a node passes from what it runs to what it shall run.

Rules kept: the best way has the fewest hops, then the lowest cost, then the newest releases on its way. A way up only
goes up and a way down only goes down. A version that edges lead to is reached over these alone, one without edges from
every lower version. A barrier is passed by every way from below it to above it. Down leads a declared edge; where none
is declared for the component, the direct way. A blocked edge forbids its way whatever other edges say; one that is
blocked for every version before forbids an installation too, and declares nothing else. A condition that is false or
unknown closes its edge. No way leads over a pre-release, unless it is a barrier, nor over what the node left for cause.
Left out: a longer way where the shortest one lacks a method (`methods`), and whether the policy lets a node go down.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from controller.core import model, versions

_START = -1  # rank of what a way begins and ends with, which no release between the two has
_LOWEST = (-1, 0, 0, False, ())
_HIGHEST = (10**versions.TEXT_LENGTH_MAX, 0, 0, True, ())


@dataclass(frozen=True, slots=True)
class Hop:
    """One release on a way.

    Args:
        edge: What leads there; made up where none is declared.
        bake_duration: Time that nodes stay there, where it is a barrier on the way; else None.
    """

    release: model.Release
    edge: model.Edge
    bake_duration: timedelta | None = None


@dataclass(frozen=True, slots=True)
class NoWay:
    """Why no way leads somewhere.

    Args:
        code: ``edge_blocked`` or ``no_path``.
        why: In a few words.
    """

    code: str
    why: str


@dataclass(frozen=True, slots=True)
class Traveller:
    """What counts of a node.

    Args:
        running: The version that it starts from.
        holds: What it makes of each condition.
        avoided: Releases that it does not take.
    """

    running: str
    holds: tuple[tuple[str, bool | None], ...] = ()
    avoided: frozenset[model.Digest] = frozenset()


@dataclass(frozen=True, slots=True)
class _Arrow:
    """An edge with what it is read as."""

    edge: model.Edge
    comparators: tuple[versions.Comparator, ...]

    def starts_at(self, version: str) -> bool:
        precedence = versions.order(version)
        return all(each.lets(precedence) for each in self.comparators)


@dataclass(frozen=True, slots=True)
class Network:
    """The graph of one component.

    Args:
        releases: In their order.
        arrows: By the version that they lead to.
        barriers: By their version.
        leads_down: Some edge is declared that leads from a release to a lower one.
    """

    component: model.ComponentName
    releases: tuple[model.Release, ...]
    arrows: Mapping[str, tuple[_Arrow, ...]]
    barriers: Mapping[str, model.Barrier]
    leads_down: bool

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions that its edges have."""
        found = {each.edge.condition for arrows in self.arrows.values() for each in arrows}
        return tuple(sorted(found - {""}))


def network(component: model.ComponentName, releases: Iterable[model.Release], graph: model.VersionGraph) -> Network:
    """Read what is declared of one component.

    Raises:
        InvalidRequestError: Comparators of an edge cannot be read.
    """
    arrows: dict[str, list[_Arrow]] = defaultdict(list)
    for edge in graph.edges:
        if edge.component == component:
            read = versions.parse_comparators(edge.from_versions, "from_versions")
            arrows[edge.to_version].append(_Arrow(edge, read))
    ordered = sorted(releases, key=lambda each: (versions.order(each.version), each.version))
    return Network(
        component=component,
        releases=tuple(ordered),
        arrows={version: tuple(found) for version, found in arrows.items()},
        barriers={each.version: each for each in graph.barriers if each.component == component},
        leads_down=_leads_down(arrows, ordered),
    )


def blocks_installation(net: Network, version: str) -> str:
    """Say why nobody may install a version; empty where it may be."""
    arrows = net.arrows.get(version, ())
    return next((each.edge.blocked_because for each in arrows if _blocks_all(each.edge)), "")


def find(net: Network, traveller: Traveller, target: model.Release) -> tuple[Hop, ...] | NoWay:
    """Find the best way of a node to a release that it does not run."""
    quest = _Quest(net, traveller, target)
    return _search(quest) or _why_not(quest)


@dataclass(frozen=True, slots=True)
class _Quest:
    """What is searched; the flags are for saying what keeps a node from its target."""

    net: Network
    traveller: Traveller
    target: model.Release
    ignores_blocks: bool = False
    ignores_conditions: bool = False

    @property
    def is_down(self) -> bool:
        return versions.is_lower(self.target.version, self.traveller.running)

    def takes(self, edge: model.Edge) -> bool:
        return not edge.condition or self.ignores_conditions or dict(self.traveller.holds)[edge.condition] is True


def _why_not(quest: _Quest) -> NoWay:
    """Say what would have to be otherwise for a way to be there."""
    step = f"from {quest.traveller.running} to {quest.target.version}"
    if found := _search(replace(quest, ignores_blocks=True)):
        edge = _blocked(quest, found)[0]
        return NoWay("edge_blocked", f"the edge to {edge.to_version} is blocked ({edge.blocked_because})")
    if found := _search(replace(quest, ignores_conditions=True)):
        closed = next(hop.edge.condition for hop in found if not quest.takes(hop.edge))
        is_unknown = dict(quest.traveller.holds)[closed] is None
        return NoWay("no_path", f"the condition {closed!r} of its way is {'unknown' if is_unknown else 'false'}")
    if _search(replace(quest, net=replace(quest.net, barriers={}))):
        return NoWay("no_path", f"no way {step} passes the barriers {', '.join(_barriers_between(quest))}")
    return NoWay("no_path", f"no edge leads {step}")


def _search(quest: _Quest) -> tuple[Hop, ...]:
    """Go out from what runs, hop by hop, until the target is met; nothing where it never is."""
    inner = dict(enumerate(reversed(_between(quest))))
    ways: dict[int, _Way] = {_START: _Way(0, ())}
    while ways:
        if ends := [way for _, way in _extended(quest, ways, {_START: quest.target})]:
            return min(ends, key=_weight).hops
        further: dict[int, _Way] = {}
        for rank, way in _extended(quest, ways, inner):
            if rank not in further or _weight(way) < _weight(further[rank]):
                further[rank] = way
        inner = {rank: release for rank, release in inner.items() if rank not in further}
        ways = further
    return ()


@dataclass(frozen=True, slots=True)
class _Way:
    """A way so far.

    Args:
        ranks: Of its releases, the newer the lower.
    """

    cost: int
    ranks: tuple[int, ...]
    hops: tuple[Hop, ...] = ()


def _weight(way: _Way) -> tuple[int, tuple[int, ...]]:
    """Give what ways of as many hops are compared by."""
    return way.cost, way.ranks


def _extended(quest: _Quest, ways: Mapping[int, _Way], to: Mapping[int, model.Release]) -> Iterator[tuple[int, _Way]]:
    """Give each way with one more hop to one of some releases, with the rank of that."""
    for way in ways.values():
        before = way.hops[-1].release.version if way.hops else quest.traveller.running
        low, high = _bounds(quest, before)
        for rank, release in to.items():
            is_ahead = low <= versions.order(release.version) <= high
            if is_ahead and (edge := _edge(quest, before, release)) is not None:
                barrier = quest.net.barriers.get(release.version)
                hop = Hop(release, edge, None if barrier is None else barrier.bake_duration)
                yield rank, _Way(way.cost + edge.cost, (*way.ranks, rank), (*way.hops, hop))


def _bounds(quest: _Quest, before: str) -> tuple[versions.Precedence, versions.Precedence]:
    """Give the lowest and the highest version that one hop may lead to."""
    here = versions.order(before)
    if quest.is_down:
        return _LOWEST, here
    return here, min((at for at in map(versions.order, quest.net.barriers) if at > here), default=_HIGHEST)


def _edge(quest: _Quest, before: str, release: model.Release) -> model.Edge | None:
    """Find the cheapest open edge from a version to a release, made up where the way needs none; None for no way."""
    net = quest.net
    arrows = net.arrows.get(release.version, ())
    matching = [each.edge for each in arrows if each.starts_at(before)]
    if not quest.ignores_blocks and any(each.blocked_because for each in matching):
        return None
    if not net.leads_down if quest.is_down else not arrows:
        return model.Edge(net.component, "", release.version)
    return min(filter(quest.takes, matching), key=lambda each: each.cost, default=None)


def _between(quest: _Quest) -> list[model.Release]:
    """List the releases that a way may pass, in their order."""
    low, high = sorted(map(versions.order, (quest.traveller.running, quest.target.version)))
    return [
        each
        for each in quest.net.releases
        if low < versions.order(each.version) < high
        and each.digest not in quest.traveller.avoided
        and (each.version in quest.net.barriers or not versions.is_prerelease(each.version))
    ]


def _blocked(quest: _Quest, hops: tuple[Hop, ...]) -> list[model.Edge]:
    """List the blocked edges that lie on a way."""
    stops = [quest.traveller.running, *(hop.release.version for hop in hops)]
    return [
        each.edge
        for before, after in itertools.pairwise(stops)
        for each in quest.net.arrows.get(after, ())
        if each.edge.blocked_because and each.starts_at(before)
    ]


def _barriers_between(quest: _Quest) -> list[str]:
    low, high = versions.order(quest.traveller.running), versions.order(quest.target.version)
    found = [version for version in quest.net.barriers if low < versions.order(version) < high]
    return sorted(found, key=versions.order)


def _leads_down(arrows: Mapping[str, Iterable[_Arrow]], releases: list[model.Release]) -> bool:
    return any(
        versions.is_lower(version, release.version) and each.starts_at(release.version)
        for version, found in arrows.items()
        for each in found
        if not _blocks_all(each.edge)
        for release in releases
    )


def _blocks_all(edge: model.Edge) -> bool:
    return bool(edge.blocked_because) and not edge.from_versions
