"""The version graph between the wire and the core."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import duration_pb2

from controller.core import errors, model
from controller.rpc import convert, release_convert
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
