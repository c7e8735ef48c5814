"""Capacity: how many nodes may be unavailable at the same time, and how many stay available over the waves.

Rules kept: a node under change counts as unavailable, whatever the method. The floor is a share of the nodes that have
one of the components or will get it, rounded up; of one failure domain at most so many nodes are unavailable. Nodes
that are down now are said, but are no reason to refuse: they may be up when their turn comes. Left out: who may start
now (`dispatch`); this says only what the policy lets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from controller.core import model

PERCENT_MAX = 100


@dataclass(frozen=True, slots=True)
class Population:
    """The nodes that count.

    Args:
        total: Nodes that have one of the components, or will.
        down: Those of them that are unavailable now, with their domains.
    """

    total: int
    down: Mapping[model.NodeId, str]


def floor(policy: model.Policy, total: int) -> int:
    """Give the number of nodes that must stay available."""
    return -(-total * policy.floor_percent // PERCENT_MAX)


@dataclass(frozen=True, slots=True)
class Load:
    """What a wave asks for.

    Args:
        changes: Number of its changes.
        down: Number of those whose node is unavailable now.
        domains: Changes by failure domain; empty where the policy names none.
    """

    changes: int
    down: int
    domains: Mapping[str, int]


def load(ids: Sequence[model.NodeId], domains: Sequence[str], policy: model.Policy, population: Population) -> Load:
    """Count what a wave asks for.

    Args:
        ids: The nodes that it changes.
        domains: Failure domain of each.
        policy: It names failure domains, or none.
        population: The nodes that count.
    """
    down = len(population.down.keys() & set(ids)) if population.down else 0
    return Load(len(ids), down, Counter(domains if policy.domain_label else ()))


def parallel(load: Load, policy: model.Policy, population: Population, *, counts_down: bool) -> int:
    """Say how many nodes of a wave may change at the same time.

    Args:
        load: What the wave asks for.
        policy: Its limits.
        population: The nodes that count.
        counts_down: True for what may be now, False for what may be where every node is up.
    """
    down = population.down if counts_down else {}
    limits = [load.changes - (load.down if counts_down else 0)]
    if policy.max_parallel:
        limits.append(policy.max_parallel)
    if policy.floor_percent:
        limits.append(population.total - floor(policy, population.total) - len(down))
    if policy.domain_label:
        limits.append(_over_domains(load.domains, policy.domain_max_parallel, Counter(down.values())))
    return max(min(limits), 0)


def rounds(load: Load, policy: model.Policy, population: Population) -> int:
    """Say in how many rounds a wave is done, where every node is up."""
    return -(-load.changes // max(parallel(load, policy, population, counts_down=False), 1))


def _over_domains(domains: Mapping[str, int], most: int, down: Mapping[str, int]) -> int:
    return sum(max(min(count, most - down.get(domain, 0)), 0) for domain, count in domains.items())


def trace(
    loads: Sequence[Load], begins: Iterable[timedelta], policy: model.Policy, population: Population
) -> tuple[model.CapacityPoint, ...]:
    """Say how many nodes stay available at the worst moment of each wave.

    Args:
        loads: What each wave asks for.
        begins: When each is expected to begin, after the start.
        policy: Its limits.
        population: The nodes that count.
    """
    up = population.total - len(population.down)
    return tuple(
        model.CapacityPoint(number, after, up - parallel(each, policy, population, counts_down=True), population.total)
        for number, (each, after) in enumerate(zip(loads, begins, strict=True), start=1)
    )
