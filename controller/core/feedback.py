"""What past operations teach: how likely the next one succeeds, how long it takes, which method does better.

Theory of operation. An outcome is counted three times: for nodes of one class that go from one version to another by
one method, for all nodes that go to that version by that method, and for all changes of the component by that method.
A question is answered from the first of these that knows enough, and the answer says which it was and why not the ones
before. The chance of success has Jeffreys' prior, half a success and half a failure: without any outcome it lies
between 1 % and 99 %. What is advised from it is its lower bound, below which it lies with 5 %, so that few outcomes
advise little.

Rules kept: pure; advice never overrides a policy or an approval; only successes and faults of the version count for the
chance of success, all other failures count for nothing and are numbered; durations are those of successes, the latest
of each kind. The memory is bounded: what was told of longest ago is forgotten first. Told the same outcomes in the same
order, it is the same. Left out: where outcomes are stored, exactly once each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from rpds import HashTrieMap

from controller.core import beta, copying, model

OUTCOMES_MIN = 5  # outcomes, or durations, that a kind of change must have before it answers for itself
DURATIONS_MAX = 256  # durations that are kept of a kind: enough for a p95, and new enough to follow a change
KINDS_MAX = 2048  # kinds that are remembered; at worst, all of them with all durations, 25 MiB
_KINDS_KEPT = KINDS_MAX * 3 // 4  # once there are more, so many stay, so that forgetting is seldom
_PRIOR = 0.5  # Jeffreys
_BOUND = 0.05  # share of the chance's distribution that lies below the lower bound, and above the upper one
_WAVE_NODES_MAX = 1_000_000  # more is never advised


class Kind(NamedTuple):
    """What outcomes are counted by; ``from_version``, ``node_class`` and ``to_version`` are None where all count.

    A tuple, as what is looked up often (`model.ChangeKey`).
    """

    component: model.ComponentName
    from_version: str | None
    to_version: str | None
    method: model.Method
    node_class: str | None

    def __str__(self) -> str:
        """Name it for people."""
        way = f"to {self.to_version} " if self.to_version is not None else ""
        whence = f"from {self.from_version or 'nothing'} " if self.from_version is not None else ""
        nodes = f" on nodes of class {self.node_class}" if self.node_class else ""
        nodes = " on nodes without a class" if self.node_class == "" else nodes
        return f"{self.component} {whence}{way}by {self.method.value}{nodes}"


@dataclass(frozen=True, slots=True)
class Record:
    """What came of one kind of change.

    Args:
        version_failures: Operations that failed by the version's own fault.
        other_failures: Those that failed otherwise; they say nothing of the version.
        durations: Of the latest successes, oldest first.
        told_at: Number of the latest outcome, among all that the memory was told.
    """

    successes: int = 0
    version_failures: int = 0
    other_failures: int = 0
    durations: tuple[timedelta, ...] = ()
    told_at: int = 0

    @property
    def trials(self) -> int:
        """Outcomes that say something of the version."""
        return self.successes + self.version_failures

    def chance(self, share: float) -> float:
        """Give the chance of success below which the true one lies with this probability."""
        return beta.quantile(share, self.successes + _PRIOR, self.version_failures + _PRIOR)


@dataclass(frozen=True, slots=True)
class Memory:
    """All that is remembered; made by telling stored outcomes again, oldest first.

    Args:
        told: Outcomes that it was told.
    """

    records: HashTrieMap[Kind, Record] = field(default_factory=HashTrieMap)
    told: int = 0


@dataclass(frozen=True, slots=True)
class Expectation:
    """How long an operation takes until its node is done.

    Args:
        median: Half of them were quicker.
        p95: Nineteen of twenty were quicker.
        count: Operations that this is taken from.
        why: Which they were.
    """

    median: timedelta
    p95: timedelta
    count: int
    why: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What the past says of a change that is to come.

    Args:
        chance: Expected share of operations that succeed, from 0 to 1.
        chance_low: The share is larger than this with 95 %.
        successes: Outcomes that this is taken from, as are the failures.
        wave_nodes: The most nodes of a wave in which less than one failure is to be expected at ``chance_low``.
        expectation: How long one operation takes; None where too little is known.
        why: Which outcomes these are, and why not closer ones.
    """

    chance: float
    chance_low: float
    successes: int
    version_failures: int
    other_failures: int
    wave_nodes: int
    expectation: Expectation | None
    why: str


@dataclass(frozen=True, slots=True)
class MethodAdvice:
    """Which method did better; None where neither clearly did."""

    method: model.Method | None
    why: str


def record(memory: Memory, outcome: model.Outcome) -> Memory:
    """Remember one outcome; to be told each of them once."""
    told = memory.told + 1
    records = memory.records
    for kind in _kinds(outcome.component, outcome.from_version, outcome.to_version, outcome.method, outcome.node_class):
        records = records.insert(kind, _counted(records.get(kind, Record()), outcome, told))
    return Memory(_bounded(records), told)


