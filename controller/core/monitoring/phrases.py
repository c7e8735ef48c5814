"""What a rule watches for, in words."""

from __future__ import annotations

from collections.abc import Mapping

from controller.core import model

K, B = model.MeasureKind, model.RuleBasis

_FIGURES: Mapping[model.MeasureKind, str] = {
    K.RATIO: "{series} for each of {per}",
    K.RATE: "{series} in a second",
    K.MEAN: "{series} for each of {per}",
    K.QUANTILE: "the {quantile} % quantile of {series}",
    K.LEVEL: "{series}",
}
_BASES: Mapping[model.RuleBasis, str] = {
    B.VALUE: "",
    B.OWN_PAST: " times what it was in the {past} before",
    B.TRENDLINE: " times what the line of the {past} before leads to",
    B.PEERS: " times the median of all nodes",
    B.TREND: " an hour of rise",
}


def condition(rule: model.Rule) -> str:
    """Say what a rule watches for: ``errors_total in a second above 0.5, over 0:05:00, until at most 0.2``."""
    measure = rule.measure
    figure = _FIGURES[measure.kind].format(series=measure.series, per=measure.per, quantile=measure.quantile_percent)
    basis = _BASES[rule.basis].format(past=rule.past)
    beyond, until = ("below", "at least") if rule.is_below else ("above", "at most")
    return f"{figure} {beyond} {rule.fire_at:g}{basis}, over {rule.window}, until {until} {rule.clear_at:g}"
