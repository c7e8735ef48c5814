"""Limits of a policy that could never be met, or never be broken, by this plan.

Rules kept: a limit that cannot do what it is there for is an error of whoever set it, and is said before anything
moves. Two of them leave nothing that could be done, and refuse at every level; the others are warnings where the
request is PERMISSIVE. Left out: what is wrong with a policy for any fleet (`requests`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from controller.core import capacity, errors, estimates, model, windows

WAVES_MAX = 10_000  # a rollout of more could not be read by anybody, and would bake for weeks


@dataclass(frozen=True, slots=True)
class Finding:
    """A limit that means nothing.

    Args:
        is_final: Nothing could ever be done.
    """

    code: str
    field: str
    value: object
    why: str
    rule: str
    is_final: bool = False

    @property
    def message(self) -> str:
        """One sentence without its beginning."""
        return f"{self.field} {self.value}: {self.why}"

    def error(self) -> errors.RefusedError:
        """Make the error that names the field."""
        return errors.RefusedError(
            f"cannot plan with {self.message}", code=self.code, field=self.field, value=str(self.value), rule=self.rule
        )


def find(
    request: model.UpgradeRequest,
    loads: Sequence[capacity.Load],
    population: capacity.Population,
    course: estimates.Course,
    at: datetime,
) -> Iterator[Finding]:
    """Find them; nothing where nothing changes."""
    if not loads:
        return
    yield from _of_floor(request.policy, population)
    yield from _of_windows(request.policy, course, at)
    yield from _of_failures(request.policy, sum(each.changes for each in loads))
    yield from _of_deadline(request.policy, course)
    if len(loads) > WAVES_MAX:
        yield Finding(
            "too_many_waves",
            "strategy",
            request.strategy.value,
            f"it would make {len(loads)} waves",
            f"a rollout has at most {WAVES_MAX} waves",
            is_final=True,
        )


def _of_floor(policy: model.Policy, population: capacity.Population) -> Iterator[Finding]:
    floor = capacity.floor(policy, population.total)
    if floor >= population.total:
        yield Finding(
            "floor_unreachable",
            "policy.floor_percent",
            policy.floor_percent,
            f"{floor} of {population.total} nodes must stay available, so that none can change",
            "the floor must leave at least one node to change",
            is_final=True,
        )


def _of_windows(policy: model.Policy, course: estimates.Course, at: datetime) -> Iterator[Finding]:
    if not policy.windows:
        return
    opens = windows.opens_at(policy.windows, at)
    if opens is None or (policy.deadline is not None and opens >= at + policy.deadline):
        yield Finding(
            "window_never_opens",
            "policy.windows",
            len(policy.windows),
            f"none of them opens before the deadline of {policy.deadline} has passed",
            "a window must open before policy.deadline",
            is_final=True,
        )
    longest = windows.longest(policy.windows, at)
    if longest is not None and longest < course.operation_p95:
        yield Finding(
            "threshold_unreachable",
            "policy.windows",
            len(policy.windows),
            f"the longest is open for {longest}, and an operation takes up to {course.operation_p95}",
            "an operation must be expected to end in the window in which it starts",
        )


def _of_failures(policy: model.Policy, changes: int) -> Iterator[Finding]:
    if policy.max_failures >= changes:
        yield Finding(
            "threshold_unreachable",
            "policy.max_failures",
            policy.max_failures,
            f"{changes} changes are planned, so that no failure could ever revert them",
            "it must be less than the number of changes",
        )


def _of_deadline(policy: model.Policy, course: estimates.Course) -> Iterator[Finding]:
    if policy.deadline is not None and policy.deadline < course.shortest:
        yield Finding(
            "threshold_unreachable",
            "policy.deadline",
            policy.deadline,
            f"the waves, their soaking, their proof of health and their bakes take at least {course.shortest}",
            "it must be longer than the rollout takes where everything goes well",
        )
