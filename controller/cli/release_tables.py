"""One release, for people: what it is, what its manifest says, and where it stands.

Rules kept here: of the manifest all is shown that was said, by the names that it has there; where there is nothing,
nothing is shown. Left out: lists of releases (`tables`) and JSON (`document`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import rich.table
import typer
from google.protobuf import duration_pb2, message

from controller.cli import document, spans, tables
from instar.v1 import release_pb2, release_service_pb2

_FieldDescriptor = Any  # as in `document`: the stubs know two classes of the same name that share no base
_APART = {"name", "version"}  # they stand above the manifest already


def show(told: release_service_pb2.GetReleaseResponse) -> None:
    """Print a release and where it stands on stdout."""
    tables.show(release(told.release))
    tables.show(manifest(told.release))
    if told.channels:
        tables.show(tables.channels(told.channels))
    for way, edges in (("lead to it", told.edges_to), ("lead away from it", told.edges_from)):
        if edges:
            typer.echo(f"ways that {way}:")
            tables.show(tables.edges(edges))
    for line in _remarks(told):
        typer.echo(line)
    if told.leavers:
        tables.show(leavers(told.leavers))


def release(told: release_pb2.Release) -> rich.table.Table:
    """What a release is, with the whole of its digest."""
    rows = [
        ("component", told.component),
        ("version", told.version),
        ("digest", told.digest),
        ("bytes", str(told.size_bytes)),
        ("published", tables.when(told.publish_time)),
        ("by", told.publisher),
    ]
    return tables.table(("RELEASE", ""), rows)


def manifest(told: release_pb2.Release) -> rich.table.Table:
    """What the manifest says."""
    return tables.table(("MANIFEST", ""), [(name, text) for name, text in _facts(told.manifest) if name not in _APART])


def _facts(told: message.Message, place: str = "") -> Iterator[tuple[str, str]]:
    """Give what was said, by its dotted name; of what is there and says nothing more, that it is there."""
    for field, value in told.ListFields():
        name = f"{place}{field.name}"
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", value[key]) for key in sorted(value))
        elif not field.is_repeated:
            yield from _fact(value, field, name)
        elif field.message_type is None:
            yield name, " ".join(map(str, value))
        else:
            for number, each in enumerate(value):
                yield from _facts(each, f"{name}[{number}].")


def _fact(value: Any, field: _FieldDescriptor, name: str) -> Iterable[tuple[str, str]]:  # noqa: ANN401  # of any field
    if isinstance(value, duration_pb2.Duration):
        return [(name, spans.shown(value.ToTimedelta()))]
    if isinstance(value, message.Message):
        return [*_facts(value, f"{name}.")] or [(name, "yes")]
    if field.enum_type is not None:
        return [(name, document.enum_name(value, field.enum_type) or "-")]
    return [(name, "yes" if value is True else str(value))]


def leavers(told: Iterable[release_pb2.Leaver]) -> rich.table.Table:
    """Nodes that left a release for cause."""
    return tables.table(("LEFT BY", "CAUSE"), [(one.node_id, one.reason) for one in told])


def _remarks(told: release_service_pb2.GetReleaseResponse) -> Iterator[str]:
    if not told.edges_to:
        yield "no edge leads to it: it is reached from every lower version"
    if told.HasField("barrier"):
        yield f"a barrier: nodes stay on it for {spans.shown(told.barrier.bake_duration.ToTimedelta())} at least"
    if told.HasField("block"):
        block = told.block
        yield f"blocked since {tables.when(block.block_time)} by {block.actor}: {block.reason}"
    if told.left_by:
        rest = told.left_by - len(told.leavers)
        yield f"left for cause by {told.left_by} nodes{f', of which {rest} are not named' if rest else ''}"
