"""Which way leads from the schema that the disk has to one that a release can use.

Rules kept here: pure; a schema that the release reads is left as it is; the shortest way wins, and a release's own
commands before those of the other; older code is never given a newer schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, unique

from agent.core import model


@unique
class Kind(Enum):
    """What becomes of the state before the new version starts."""

    NONE = "NONE"
    CREATE = "CREATE"
    KEEP = "KEEP"
    MIGRATE = "MIGRATE"
    RESTORE = "RESTORE"


@dataclass(frozen=True, slots=True)
class Hop:
    """One migration, and the digest of the release whose command it is."""

    digest: str
    migration: model.Migration


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the state.

    Args:
        to_schema: The schema that the disk has afterwards; 0 for NONE.
        hops: The migrations of MIGRATE, in order.
        point_id: The rollback point of RESTORE.
    """

    kind: Kind
    to_schema: int = 0
    hops: tuple[Hop, ...] = ()
    point_id: str = ""


class NoWayError(Exception):
    """No way leads from the schema on disk to one that the release can use.

    Args:
        reason: ``state_schema_newer`` or ``state_migration_missing``.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def can_use(state: model.StateSchema, schema: int) -> bool:
    """Say whether a release can use a schema as it is."""
    return schema == state.schema or schema in state.reads


def plan(
    on_disk: int | None,
    wanted: model.StateSchema,
    releases: Mapping[str, Sequence[model.Migration]],
    snapshots: Mapping[str, int],
) -> Plan:
    """Decide; the first rule that speaks wins.

    Args:
        on_disk: The schema that the state has; None where there is no state yet.
        wanted: What the release that is to start can use.
        releases: Migrations by the digest of the release that has them, the starting one first.
        snapshots: Rollback points that may be restored, newest first, with the schema of each.

    Raises:
        NoWayError: There is no way.
    """
    if on_disk is None:
        return Plan(Kind.CREATE, wanted.schema)
    if can_use(wanted, on_disk):
        return Plan(Kind.KEEP, on_disk)
    hops = way(on_disk, wanted.schema, releases)
    if hops:
        return Plan(Kind.MIGRATE, wanted.schema, hops)
    if on_disk < wanted.schema:
        message = f"no migration leads from schema {on_disk} to {wanted.schema}"
        raise NoWayError(message, reason="state_migration_missing")
    for point_id, schema in snapshots.items():
        if can_use(wanted, schema):
            return Plan(Kind.RESTORE, schema, point_id=point_id)
    message = f"the state has schema {on_disk}, newer than {wanted.schema}, and no way leads back"
    raise NoWayError(message, reason="state_schema_newer")


def way(start: int, end: int, releases: Mapping[str, Sequence[model.Migration]]) -> tuple[Hop, ...]:
    """Find the shortest chain of migrations; empty where there is none."""
    hops = [Hop(digest, migration) for digest, migrations in releases.items() for migration in migrations]
    ways: dict[int, tuple[Hop, ...]] = {start: ()}
    frontier = [start]
    while frontier and end not in ways:
        frontier = list(_next(frontier, hops, ways))
    return ways.get(end, ())


def _next(frontier: Iterable[int], hops: Sequence[Hop], ways: dict[int, tuple[Hop, ...]]) -> Iterable[int]:
    for schema in frontier:
        for hop in hops:
            if hop.migration.from_schema == schema and hop.migration.to_schema not in ways:
                ways[hop.migration.to_schema] = (*ways[schema], hop)
                yield hop.migration.to_schema
