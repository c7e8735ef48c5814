"""What past operations teach of a plan: one piece of advice for each kind of change that it has.

Rules kept: it is told beside the plan and changes nothing of it: no wave, no method, no fingerprint. A kind of change
is a component, the versions before and after, the method that is planned and the class of the nodes; those that install
or upgrade are advised on, in the order of the plan. Bounded: where there are more kinds, those that fewest nodes make
are left out, and how many these are is said. Left out: what is remembered, and what follows from it (`feedback`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller.core import alike, feedback, model, progress, waves

ADVICE_MAX = 32  # kinds of change that a plan advises on: what people read, and below 64 KiB of a stored plan

_Key = tuple[model.ComponentName, str, str, model.Method, str]  # as `feedback` counts: with the class of the nodes last


@dataclass(frozen=True, slots=True)
class Advised:
    """What is told beside a plan.

    Args:
        left_out: Kinds of change that are not advised on, for there are too many.
    """

    advice: tuple[model.Advice, ...]
    left_out: int


def advise(
    memory: feedback.Memory, phases: Iterable[waves.Phase], kinds: Sequence[alike.Kind], nodes: Mapping[int, int]
) -> Advised:
    """Say what is known of the changes of a plan.

    Args:
        memory: Of past operations.
        phases: Those of the plan, in their order.
        kinds: The kinds of nodes, as the phases have them.
        nodes: How many nodes of each kind change, by its index.
    """
    counts = _counted(phases, kinds, nodes)
    told = {key for key, _ in counts.most_common(ADVICE_MAX)}
    advice = tuple(_advice(memory, key, count) for key, count in counts.items() if key in told)
    return Advised(advice, len(counts) - len(told))


def _counted(phases: Iterable[waves.Phase], kinds: Sequence[alike.Kind], nodes: Mapping[int, int]) -> Counter[_Key]:
    found = Counter[_Key]()
    for phase in phases:
        for index, move in enumerate(phase.moves):
            if move is not None and move.kind in progress.VERSIONED and nodes.get(index):
                key = (move.component, move.from_version, move.to_version, move.method, kinds[index].name)
                found[key] += nodes[index]
    return found


def _advice(memory: feedback.Memory, key: _Key, changes: int) -> model.Advice:
    component, from_version, to_version, method, node_class = key
    found = feedback.advice(memory, *key)
    best = feedback.methods(memory, component, from_version, to_version, node_class)
    return model.Advice(
        component=component,
        from_version=from_version,
        to_version=to_version,
        method=method,
        node_class=node_class,
        changes=changes,
        chance=found.chance,
        chance_low=found.chance_low,
        successes=found.successes,
        version_failures=found.version_failures,
        other_failures=found.other_failures,
        why=found.why,
        wave_nodes=found.wave_nodes,
        why_wave=_why_wave(found),
        estimate=_estimate(found.expectation),
        better_method=best.method,
        why_better=best.why,
    )


def _why_wave(found: feedback.Advice) -> str:
    low = f"where {found.chance_low:.1%} succeed"
    if found.wave_nodes == 1:
        return f"{low}, one of two may fail already"
    return f"{low}, less than one of {found.wave_nodes} is to be expected to fail"


def _estimate(found: feedback.Expectation | None) -> model.Estimate | None:
    return None if found is None else model.Estimate(found.median, found.p95, found.why)
