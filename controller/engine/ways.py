"""The ways between releases with what closes them: a block stands whatever is declared, before and after.

Rules kept: a block is an edge from every version, closed, which declares nothing else; it is told apart from what was
declared, so that declaring again what was shown changes nothing. Left out: which way is taken (`planner`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controller.core import model
from controller.store import rows


def blocked(declared: model.VersionGraph, blocks: Iterable[rows.Block]) -> model.VersionGraph:
    """Put blocks on the declared ways."""
    ordered = sorted(blocks, key=lambda each: (each.component, each.version))
    return replace(declared, edges=(*declared.edges, *map(_wall, ordered)))


def declared_only(edges: Iterable[model.Edge], blocks: Iterable[rows.Block]) -> tuple[model.Edge, ...]:
    """Take out of edges what blocks put among them."""
    walls = set(map(_wall, blocks))
    return tuple(each for each in edges if each not in walls)


def opened(edges: Iterable[model.Edge], component: model.ComponentName, version: str) -> tuple[model.Edge, ...]:
    """Open every declared way to a version; one that was declared only to close it goes."""
    kept: list[model.Edge] = []
    for edge in edges:
        is_closed = (edge.component, edge.to_version) == (component, version) and bool(edge.blocked_because)
        if not is_closed:
            kept.append(edge)
        elif edge.from_versions:
            kept.append(replace(edge, blocked_because=""))
    return tuple(kept)


def _wall(block: rows.Block) -> model.Edge:
    return model.Edge(block.component, "", block.version, blocked_because=block.reason)
