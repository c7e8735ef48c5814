"""What a plan depends on, by name: the fingerprint is over it, and two plans are told apart by it.

Rules kept: a fact is a short hash, one for each selected node and one each for the request, the policy, the version
graph, the freezes and the releases. That of a node is over the labels that were looked at, what it runs of the
components concerned, what it can do, what it left for cause, whether it is cordoned or quarantined, and the releases
that it shall pass. Whether it is reachable, and what it measures, plays no part. Left out: what a plan says besides.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence

from controller.core import aims, alike, model, moves, refusals

MARK_LENGTH = 16  # hexadecimal digits of one fact
_NODE = "node "
# A fact of its own; for people; what they stand for is a release; says when it begins, not what is done.
_APART = {"policy", "name", "target_version", "also", "approval_deadline"}


def gather(
    request: model.UpgradeRequest, order: Sequence[aims.Aim], graph: model.VersionGraph, freezes: Iterable[model.Freeze]
) -> Iterator[tuple[str, str]]:
    """Give the facts that are not about nodes.

    Args:
        request: What is asked.
        order: Its aims, found among what is published.
        graph: Only what it declares of the components that change plays a part.
        freezes: Those that cover selected nodes.
    """
    changed = {each.component for each in order}
    edges = [_values(each) for each in graph.edges if each.component in changed]
    barriers = [_values(each) for each in graph.barriers if each.component in changed]
    targets = sorted([each.component, each.target.digest] for each in order if isinstance(each.target, model.Release))
    asked = [_text(getattr(request, each.name)) for each in dataclasses.fields(request) if each.name not in _APART]
    yield "freezes", _mark(sorted(_values(each) for each in freezes))
    yield "graph", _mark([edges, barriers])
    yield "policy", _mark(_values(request.policy))
    yield "releases", _mark(targets)
    yield "request", _mark(asked)


def of_nodes(
    nodes: Sequence[model.Node], indexes: Sequence[int], marks: Sequence[str], labels: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Give one fact for each node.

    Args:
        nodes: The selected ones.
        indexes: Of the kind of each.
        marks: Of each kind, as `of_kind` gives it.
        labels: Those that were looked at.
    """
    known: dict[object, str] = {}
    for node, index in zip(nodes, indexes, strict=True):
        values = map(node.labels.get, labels)
        key = (index, bool(node.cordoned_because), bool(node.quarantined_because), *values)
        mark = known.get(key)
        if mark is None:
            mark = known[key] = _mark([marks[index], *key[1:]])
        yield _NODE + node.id, mark


def of_kind(kind: alike.Kind, verdict: moves.Verdict, components: Iterable[model.ComponentName]) -> str:
    """Make the mark of nodes that are alike."""
    found = [(name, kind.node.components.get(name)) for name in components]
    parts = [
        [[name, each.digest, each.is_stopped] for name, each in found if each is not None],
        sorted(kind.node.capabilities),
        sorted(kind.node.bad_digests),
        [[each.component, each.to_digest] for each in verdict.moves],
    ]
    return _mark(parts)


def fingerprint(facts: Iterable[tuple[str, str]]) -> str:
    """Hash facts, which are in the order of their names."""
    return hashlib.sha256("\n".join(map(" ".join, facts)).encode()).hexdigest()


def differences(saved: model.Plan, now: model.Plan) -> tuple[str, ...]:
    """Say in sentences what has changed between two plans; nothing where their facts are the same."""
    before, after = dict(saved.facts), dict(now.facts)
    changed = [name for name in before.keys() & after.keys() if before[name] != after[name]]
    return (
        *(f"the {name} changed" for name in sorted(changed) if not name.startswith(_NODE)),
        *_of(changed, "changed"),
        *_of(after.keys() - before.keys(), "came in"),
        *_of(before.keys() - after.keys(), "fell out"),
    )


def _of(names: Iterable[str], what: str) -> Iterator[str]:
    ids = sorted(each.removeprefix(_NODE) for each in names if each.startswith(_NODE))
    if ids:
        yield f"{'node' if len(ids) == 1 else 'nodes'} {refusals.names(ids)} {what}"


def _values(value: object) -> list[str]:
    """List the fields of a value of the model."""
    return [_text(getattr(value, name)) for name in type(value).__slots__]  # type: ignore[attr-defined] # all have slots


def _text(value: object) -> str:
    """Write a value so that equal ones are equal."""
    if isinstance(value, frozenset):
        return str(sorted(map(_text, value)))
    if isinstance(value, tuple):
        return str([_text(each) for each in value])
    return str(_values(value) if dataclasses.is_dataclass(value) else value)


def _mark(parts: object) -> str:
    text = json.dumps(parts, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:MARK_LENGTH]
