from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core import model, routes, versions
from tests.controller.core import scenario

pytestmark = pytest.mark.core

WEB = model.ComponentName("web")
RELEASES = [scenario.release(f"{number}.0.0") for number in range(1, 6)]
NAMES = [each.version for each in RELEASES]

froms = st.sampled_from(["", *(f"={name}" for name in NAMES), "<3.0.0", ">=2.0.0"])
edges = st.builds(
    model.Edge,
    component=st.just(WEB),
    from_versions=froms,
    to_version=st.sampled_from(NAMES),
    blocked_because=st.sampled_from(["", "", "", "bad"]),
    condition=st.sampled_from(["", "", "yes", "no"]),
    cost=st.integers(1, 3),
)
graphs = st.builds(
    model.VersionGraph,
    edges=st.lists(edges, max_size=8).map(tuple),
    barriers=st.lists(
        st.builds(model.Barrier, st.just(WEB), st.sampled_from(NAMES), st.just(timedelta(hours=1))),
        max_size=2,
        unique_by=lambda each: each.version,
    ).map(tuple),
)
HOLDS = {"yes": True, "no": None}


@given(graphs, st.sampled_from(NAMES), st.sampled_from(RELEASES))
def test_the_way_is_the_best_of_all_that_the_graph_allows(
    graph: model.VersionGraph, start: str, target: model.Release
) -> None:
    if start == target.version:
        return
    net = routes.network(WEB, RELEASES, graph)
    found = routes.find(net, routes.Traveller(start, tuple(sorted(HOLDS.items()))), target)
    ways = list(_ways(graph, start, target.version, ()))
    if isinstance(found, routes.NoWay):
        assert not ways
    else:
        best = min(ways, key=lambda way: (len(way), _cost(graph, start, way), [-int(each[0]) for each in way]))
        assert tuple(hop.release.version for hop in found) == best
        assert all((hop.bake_duration is not None) is (hop.release.version in _barriers(graph)) for hop in found)


def _ways(graph: model.VersionGraph, before: str, target: str, way: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """All ways, hop by hop, without a thought for which is the best."""
    start = way[0] if way else before
    is_down = _order(target) < _order(start) if not way else _order(target) < _order(before)
    for each in NAMES:
        is_ahead = _order(each) < _order(before) if is_down else _order(each) > _order(before)
        is_short = _order(each) >= _order(target) if is_down else _order(each) <= _order(target)
        if is_ahead and is_short and _step(graph, before, each, is_down=is_down) is not None:
            if each == target:
                yield (*way, each)
            else:
                yield from _ways(graph, each, target, (*way, each))


def _step(graph: model.VersionGraph, before: str, after: str, *, is_down: bool) -> int | None:
    """What a hop costs; None where it is not allowed."""
    leading = [each for each in graph.edges if each.to_version == after]
    matching = [each for each in leading if versions.matches(before, each.from_versions)]
    if any(each.blocked_because for each in matching):
        return None
    if not is_down and any(_order(before) < _order(each) < _order(after) for each in _barriers(graph)):
        return None
    if is_down and not any(_declares_down(each) for each in graph.edges):
        return 1
    if not is_down and not leading:
        return 1
    return min((each.cost for each in matching if HOLDS.get(each.condition, True)), default=None)


def _declares_down(edge: model.Edge) -> bool:
    is_mere_block = bool(edge.blocked_because) and not edge.from_versions
    higher = [name for name in NAMES if _order(name) > _order(edge.to_version)]
    return not is_mere_block and any(versions.matches(name, edge.from_versions) for name in higher)


def _cost(graph: model.VersionGraph, start: str, way: tuple[str, ...]) -> int:
    is_down = _order(way[-1]) < _order(start)
    hops = zip((start, *way), way, strict=False)
    return sum(_step(graph, before, after, is_down=is_down) or 0 for before, after in hops)


def _barriers(graph: model.VersionGraph) -> set[str]:
    return {each.version for each in graph.barriers}


def _order(version: str) -> int:
    return int(version[0])


def test_a_large_graph_is_searched_in_less_than_a_second() -> None:
    releases = [scenario.release(f"1.{minor}.{patch}") for minor in range(20) for patch in range(20)]
    barriers = tuple(model.Barrier(WEB, f"1.{minor}.0", timedelta(hours=1)) for minor in range(2, 20, 2))
    chain = [model.Edge(WEB, f">=1.{minor - 1}.0,<1.{minor}.0", f"1.{minor}.0") for minor in range(1, 20)]
    net = routes.network(WEB, releases, model.VersionGraph(tuple(chain), barriers))
    began = time.process_time()
    found = routes.find(net, routes.Traveller("1.0.3"), releases[-1])
    assert time.process_time() - began < 1
    assert isinstance(found, tuple)
    pairs = ((f"1.{minor - 1}.19", f"1.{minor}.0") for minor in range(2, 20, 2))
    assert [hop.release.version for hop in found] == [*itertools.chain(*pairs), "1.19.19"]


def test_a_way_that_is_both_blocked_and_closed_is_said_to_be_none() -> None:
    edge = model.Edge(WEB, "", "5.0.0", blocked_because="bad", condition="no")
    net = routes.network(WEB, RELEASES, model.VersionGraph((edge,)))
    assert routes.find(net, routes.Traveller("1.0.0", (("no", None),)), RELEASES[-1]) == routes.NoWay(
        "no_path", "no edge leads from 1.0.0 to 5.0.0"
    )
