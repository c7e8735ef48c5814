"""The version graph between the wire and the core."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import duration_pb2

from controller.core import errors, model
from controller.engine import whereabouts
from controller.rpc import convert, release_convert
from controller.store import rows
from instar.v1 import operation_pb2, release_pb2

NOW = datetime(2026, 3, 1, 12, 30, 0, 250_000, tzinfo=UTC)
WEB = model.ComponentName("web")
EDGES = (
    model.Edge(WEB, "", "1.0.0"),
    model.Edge(
        WEB,
        ">=1.0.0,<2.0.0",
        "2.0.0",
        methods=frozenset({model.Method.RESTART}),
        blocked_because="it eats disks",
        condition='node.labels["zone"] == "a"',
        is_no_return=True,
        cost=7,
    ),
)
BARRIERS = (model.Barrier(WEB, "1.4.0", timedelta(hours=1)),)
CHANNELS = (model.Channel(WEB, "stable", "1.4.0", NOW, "ann"),)


def test_edges_and_barriers_pass_both_ways() -> None:
    shown = release_convert.graph(WEB, model.VersionGraph(EDGES, BARRIERS, CHANNELS))
    assert shown.component == "web"
    assert release_convert.from_graph(shown) == (EDGES, BARRIERS)
    assert [(one.name, one.version, one.actor) for one in shown.channels] == [("stable", "1.4.0", "ann")]
    assert shown.channels[0].change_time.ToDatetime(UTC) == NOW


def test_a_release_is_shown_with_where_it_stands() -> None:
    known = whereabouts.Whereabouts(
        release=model.Release(WEB, "2.0.0", model.Digest("sha256:d"), 9, "handover", '{"name":"web"}', NOW, "ci"),
        channels=CHANNELS,
        edges_to=EDGES[1:],
        edges_from=EDGES[:1],
        barrier=BARRIERS[0],
        block=rows.Block(WEB, "2.0.0", "it eats disks", "ann", NOW),
        leavers=(whereabouts.Leaver(model.NodeId("n-1"), "crashed"),),
        left_by=7,
    )
    shown = release_convert.whereabouts(known)
    assert (shown.release.version, shown.release.manifest.name, shown.left_by) == ("2.0.0", "web", 7)
    assert [one.name for one in shown.channels] == ["stable"]
    assert ([one.cost for one in shown.edges_to], [one.to_version for one in shown.edges_from]) == ([7], ["1.0.0"])
    assert shown.barrier.bake_duration.ToTimedelta() == timedelta(hours=1)
    assert (shown.block.reason, shown.block.actor) == ("it eats disks", "ann")
    assert shown.block.block_time.ToDatetime(UTC) == NOW
    assert [(one.node_id, one.reason) for one in shown.leavers] == [("n-1", "crashed")]
    open_ = release_convert.whereabouts(replace(known, barrier=None, block=None))
    assert (open_.HasField("barrier"), open_.HasField("block")) == (False, False)


def test_an_edge_that_says_little_allows_both_methods_and_costs_1() -> None:
    message = release_pb2.VersionGraph(component="web", edges=[release_pb2.Edge(to_version="1.0.0")])
    assert release_convert.from_graph(message) == ((model.Edge(WEB, "", "1.0.0"),), ())


def graph(**facts: object) -> release_pb2.VersionGraph:
    return release_pb2.VersionGraph(component="web", **facts)  # type: ignore[arg-type]  # the test's own facts


def edge(**facts: object) -> release_pb2.VersionGraph:
    return graph(edges=[release_pb2.Edge(to_version="1.0.0", **facts)])  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (release_pb2.VersionGraph(), "graph.component"),
        (graph(edges=[release_pb2.Edge()]), "graph.edges.to_version"),
        (graph(barriers=[release_pb2.Barrier()]), "graph.barriers.version"),
        (
            graph(barriers=[release_pb2.Barrier(version="1.0.0", bake_duration=duration_pb2.Duration(seconds=-1))]),
            "graph.barriers.bake_duration",
        ),
        (edge(methods=[operation_pb2.METHOD_UNSPECIFIED]), "graph.edges.methods"),
        (edge(methods=[77]), "graph.edges.methods"),
        (edge(blocked_reason="x" * (convert.REASON_CHARS_MAX + 1)), "graph.edges.blocked_reason"),
    ],
)
def test_a_graph_that_means_nothing_is_refused_by_the_name_of_the_field(
    message: release_pb2.VersionGraph, field: str
) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot") as caught:
        release_convert.from_graph(message)
    assert caught.value.field == field
