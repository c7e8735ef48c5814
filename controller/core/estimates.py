"""How long a rollout is expected to take, wave by wave.

Rules kept: a wave lasts as many rounds as its changes need, where as many change at the same time as the policy lets
while every node is up; each round lasts as long as the slowest kind of change of that wave's phase. What past
operations tell comes first; where nothing is known, the policy's own times count, and a constant for fetching and
starting. Left out: closed windows, freezes, nodes that are away, and attempts that fail.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from controller.core import alike, feedback, model, waves

OVERHEAD_MEDIAN = timedelta(seconds=5)  # to fetch, verify, stage, prepare and switch, where no outcome is known
OVERHEAD_P95 = timedelta(seconds=60)  # the same, on a bad day


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the operations of a phase take.

    Args:
        counts: Past operations behind it, for each kind of change; 0 where the policy's times stand for them.
    """

    median: timedelta
    p95: timedelta
    counts: frozenset[tuple[object, int]]


@dataclass(frozen=True, slots=True)
class Course:
    """How a rollout is expected to go.

    Args:
        begins: When each wave begins, after the start.
        shortest: No rollout of this plan is quicker.
        operation_p95: Time after which an operation is expected to have left its node.
    """

    begins: tuple[timedelta, ...]
    estimate: model.Estimate
    shortest: timedelta
    operation_p95: timedelta


def pace(phase: waves.Phase, kinds: Sequence[alike.Kind], policy: model.Policy, memory: feedback.Memory) -> Pace:
    """Ask what is known of the operations of a phase, and take the slowest of them."""
    asked = {
        (move.component, move.from_version, move.to_version, move.method, kind.name): move
        for move, kind in zip(phase.moves, kinds, strict=True)
        if move is not None
    }
    known = [(key, feedback.expectation(memory, *key)) for key in asked]
    least = policy.soak_duration + policy.min_healthy_duration
    return Pace(
        median=max(least + OVERHEAD_MEDIAN if each is None else each.median for _, each in known),
        p95=max(least + OVERHEAD_P95 if each is None else each.p95 for _, each in known),
        counts=frozenset((key, 0 if each is None else each.count) for key, each in known),
    )


def course(bakes: Sequence[timedelta], rounds: Sequence[int], paces: Sequence[Pace], policy: model.Policy) -> Course:
    """Add up the waves.

    Args:
        bakes: How long each wave bakes.
        rounds: In how many rounds the changes of each wave are made.
        paces: Of each wave.
        policy: Its times.
    """
    medians = [count * each.median + bake for count, each, bake in zip(rounds, paces, bakes, strict=True)]
    p95s = [count * each.p95 + bake for count, each, bake in zip(rounds, paces, bakes, strict=True)]
    least = policy.soak_duration + policy.min_healthy_duration
    begins = tuple(itertools.accumulate(medians, initial=timedelta()))
    return Course(
        begins=begins[:-1],
        estimate=model.Estimate(begins[-1], sum(p95s, start=timedelta()), _why(paces)),
        shortest=sum(rounds) * least + sum(bakes, start=timedelta()),
        operation_p95=max((each.p95 for each in paces), default=timedelta()),
    )


def _why(paces: Sequence[Pace]) -> str:
    counts = [count for _, count in frozenset[tuple[object, int]]().union(*(each.counts for each in paces))]
    return " and ".join(_sources(counts))


def _sources(counts: list[int]) -> Iterator[str]:
    if not counts:
        yield "nothing that has to be done"
    if any(counts):
        yield f"{sum(counts)} past operations"
    if not all(counts):
        yield "the times of the policy"