def _counted(before: Record, outcome: model.Outcome, told: int) -> Record:
    if outcome.is_success:
        durations = (*before.durations[1 - DURATIONS_MAX :], outcome.duration)
        return copying.replace(before, successes=before.successes + 1, durations=durations, told_at=told)
    if outcome.is_version_fault:
        return copying.replace(before, version_failures=before.version_failures + 1, told_at=told)
    return copying.replace(before, other_failures=before.other_failures + 1, told_at=told)


def _bounded(records: HashTrieMap[Kind, Record]) -> HashTrieMap[Kind, Record]:
    if len(records) <= KINDS_MAX:
        return records
    oldest_first = sorted(records, key=lambda kind: (records[kind].told_at, str(kind)))
    for kind in oldest_first[: len(records) - _KINDS_KEPT]:
        records = records.remove(kind)
    return records


def _kinds(
    component: model.ComponentName, from_version: str, to_version: str, method: model.Method, node_class: str
) -> tuple[Kind, ...]:
    """Give what an outcome counts for, from the closest to the widest."""
    return (
        Kind(component, from_version, to_version, method, node_class),
        Kind(component, None, to_version, method, None),
        Kind(component, None, None, method, None),
    )


def expectation(
    memory: Memory,
    component: model.ComponentName,
    from_version: str,
    to_version: str,
    method: model.Method,
    node_class: str,
) -> Expectation | None:
    """Say how long a change takes; None where fewer than `OUTCOMES_MIN` successes are known of anything like it."""
    passed: list[str] = []
    for kind in _kinds(component, from_version, to_version, method, node_class):
        durations = sorted(memory.records.get(kind, Record()).durations)
        if len(durations) >= OUTCOMES_MIN:
            why = "; ".join([*passed, f"the latest {len(durations)} successes of {kind}"])
            return Expectation(_rank(durations, 50), _rank(durations, 95), len(durations), why)
        passed.append(f"{_too_few(len(durations))} of {kind}")
    return None


def _rank(ordered: list[timedelta], percent: int) -> timedelta:
    """Give the least of the values that is not below this percentage of them."""
    return ordered[-(-len(ordered) * percent // 100) - 1]


def advice(
    memory: Memory,
    component: model.ComponentName,
    from_version: str,
    to_version: str,
    method: model.Method,
    node_class: str,
) -> Advice:
    """Say what the past makes of a change; never empty: without outcomes it says how little is known."""
    kinds = _kinds(component, from_version, to_version, method, node_class)
    found, why = _first_known(memory, kinds)
    low = found.chance(_BOUND)
    return Advice(
        chance=(found.successes + _PRIOR) / (found.trials + 2 * _PRIOR),
        chance_low=low,
        successes=found.successes,
        version_failures=found.version_failures,
        other_failures=found.other_failures,
        wave_nodes=max(1, min(_WAVE_NODES_MAX, int(1 / (1 - low)))),
        expectation=expectation(memory, component, from_version, to_version, method, node_class),
        why=why,
    )


def _first_known(memory: Memory, kinds: tuple[Kind, ...]) -> tuple[Record, str]:
    """Find the closest kind that knows enough, else the widest; say which, and why not the ones before."""
    passed: list[str] = []
    found = Record()
    for kind in kinds:
        found = memory.records.get(kind, Record())
        if found.trials >= OUTCOMES_MIN:
            return found, "; ".join([*passed, _told(found, kind)])
        passed.append(f"{_too_few(found.trials)} of {kind}")
    return found, "; ".join([*passed, f"so this is little more than a guess: {_told(found, kinds[-1])}"])


def _too_few(outcomes: int) -> str:
    return f"{outcomes} where {OUTCOMES_MIN} are needed"


def _told(found: Record, kind: Kind) -> str:
    others = f", {found.other_failures} failed by no fault of the version" if found.other_failures else ""
    return f"{found.successes} of {found.trials} succeeded of {kind}{others}"


def methods(
    memory: Memory, component: model.ComponentName, from_version: str, to_version: str, node_class: str
) -> MethodAdvice:
    """Say which method did better; compared are the closest kinds of which both methods have enough outcomes.

    One did better where the lower bound of its chance lies above the upper bound of the other's.
    """
    for swap, restart in _pairs(component, from_version, to_version, node_class):
        swapped, restarted = memory.records.get(swap, Record()), memory.records.get(restart, Record())
        if min(swapped.trials, restarted.trials) >= OUTCOMES_MIN:
            why = f"{_told(swapped, swap)}; {_told(restarted, restart)}"
            return MethodAdvice(_better(swapped, restarted), why)
    return MethodAdvice(None, f"not {OUTCOMES_MIN} outcomes of each method are known of {component}")


def _pairs(
    component: model.ComponentName, from_version: str, to_version: str, node_class: str
) -> Iterator[tuple[Kind, Kind]]:
    swaps = _kinds(component, from_version, to_version, model.Method.HOT_SWAP, node_class)
    restarts = _kinds(component, from_version, to_version, model.Method.RESTART, node_class)
    return zip(swaps, restarts, strict=True)


def _better(swapped: Record, restarted: Record) -> model.Method | None:
    if swapped.chance(_BOUND) > restarted.chance(1 - _BOUND):
        return model.Method.HOT_SWAP
    if restarted.chance(_BOUND) > swapped.chance(1 - _BOUND):
        return model.Method.RESTART
    return None
