"""Rules of the performance monitor, as the controller's configuration file says them.

Rules kept: whatever breaks a rule is refused by the name of its key, so that no rule of the file watches for nothing.
Left out: what rules do (`controller.core.monitoring`), and whether the nodes report the series, which only time tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TypeVar

from controller.config import fields
from controller.core import model

RULES_MAX = 32  # a look at 10,000 nodes takes some 20 ms for each, 45 ms for a trend
INTERVAL_DEFAULT = timedelta(seconds=10)
INTERVAL_MIN = timedelta(milliseconds=100)
INTERVAL_MAX = timedelta(minutes=5)  # above it a gate hears of a rule too late
WINDOW_MAX = timedelta(hours=1)
PAST_MAX = timedelta(hours=3)  # with the window, less than what is kept in memory
LINE_PAST_MIN = timedelta(seconds=20)  # of a trendline: of quick heartbeats fifteen pieces with a few each
LOOKS_PER_WINDOW_MIN = 3  # a look vouches for its window: so many that one or two may be late
DURATION_MAX = timedelta(days=1)  # of what has to hold, or to be over
SERIES_CHARS_MAX = 200  # of a series; Prometheus names are shorter
EXPOSURE_MAX = 1e12  # events, seconds or readings
_SERIES = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:.]*(\{[^{}\n]*\})?")
_PER = frozenset({model.MeasureKind.RATIO, model.MeasureKind.MEAN})
_B = model.RuleBasis

Word = TypeVar("Word", bound=Enum)


@dataclass(frozen=True, slots=True)
class Monitoring:
    """What is watched for, and how often it is looked."""

    rules: tuple[model.Rule, ...] = ()
    interval: timedelta = INTERVAL_DEFAULT


NOTHING = Monitoring()


def read(found: object) -> Monitoring:
    """Read the table ``monitor`` of a configuration file.

    Raises:
        InvalidRequestError: A key is unknown, a value breaks its rule, or two rules have one name.
    """
    table = fields.Table("monitor", found)
    interval = table.duration("interval", INTERVAL_DEFAULT, INTERVAL_MIN, INTERVAL_MAX)
    tables = table.tables("rules")
    table.end()
    if len(tables) > RULES_MAX:
        fields.refuse("monitor.rules", len(tables), f"at most {RULES_MAX} rules")
    rules = tuple(_rule(each, interval) for each in tables)
    names = [each.name for each in rules]
    for name in names:
        if names.count(name) > 1:
            fields.refuse("monitor.rules.name", name, "there once")
    return Monitoring(rules, interval)


def _rule(table: fields.Table, interval: timedelta) -> model.Rule:
    is_below = table.has("below")
    fire_at = table.number("below" if is_below else "above")
    measure = _measure(table.table("measure"))
    rule = model.Rule(
        name=table.name("name"),
        component=model.ComponentName(table.name("component")),
        measure=measure,
        fire_at=fire_at,
        clear_at=table.number("clear", fire_at),
        scope=_word(table, "scope", model.RuleScope.NODE),
        basis=_word(table, "basis", _B.VALUE),
        is_below=is_below,
        window=table.duration("window", timedelta(minutes=5), LOOKS_PER_WINDOW_MIN * interval, WINDOW_MAX),
        past=table.duration("past", timedelta(hours=1), LOOKS_PER_WINDOW_MIN * interval, PAST_MAX),
        pending_for=table.duration("for", timedelta(minutes=1), timedelta(), DURATION_MAX),
        keep_firing_for=table.duration("keep_firing_for", timedelta(), timedelta(), DURATION_MAX),
        least_exposure=table.number("least", 1.0),
        least_percent=table.whole("least_percent", 50, 1, 100),
    )
    table.end()
    for name, value, text in _contradictions(rule):
        fields.refuse(table.key(name), value, text)
    return rule


def _contradictions(rule: model.Rule) -> Iterator[tuple[str, object, str]]:
    if (rule.clear_at < rule.fire_at) if rule.is_below else (rule.clear_at > rule.fire_at):
        yield "clear", rule.clear_at, f"{'no lower' if rule.is_below else 'no higher'} than {rule.fire_at}"
    if rule.basis is _B.PEERS and rule.scope is model.RuleScope.FLEET:
        yield "basis", rule.basis.value.lower(), "another one: the fleet has no peers"
    if rule.basis is _B.TRENDLINE and rule.past < LINE_PAST_MIN:
        yield "past", rule.past, f"at least {LINE_PAST_MIN}: a line is laid through its pieces"
    if rule.basis in (_B.OWN_PAST, _B.PEERS, _B.TRENDLINE) and rule.fire_at <= 0:
        yield "below" if rule.is_below else "above", rule.fire_at, "above 0: it is compared with a ratio"
    if not 0 < rule.least_exposure <= EXPOSURE_MAX:
        yield "least", rule.least_exposure, f"above 0 and at most {EXPOSURE_MAX:g}"


def _word(table: fields.Table, name: str, default: Word) -> Word:
    """Read a member of an enumeration, in either case."""
    kinds = type(default).__members__
    text = table.text(name, default.name)
    if text.upper() not in kinds:
        fields.refuse(table.key(name), text, f"one of {', '.join(kinds).lower()}")
    return type(default)[text.upper()]


def _measure(table: fields.Table) -> model.Measure:
    if not table.has("kind"):
        fields.refuse(table.key("kind"), "", "given")
    kind = _word(table, "kind", model.MeasureKind.LEVEL)
    series = _series(table, "series")
    per = _series(table, "per") if kind in _PER else ""
    quantile = table.whole("quantile", 99, 1, 99) if kind is model.MeasureKind.QUANTILE else 99
    table.end()
    return model.Measure(kind, series, per, quantile)


def _series(table: fields.Table, name: str) -> str:
    series = table.text(name)
    if len(series) > SERIES_CHARS_MAX or not _SERIES.fullmatch(series):
        fields.refuse(table.key(name), series, f"the name of a series, at most {SERIES_CHARS_MAX} characters long")
    return series
