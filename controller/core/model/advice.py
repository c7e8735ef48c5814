"""What past operations teach of those that are to come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from controller.core.model.words import ComponentName, Method


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long something is expected to take.

    Args:
        median: Half of the like would be done by then.
        p95: Nineteen of twenty would.
        why: What it is made of: past outcomes, with their number, or the policy's own times.
    """

    median: timedelta
    p95: timedelta
    why: str


NOTHING_TO_DO = Estimate(timedelta(), timedelta(), "")


@dataclass(frozen=True, slots=True)
class Advice:
    """What past operations teach of one kind of change that a plan has; it decides nothing.

    Args:
        method: As it is planned; all but ``better_method`` is about this one.
        node_class: Value of the label ``class`` of the nodes; empty for those without.
        changes: Changes of the plan that are of this kind.
        chance: Expected share of operations that succeed, from 0 to 1.
        chance_low: The share is larger than this with 95 %.
        successes: Outcomes that this is taken from, as are the failures.
        version_failures: Operations that failed by the version's own fault.
        other_failures: Those that failed otherwise; they count for nothing.
        why: Which outcomes these are, and why not closer ones.
        wave_nodes: The most nodes of a wave in which less than one failure is to be expected at ``chance_low``.
        why_wave: How that follows, in a sentence.
        estimate: How long one operation takes; None where too little is known.
        better_method: Which method did better; None where neither clearly did.
        why_better: The outcomes of both methods, or that too few are known.
    """

    component: ComponentName
    from_version: str
    to_version: str
    method: Method
    node_class: str
    changes: int
    chance: float
    chance_low: float
    successes: int
    version_failures: int
    other_failures: int
    why: str
    wave_nodes: int
    why_wave: str
    estimate: Estimate | None
    better_method: Method | None
    why_better: str
