"""The version graph: which release may follow which, under what conditions, and what came of it so far."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.core.model.words import ComponentName, Method, NodeId, OperationId

BOTH_METHODS = frozenset(Method)


@dataclass(frozen=True, slots=True)
class Edge:
    """An allowed way between versions; the way down from a version is an edge of its own.

    A version that edges lead to is reached over these alone; one without edges is reached from every lower version.

    Args:
        from_versions: Comparators of SemVer for the version before; empty for every other version.
        methods: Those that it allows.
        blocked_because: Why nobody may take it; empty where it is open.
        condition: CEL over the node; a node for which it is false or unknown does not take the edge. Empty for none.
        is_no_return: No way leads back; what fails behind it is stopped, not reverted.
        cost: What it weighs when ways are compared, from 1; hops count first.
    """

    component: ComponentName
    from_versions: str
    to_version: str
    methods: frozenset[Method] = BOTH_METHODS
    blocked_because: str = ""
    condition: str = ""
    is_no_return: bool = False
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Barrier:
    """A version that every way from below it to above it passes, and on which nodes stay for a time."""

    component: ComponentName
    version: str
    bake_duration: timedelta


@dataclass(frozen=True, slots=True)
class Channel:
    """A moving pointer to a release."""

    component: ComponentName
    name: str
    version: str
    changed_at: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class VersionGraph:
    """All that is declared of the ways between releases."""

    edges: tuple[Edge, ...] = ()
    barriers: tuple[Barrier, ...] = ()
    channels: tuple[Channel, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one operation, stored exactly once.

    Args:
        node_class: Nodes that are alike: the value of their label ``class``; empty where they have none.
        duration: From the assignment until the node was done, or until it failed.
    """

    operation_id: OperationId
    node_id: NodeId
    component: ComponentName
    from_version: str
    to_version: str
    method: Method
    node_class: str
    is_success: bool
    is_version_fault: bool
    duration: timedelta
    at: datetime
