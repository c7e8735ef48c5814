"""Questions to a Prometheus server: the usual one for each measure, and those of users, with values put in.

Theory of operation. Every question gives, at each point in time, one value for each node over the step that ends
there: events or amounts for RATIO, RATE and MEAN, the figure itself for QUANTILE and LEVEL. The usual questions count
by the difference of a counter to itself one step before, so that steps add up to exactly what was counted:
``increase()`` would leave out what lies between two windows and make up for it by extrapolation, which is no count any
more. A counter that is lower than one step before began anew, and counts from zero; so does one that appears beside
another of its node.

Rules kept: a value is put in only inside a quoted string, escaped for its quotes and, behind ``=~`` and ``!~``, for the
regular expression too; so none can break out of it. What the controller itself makes (step, label, selector) goes
outside of strings only. Left out: asking (`prometheus`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from controller.config import sources
from controller.core import errors, model

QUERY_CHARS_MAX = 4096  # a long one has some hundreds
_VALUES = ("rollout", "version", "component")
_BARE = ("step", "node_label", "selector")
_TOKENS = re.compile(
    r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`|\#[^\n]*|\{\{\s*\w*\s*\}\}|["'`]|[^"'`#{]+|\{""", re.DOTALL
)
_PLACE = re.compile(r"\{\{\s*(\w*)\s*\}\}")
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")
_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]{0,255}"
_MATCHER = r"""[a-zA-Z_][a-zA-Z0-9_]*\s*(?:=~|!~|!=|=)\s*"(?:[^"\\\n]|\\.)*\""""
_SERIES = re.compile(rf"({_NAME})(?:\{{\s*((?:{_MATCHER}\s*(?:,\s*|(?=\}})))*)\}})?")
_BUCKET = "_bucket"
_COUNT = "_count"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom the questions are about: what ``{{rollout}}``, ``{{version}}`` and ``{{component}}`` stand for.

    Args:
        version: The version that the rollout leads to.
    """

    rollout: model.RolloutId
    component: model.ComponentName
    version: str


@dataclass(frozen=True, slots=True)
class Pair:
    """The questions of one measure.

    Args:
        value: For what was counted, or for the figure.
        exposure: For what it was counted or made over; empty where steps are counted.
    """

    value: str
    exposure: str


def check(measure: model.Measure) -> None:
    """Refuse a measure that no question can be made of.

    Raises:
        InvalidRequestError: A name is no series, or a query has a placeholder that is unknown or stands where no value
            may be put in.
    """
    pair(
        measure, Subject(model.RolloutId(""), model.ComponentName(""), ""), sources.Server("", ""), timedelta(seconds=1)
    )


def pair(measure: model.Measure, subject: Subject, server: sources.Server, step: timedelta) -> Pair:
    """Give the questions of a measure.

    Raises:
        InvalidRequestError: As with ``check``; ``selector`` is the one of the server's configuration.
    """
    values = dict(zip(_VALUES, (subject.rollout, subject.version, subject.component), strict=True))
    bare = {"step": f"{round(step.total_seconds() * 1000)}ms", "node_label": server.node_label}
    bare["selector"] = _expand("selector", server.selector, values, {})
    value = _expand("query", measure.query or _value(measure), values, bare)
    return Pair(value, _expand("per_query", measure.per_query or _exposure(measure), values, bare))


def _value(measure: model.Measure) -> str:
    kind, series = measure.kind, _Series.read("series", measure.series)
    if kind is model.MeasureKind.LEVEL:
        return f"sum by ({{{{node_label}}}}) (avg_over_time({series.text()}[{{{{step}}}}]))"
    if kind is model.MeasureKind.QUANTILE:
        buckets = series.with_suffix(_BUCKET)
        counts = f"sum by ({{{{node_label}}}}, le) ({_growth(buckets, buckets)})"
        return f"histogram_quantile({measure.quantile_percent / 100}, {counts})"
    beside = series if kind is model.MeasureKind.RATE or not measure.per else _Series.read("per", measure.per)
    return f"sum by ({{{{node_label}}}}) ({_growth(series, beside)})"


def _exposure(measure: model.Measure) -> str:
    kind = measure.kind
    if kind in (model.MeasureKind.RATE, model.MeasureKind.LEVEL):
        return ""
    if kind is model.MeasureKind.QUANTILE:
        if measure.query:
            return ""
        per = _Series.read("series", measure.series).with_suffix(_COUNT)
    else:
        per = _Series.read("per", measure.per)
    return f"sum by ({{{{node_label}}}}) ({_growth(per, per)})"


def _growth(series: _Series, beside: _Series) -> str:
    """Say how much counters grew within one step; one that appears counts from zero where ``beside`` was there."""
    now, before, witness = series.text(), series.text("{{step}}"), beside.text("{{step}}")
    grown = f"{now} - {before} >= 0"
    again = f"{now} < {before}"
    new = f"({now} unless {before}) and on ({{{{node_label}}}}) {witness}"
    return f"{grown} or {again} or {new}"


@dataclass(frozen=True, slots=True)
class _Series:
    name: str
    matchers: str

    @classmethod
    def read(cls, field: str, text: str) -> _Series:
        found = _SERIES.fullmatch(text.strip())
        if found is None:
            raise _invalid(field, text, 'the name of a series, also with matchers such as {code="500"}')
        return cls(found[1], (found[2] or "").strip().rstrip(","))

    def with_suffix(self, suffix: str) -> _Series:
        return _Series(self.name.removesuffix(suffix) + suffix, self.matchers)

    def text(self, offset: str = "") -> str:
        inner = ", ".join(each for each in (self.matchers, "{{selector}}") if each)
        return f"{self.name}{{{inner}}}" + (f" offset {offset}" if offset else "")


def _expand(field: str, template: str, values: Mapping[str, str], bare: Mapping[str, str]) -> str:
    """Put values into a template, each escaped for where it stands."""
    if len(template) > QUERY_CHARS_MAX:
        raise _invalid(field, template[:QUERY_CHARS_MAX], f"at most {QUERY_CHARS_MAX} characters long")
    done: list[str] = []
    for found in _TOKENS.finditer(template):
        token = found[0]
        if token in ("'", '"', "`"):
            raise _invalid(field, template, "a query whose quotes are closed")
        if len(token) > 1 and token[0] in "'\"`":
            is_pattern = "".join(done).rstrip().endswith(("=~", "!~"))
            done.append(_expand_string(field, token, values, is_pattern=is_pattern))
        elif place := _PLACE.fullmatch(token):
            done.append(_known(field, place[1], bare, "outside of a quoted string"))
        else:
            done.append(token)
    return "".join(done)


def _expand_string(field: str, token: str, values: Mapping[str, str], *, is_pattern: bool) -> str:
    quote = token[0]

    def put(place: re.Match[str]) -> str:
        value = _known(field, place[1], values, "inside a quoted string")
        value = _META.sub(lambda meta: "\\" + meta[0], value) if is_pattern else value
        if quote == "`":
            return value if "`" not in value else _refuse_value(field, value)
        return value.replace("\\", "\\\\").replace(quote, "\\" + quote).replace("\n", "\\n")

    return _PLACE.sub(put, token)


def _refuse_value(field: str, value: str) -> str:
    raise _invalid(field, value, "a value without `, since it stands between two of them")


def _known(field: str, name: str, known: Mapping[str, str], where: str) -> str:
    if name not in known:
        names = ", ".join(f"{{{{{each}}}}}" for each in known)
        raise _invalid(field, f"{{{{{name}}}}}", f"one of {names} {where}" if names else f"absent {where}")
    return known[name]


def _invalid(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot ask for {field} {value!r}: it must be {rule}",
        code="query_invalid",
        field=field,
        value=value,
        rule=rule,
    )
