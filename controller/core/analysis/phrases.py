"""How what was found of a metric is said in a sentence.

Left out: how a whole rollout is explained (`controller.core.explain`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta

from controller.core import model

_TIMES = "\N{MULTIPLICATION SIGN}"

F = model.Finding
C = model.Comparison

FOURFOLD_PERCENT = 300  # more, which has a word of its own
_GREAT = 1e6  # factors from here on are written with a power of ten
_WHOLE = 9.95  # factors from here on have two digits before the point
_TINY = 1e-4  # p-values below are not told apart
_SMALL = 1e-3  # factors below are nothing
_MINUTES = 90  # seconds from which on a time is written in minutes

_FOUND: Mapping[model.Finding, str] = {
    F.WORSE: "worse",
    F.NO_WORSE: "no worse",
    F.EARLY: "too early to say",
    F.INCONCLUSIVE: "not shown in time to be worse or no worse",
    F.UNKNOWN: "unknown",
}
_ALL_FOUND: Mapping[model.Finding, str] = {
    F.WORSE: "worse in {names}",
    F.NO_WORSE: "no worse in {names}",
    F.EARLY: "too early to say of {names}",
    F.INCONCLUSIVE: "neither worse nor no worse in time in {names}",
    F.UNKNOWN: "nothing is known of {names}",
}


_WEAKNESS: Mapping[model.Comparison, str] = {
    C.NODES: "",
    C.POOLED: "; harmless differences between nodes may look like one",
    C.OWN_PAST: "; without enough untouched nodes, a change of load may look like harm",
    C.NONE: "",
}


def nodes(count: int, which: str) -> str:
    """Number nodes: ``10 untouched nodes``."""
    return f"{count:,} {which} node{'' if count == 1 else 's'}"


def evidence(found: model.Evidence) -> str:
    """Say what was found of one metric, and by what."""
    if found.comparison is C.NONE:
        return f"{found.metric}: no changed node has figures before and after its change: {_FOUND[found.finding]}"
    shown = "" if found.lift is None else f"{lift(found.lift)}{_bounds(found)} "
    return f"{found.metric}: {shown}on {_against(found)}: {_FOUND[found.finding]}{_p(found)}"


def judgement(finding: model.Finding, of: Sequence[model.Evidence]) -> str:
    """Say what was found over all metrics: which of them decide it."""
    names = ", ".join(each.metric for each in of if each.finding is finding) or "anything"
    return _ALL_FOUND[finding].format(names=names)


def power(
    metric: model.JudgedMetric,
    nodes: tuple[int, int],
    requests_per_minute: float | None,
    lift_percent: int,
    found_within: timedelta | None,
    comparison: model.Comparison,
) -> str:
    """Say within which time harm is found, and what weakens it.

    Args:
        metric: Where it is looked for.
        nodes: Numbers of canary and of control nodes.
        requests_per_minute: Of one node; 0 where the metric is not about requests, None where nothing is known of it.
        lift_percent: How great the harm is.
        found_within: In half of the cases; None where it is not found in time.
        comparison: How it is looked for.
    """
    if comparison is C.NONE:
        return f"{metric.name}: there is no canary, so nothing is found"
    if requests_per_minute is None:
        return f"{metric.name}: how it behaves is not known yet, so neither is how soon harm is found"
    requests = f" and {requests_per_minute:,.0f} requests a minute" if requests_per_minute else ""
    each = " each" if requests and nodes[0] > 1 else ""
    harm = _harm(lift_percent, is_lower_worse=metric.is_lower_worse)
    when = f"is found in about {span(found_within)}" if found_within else "is not found before the analysis ends"
    return f"{metric.name}: with {_canaries(nodes[0])}{requests}{each}, {harm} {when}{_WEAKNESS[comparison]}"


def span(value: timedelta) -> str:
    """Write a time in whole minutes, or seconds where it is short."""
    seconds = value.total_seconds()
    count, unit = (seconds / 60, "minute") if seconds >= _MINUTES else (seconds, "second")
    return f"{count:.0f} {unit}{'' if round(count) == 1 else 's'}"


def _canaries(count: int) -> str:
    return "1 canary" if count == 1 else f"{count:,} canaries"


def _harm(lift_percent: int, *, is_lower_worse: bool) -> str:
    factor = 1 + lift_percent / 100
    if lift_percent == FOURFOLD_PERCENT:
        return "a quarter of the rate" if is_lower_worse else "a fourfold rate"
    return f"{factor:g} times less" if is_lower_worse else f"{factor:g} times as much"


def lift(value: float) -> str:
    """Write a factor, with the sign of multiplication before it."""
    return f"{_TIMES}{_figure(value)}"


def _bounds(found: model.Evidence) -> str:
    high = "more" if found.lift_high is None else _figure(found.lift_high)
    return f" ({_figure(found.lift_low or 0.0)} to {high})"


def _against(found: model.Evidence) -> str:
    canary = nodes(found.canary_nodes, "changed")
    if found.comparison is C.OWN_PAST:
        own = "its own past" if found.canary_nodes == 1 else "their own pasts"
        return f"{canary} against {own} alone, where a change of load may look like harm"
    each = "each against its own past"
    return f"{canary} against {nodes(found.control_nodes, 'untouched')}, {each}"


def _p(found: model.Evidence) -> str:
    if found.p is None:
        return ""
    return f" (p {'under 0.0001' if found.p < _TINY else f'{found.p:.1g}'} of {found.alpha:.1g})"


def _figure(value: float) -> str:
    """Write a factor with two digits, whole where it is great."""
    if value >= _GREAT:
        return f"{value:.0e}"
    if value >= _WHOLE:
        return f"{value:,.0f}"
    if value < _SMALL:
        return "0"
    return f"{value:.{1 - math.floor(math.log10(value))}f}"
