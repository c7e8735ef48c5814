"""The figures that are asserted and documented: what each rule finds in so many simulated rollouts.

They stand in a file; each is computed anew and has to be the same, run for run. Some take long and are computed by
`make judge-figures` alone.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controller.core import model
from controller.core.analysis import samples
from tests.controller.core.analysis import figures, peers, simulated

C = model.Comparison
GOLDEN = Path(__file__).parents[3] / "testdata" / "analysis" / "figures.json"
IS_WHOLE = os.environ.get("INSTAR_FIGURES") == "all"
SEED = 20_260_101

HARMS: Mapping[str, Mapping[str, float]] = {
    "none": {},
    "edge": dict.fromkeys(("errors", "latency", "restarts"), 1.1),  # just what is tolerated
    "double": dict.fromkeys(("errors", "latency", "restarts"), 2.0),  # just what has to be excluded before it passes
    "harm": {"errors": 4.0, "latency": 1.5},
}
TEN, FIVE, FIFTY, ONE, THREE, ALONE = (
    simulated.Nodes(*nodes) for nodes in ((10, 10), (5, 95), (50, 1000), (1, 19), (3, 5), (1, 0))
)
COMPARISONS = {
    str(TEN): C.NODES,
    str(FIVE): C.NODES,
    str(FIFTY): C.NODES,
    str(ONE): C.POOLED,
    str(THREE): C.POOLED,
    str(ALONE): C.OWN_PAST,
}
NODES = {str(nodes): nodes for nodes in (TEN, FIVE, FIFTY, ONE, THREE, ALONE)}
FLEETS = {fleet.name: fleet for fleet in simulated.FLEETS}


@dataclass(frozen=True, slots=True)
class Case:
    """So many rollouts of one kind.

    Args:
        is_quick: Whether it is computed with every run of the tests.
    """

    rule: str
    nodes: str
    fleet: str
    harm: str
    runs: int
    is_quick: bool = True

    def __str__(self) -> str:
        return f"{self.rule}, {self.nodes} nodes, {self.fleet}, {self.harm}"


def cases() -> Iterator[Case]:
    """Give all cases."""
    for fleet in FLEETS:
        for harm in ("none", "harm"):
            yield Case("judge", str(TEN), fleet, harm, 4000)
            yield Case("judge", str(FIVE), fleet, harm, 1000, is_quick=fleet == "all at once")
            yield Case("judge", str(FIFTY), fleet, harm, 200, is_quick=False)
            is_steady = fleet == "stationary"
            yield Case(
                "judge", str(ONE), fleet, harm, 4000 if is_steady and harm == "none" else 1000, is_quick=is_steady
            )
            yield Case("judge", str(THREE), fleet, harm, 1000, is_quick=False)
            yield Case("judge", str(ALONE), fleet, harm, 1000, is_quick=fleet in ("stationary", "trending"))
            yield Case("kayenta", str(TEN), fleet, harm, 500, is_quick=False)
            yield Case("threshold", str(TEN), fleet, harm, 1000, is_quick=False)
            yield Case("threshold", str(ONE), fleet, harm, 1000, is_quick=False)
        yield Case("judge", str(TEN), fleet, "edge", 4000, is_quick=fleet == "stationary")
        yield Case("judge", str(FIVE), fleet, "edge", 1000, is_quick=False)
        yield Case("judge", str(TEN), fleet, "double", 4000, is_quick=fleet == "stationary")


def measured(case: Case) -> dict[str, Any]:
    """Compute the figures of a case: of how many runs each metric was found worse, when half of them were, and more."""
    if case.rule == "judge":
        return _judged(case)
    rule = peers.kayenta if case.rule == "kayenta" else peers.threshold
    metrics = (figures.ERRORS, figures.LATENCY) if case.rule == "kayenta" else (figures.ERRORS,)
    when: dict[str, list[samples.Floats]] = {metric.name: [] for metric in metrics}
    for paths in _drawn(case, peers.MINUTES):
        for metric in metrics:
            when[metric.name].append(rule(paths, metric))
    return _told(case, {name: np.concatenate(parts) for name, parts in when.items()})


def _judged(case: Case) -> dict[str, Any]:
    comparison = COMPARISONS[case.nodes]
    when: dict[str, list[samples.Floats]] = {metric.name: [] for metric in simulated.METRICS}
    passed: dict[str, list[samples.Flags]] = {metric.name: [] for metric in simulated.METRICS}
    for paths in _drawn(case, simulated.looked_at(comparison)):
        for metric in simulated.METRICS:
            when[metric.name].append(simulated.found(paths, comparison, metric))
            passed[metric.name].append(simulated.passed(paths, comparison, metric))
    by_metric = {name: np.concatenate(parts) for name, parts in passed.items()}
    told = _told(case, {name: np.concatenate(parts) for name, parts in when.items()})
    told["passed"] = {name: int(looks.any(-1).sum()) for name, looks in by_metric.items()}
    told["promoted"] = int(np.logical_and.reduce(list(by_metric.values())).any(-1).sum())
    return told


def _drawn(case: Case, minutes: samples.Floats) -> Iterator[simulated.Paths]:
    fleet, nodes = FLEETS[case.fleet], NODES[case.nodes]
    return simulated.drawn(fleet, nodes, case.runs, SEED, HARMS[case.harm], minutes)


def _told(case: Case, when: Mapping[str, samples.Floats]) -> dict[str, Any]:
    first = np.minimum.reduce(list(when.values()))
    return {
        "runs": case.runs,
        "any": int(np.isfinite(first).sum()),
        "found": {name: int(np.isfinite(each).sum()) for name, each in when.items()},
        "median_minutes": {name: _median(each) for name, each in when.items()},
    }


def _median(when: samples.Floats) -> float | None:
    median = float(np.median(when))
    return round(median, 2) if math.isfinite(median) else None


def golden() -> dict[str, Any]:
    """Read what stands in the file."""
    found: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    return found


def write(case: Case, told: Mapping[str, Any]) -> None:
    """Put what was computed into the file."""
    rows = golden() | {str(case): told}
    order = [str(each) for each in cases() if str(each) in rows]
    GOLDEN.parent.mkdir(exist_ok=True)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(rows[name])}" for name in order)
    GOLDEN.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
