"""Waves: in which groups, and in which order, nodes change.

Rules kept: the order is shuffled by what is asked, so that no node is always the first, and then dealt out over the
failure domains, so that a wave spreads. The changes that lead to one version of one component are a phase, and the
phases follow each other: the hops of a component in the order of its versions, and what others require before them.
The waves of the strategy divide each phase: IMMEDIATE and BLUE_GREEN have one, ROLLING has batches, GRADUAL grows by
percentages, rounded up, and CANARY puts few nodes first; where a phase has no more nodes than its canary, they are the
canary. Every wave but the last bakes as long as the policy says; one that ends a hop to a barrier, at least as long as
the barrier says. Left out: how many nodes of a wave change at the same time (`capacity`).
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import assert_never

from controller.core import aims, dependencies, model, moves, requests, versions


@dataclass(frozen=True, slots=True)
class Members:
    """Nodes that change, in their order; what is known of them is in columns, since there may be very many.

    Args:
        kinds: Index of what each is alike to.
        domains: Failure domain of each.
    """

    ids: Sequence[model.NodeId]
    kinds: Sequence[int]
    domains: Sequence[str]

    def take(self, places: Sequence[int]) -> Members:
        """Take some of them, in this order."""
        return Members(
            ids=list(map(self.ids.__getitem__, places)),
            kinds=list(map(self.kinds.__getitem__, places)),
            domains=list(map(self.domains.__getitem__, places)),
        )

    def cut(self, first: int, last: int) -> Members:
        """Take those from one place up to another."""
        return Members(self.ids[first:last], self.kinds[first:last], self.domains[first:last])


@dataclass(frozen=True, slots=True)
class Phase:
    """The changes that lead to one version of one component.

    Args:
        moves: By the index of the kind of node; None for kinds that it leaves alone.
        bake_duration: Of the barrier that it leads to; None where it leads to none.
        why: What it is, for people.
    """

    moves: tuple[moves.Move | None, ...]
    bake_duration: timedelta | None
    why: str


def phases(order: Sequence[aims.Aim], verdicts: Sequence[moves.Verdict]) -> tuple[Phase, ...]:
    """Put what becomes of all kinds of nodes into phases.

    Args:
        order: The aims, in their order.
        verdicts: By the index of the kind of node.
    """
    return tuple(phase for aim in order for phase in _phases_of(aim, order, verdicts))


def _phases_of(aim: aims.Aim, order: Sequence[aims.Aim], verdicts: Sequence[moves.Verdict]) -> Iterator[Phase]:
    by_version: dict[str, dict[int, moves.Move]] = defaultdict(dict)
    for kind, verdict in enumerate(verdicts):
        for move in verdict.moves:
            if move.component == aim.component:
                by_version["" if isinstance(aim.target, model.ChangeKind) else move.to_version][kind] = move
    for version in _in_turn(by_version, aim.version):
        found = by_version[version]
        bakes = [each.bake_duration for each in found.values() if each.bake_duration is not None]
        places = tuple(found.get(kind) for kind in range(len(verdicts)))
        yield Phase(places, max(bakes, default=None), _why(version, aim, order, is_barrier=bool(bakes)))


def _in_turn(found: Iterable[str], target: str) -> list[str]:
    """Put the versions of one component in turn: hops up, then hops down, and the target at last."""
    hops = sorted((each for each in found if each != target), key=versions.order)
    up = [each for each in hops if versions.is_lower(each, target)]
    return [*up, *reversed(hops[len(up) :]), *(each for each in found if each == target)]


def _why(version: str, aim: aims.Aim, order: Sequence[aims.Aim], *, is_barrier: bool) -> str:
    if version != aim.version:
        return f"hop over {aim.component} {version}{', a barrier' if is_barrier else ''}"
    users = [each.name for each in order if dependencies.requires(each, aim)]
    return f"{aim.name}, required by {' and '.join(users)}" if users else ""


def shuffled(members: Members, seed: str) -> Members:
    """Shuffle nodes by what is asked, and deal them out over their domains, one of each in turn."""
    keys = [hashlib.sha256(f"{seed} {each}".encode()).digest() for each in members.ids]
    turns: dict[str, Iterator[int]] = defaultdict(itertools.count)
    ranks = [0] * len(keys)
    mixed = sorted(range(len(keys)), key=keys.__getitem__)
    for place in mixed:
        ranks[place] = next(turns[members.domains[place]])
    return members.take(sorted(mixed, key=ranks.__getitem__))


@dataclass(frozen=True, slots=True)
class Part:
    """A wave, the phase that it is of, and the nodes that it changes: the same ones where phases are divided alike."""

    wave: model.Wave
    phase: Phase
    members: Members


def build(request: model.UpgradeRequest, stages: Sequence[Phase], members: Members) -> tuple[Part, ...]:
    """Make the waves of a request.

    Args:
        request: Its strategy divides each phase.
        stages: The phases, in their order.
        members: The nodes that change, in their order.
    """
    patterns: dict[tuple[bool, ...], list[Phase]] = defaultdict(list)
    for stage in stages:
        patterns[tuple(each is not None for each in stage.moves)].append(stage)
    divided = {
        id(stage): parts
        for pattern, alike in patterns.items()
        for stage, parts in zip(alike, _divided(request, alike, _moved(members, pattern)), strict=True)
    }
    made = [part for stage in stages for part in divided[id(stage)]]
    ends = [each.wave.bake_duration for each in made[:-1]] + [timedelta()] * bool(made)
    return tuple(
        replace(part, wave=replace(part.wave, index=index, bake_duration=end))
        for index, (part, end) in enumerate(zip(made, ends, strict=True), start=1)
    )


def _moved(members: Members, pattern: Sequence[bool]) -> Members:
    """Take the nodes whose kinds change."""
    if all(pattern):
        return members
    return members.take([place for place, kind in enumerate(members.kinds) if pattern[kind]])


def _divided(request: model.UpgradeRequest, stages: Sequence[Phase], members: Members) -> Iterator[tuple[Part, ...]]:
    """Divide phases that change the same nodes by the waves of the strategy; the waves get their numbers later."""
    bounds = list(itertools.pairwise(itertools.accumulate(sizes(request, len(members.ids)), initial=0)))
    cuts = [members.cut(first, last) for first, last in bounds]
    for stage, changes in zip(stages, _changes(stages, members), strict=True):
        groups = [tuple(changes[first:last]) for first, last in bounds]
        yield tuple(_parts(request, stage, cuts, groups))


def _parts(
    request: model.UpgradeRequest,
    stage: Phase,
    cuts: Sequence[Members],
    groups: Sequence[tuple[model.Change, ...]],
) -> Iterator[Part]:
    for number, (members, changes) in enumerate(zip(cuts, groups, strict=True), start=1):
        is_canary = request.strategy is model.Strategy.CANARY and number == 1
        bakes = [request.policy.bake_duration]
        if stage.bake_duration is not None and number == len(cuts):
            bakes.append(stage.bake_duration)
        why = ", ".join(filter(None, ("the canary" if is_canary else "", stage.why)))
        yield Part(model.Wave(0, is_canary, changes, max(bakes), why), stage, members)


_CHUNK = 512  # changes of a phase that are filled together: as many stay in the cache of a processor
_PUT = {name: vars(model.Change)[name].__set__ for name in model.Change.__slots__}


def _changes(stages: Sequence[Phase], members: Members) -> list[list[model.Change]]:
    """Make the changes of some nodes, field by field: half a million of them take a third of the time that way."""
    made: list[list[model.Change]] = [[] for _ in stages]
    columns = [[(put, iter(_column(name, each, members))) for name, put in _PUT.items()] for each in stages]
    for first in range(0, len(members.ids), _CHUNK):
        count = min(_CHUNK, len(members.ids) - first)
        for changes, fields in zip(made, columns, strict=True):
            chunk = list(map(object.__new__, itertools.repeat(model.Change, count)))
            for put, values in fields:
                deque(map(put, chunk, values), maxlen=0)
            changes.extend(chunk)
    return made


def _column(name: str, stage: Phase, members: Members) -> Iterable[object]:
    """Give the values of one field of the changes of some nodes."""
    if name == "node_id":
        return members.ids
    if name == "domain":
        return members.domains
    by_kind = [getattr(each, name, None) for each in stage.moves]
    distinct = {each for each, move in zip(by_kind, stage.moves, strict=True) if move is not None}
    return itertools.repeat(*distinct) if len(distinct) == 1 else map(by_kind.__getitem__, members.kinds)


def sizes(request: model.UpgradeRequest, count: int) -> tuple[int, ...]:
    """Say how many changes each wave of a phase has.

    Args:
        request: Its strategy and parameters.
        count: Changes of the phase.
    """
    match request.strategy:
        case model.Strategy.IMMEDIATE | model.Strategy.BLUE_GREEN:
            ends = [count]
        case model.Strategy.CANARY:
            ends = [min(requests.canary_nodes(request), count), count]
        case model.Strategy.ROLLING:
            ends = [*range(0, count, requests.batch_nodes(request)), count]
        case model.Strategy.GRADUAL:
            ends = [-(-count * percent // requests.PERCENT_MAX) for percent in requests.percents(request)]
        case _:
            assert_never(request.strategy)
    found = (last - first for first, last in itertools.pairwise([0, *ends]))
    return tuple(size for size in found if size > 0)
