"""Releases and what is declared of the ways between them, on the wire.

Rules kept here: an edge that names no method allows both, one that names no cost costs 1. Left out: whether versions
are published, conditions can be read, and there are not too many (`controller.engine`).
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import json_format

from controller.core import model
from controller.engine import whereabouts as places
from controller.rpc import convert
from controller.store import rows
from instar.v1 import manifest_pb2, operation_pb2, release_pb2, release_service_pb2


def release(value: model.Release) -> release_pb2.Release:
    """A release, its manifest opened."""
    return release_pb2.Release(
        component=value.component,
        version=value.version,
        digest=value.digest,
        size_bytes=value.size_bytes,
        manifest=json_format.Parse(value.manifest_json, manifest_pb2.Manifest()),
        publish_time=convert.timestamp(value.published_at),
        publisher=value.publisher,
    )


def whereabouts(value: places.Whereabouts) -> release_service_pb2.GetReleaseResponse:
    """A release and where it stands."""
    return release_service_pb2.GetReleaseResponse(
        release=release(value.release),
        channels=map(channel, value.channels),
        edges_to=map(_edge, value.edges_to),
        edges_from=map(_edge, value.edges_from),
        barrier=None if value.barrier is None else _barrier(value.barrier),
        block=None if value.block is None else _block(value.block),
        leavers=[release_pb2.Leaver(node_id=one.node_id, reason=one.reason) for one in value.leavers],
        left_by=value.left_by,
    )


def graph(component: model.ComponentName, value: model.VersionGraph) -> release_pb2.VersionGraph:
    """What is declared of the ways between the releases of a component."""
    return release_pb2.VersionGraph(
        component=component,
        edges=map(_edge, value.edges),
        barriers=map(_barrier, value.barriers),
        channels=map(channel, value.channels),
    )


def _edge(value: model.Edge) -> release_pb2.Edge:
    methods = sorted(value.methods, key=lambda each: each.value)
    return release_pb2.Edge(
        from_versions=value.from_versions,
        to_version=value.to_version,
        methods=[convert.number(operation_pb2.Method.Value, "METHOD_", each) for each in methods],
        blocked_reason=value.blocked_because,
        condition=value.condition,
        no_return=value.is_no_return,
        cost=value.cost,
    )


def _barrier(value: model.Barrier) -> release_pb2.Barrier:
    return release_pb2.Barrier(version=value.version, bake_duration=convert.duration(value.bake_duration))


def _block(value: rows.Block) -> release_pb2.Block:
    return release_pb2.Block(reason=value.reason, actor=value.actor, block_time=convert.timestamp(value.at))


def channel(value: model.Channel) -> release_pb2.Channel:
    """A moving pointer to a release."""
    return release_pb2.Channel(
        name=value.name,
        version=value.version,
        change_time=convert.timestamp(value.changed_at),
        actor=value.actor,
    )


def from_graph(message: release_pb2.VersionGraph) -> tuple[tuple[model.Edge, ...], tuple[model.Barrier, ...]]:
    """The edges and barriers of a component; its channels are moved by other means.

    Raises:
        InvalidRequestError: One of them breaks its rule.
    """
    component = model.ComponentName(message.component)
    convert.refuse_unless(bool(component), "graph.component", component, "given")
    return (
        tuple(_from_edge(component, each) for each in message.edges),
        tuple(_from_barrier(component, each) for each in message.barriers),
    )


def _from_edge(component: model.ComponentName, message: release_pb2.Edge) -> model.Edge:
    convert.refuse_unless(bool(message.to_version), "graph.edges.to_version", message.to_version, "given")
    if message.blocked_reason:
        convert.reason(message.blocked_reason, "declare the edge", "graph.edges.blocked_reason")
    return model.Edge(
        component=component,
        from_versions=message.from_versions,
        to_version=message.to_version,
        methods=_from_methods(message.methods),
        blocked_because=message.blocked_reason,
        condition=message.condition,
        is_no_return=message.no_return,
        cost=message.cost or 1,
    )


def _from_methods(told: Iterable[int]) -> frozenset[model.Method]:
    named = [_from_method(each) for each in told]
    return frozenset(named) or model.BOTH_METHODS


def _from_method(told: int) -> model.Method:
    field = "graph.edges.methods"
    found = convert.member(model.Method, operation_pb2.Method.Value, "METHOD_", told, field)
    if found is None:
        raise convert.refusal(field, "", convert.one_of(model.Method))
    return found


def _from_barrier(component: model.ComponentName, message: release_pb2.Barrier) -> model.Barrier:
    field = "graph.barriers.bake_duration"
    convert.refuse_unless(bool(message.version), "graph.barriers.version", message.version, "given")
    span = convert.span(message.bake_duration, field)
    convert.refuse_unless(span.total_seconds() >= 0, field, str(span), "no negative time")
    return model.Barrier(component, message.version, span)
