"""Where a release stands: what points to it, what leads to it and from it, what closes it, and who left it for cause.

Rules kept: what is declared and what closes it are told apart; of the nodes that left it the first by name are told,
and all are counted. Left out: which way a node would take (`planner`).
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.core import model, versions
from controller.engine import world as worlds
from controller.store import rows

LEAVERS_MAX = 100  # nodes that are named: who wants to know of more looks at the version


@dataclass(frozen=True, slots=True)
class Leaver:
    """A node that left a release for cause, and will not be offered it again."""

    node_id: model.NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a release stands.

    Args:
        edges_to: Declared edges that lead to it; where there is none it is reached from every lower version.
        edges_from: Declared edges that lead away from it.
        barrier: None where ways may pass it by.
        block: What closes every way to it; None where nothing does.
        leavers: Nodes that left it for cause, the first by name.
        left_by: How many these are in all.
    """

    release: model.Release
    channels: tuple[model.Channel, ...]
    edges_to: tuple[model.Edge, ...]
    edges_from: tuple[model.Edge, ...]
    barrier: model.Barrier | None
    block: rows.Block | None
    leavers: tuple[Leaver, ...]
    left_by: int


def of(world: worlds.World, release: model.Release) -> Whereabouts:
    """Look a release up in all that is declared and known."""
    component, version, declared = release.component, release.version, world.declared
    edges = [each for each in declared.edges if each.component == component]
    barriers = (each for each in declared.barriers if (each.component, each.version) == (component, version))
    left = {
        each.id: each.bad_digests[release.digest] for each in world.nodes.values() if release.digest in each.bad_digests
    }
    return Whereabouts(
        release=release,
        channels=tuple(each for each in declared.channels if (each.component, each.version) == (component, version)),
        edges_to=tuple(each for each in edges if each.to_version == version),
        edges_from=tuple(each for each in edges if _leads_from(each, version)),
        barrier=next(barriers, None),
        block=world.blocks.get((component, version)),
        leavers=tuple(Leaver(each, left[each]) for each in sorted(left)[:LEAVERS_MAX]),
        left_by=len(left),
    )


def _leads_from(edge: model.Edge, version: str) -> bool:
    return edge.to_version != version and versions.matches(version, edge.from_versions)
