"""Reads named series out of Prometheus text.

Rules kept here: a text that is longer than any sane one is not read at all, since sums over a part of it would be
wrong; what is no number, or not finite, is absent and never zero; a histogram is what its buckets, sum and count say,
in so many buckets and no more.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.core import model
from agent.probes import http

LINES_MAX = 2_000  # a body of 64 KiB has fewer, at 33 bytes a line
BUCKETS_MAX = 30  # of one histogram; of more, so many spread evenly, which say the same more coarsely
COUNTER_SUFFIXES = ("_total", "_count", "_sum", "_bucket")  # of names whose kind is not said
SAMPLE = re.compile(
    r"(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)"
    r'(?P<labels>\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?'
    r"\s+(?P<value>\S+)(?:\s+-?\d+)?"
)
BOUND = re.compile(r'[{,]\s*le="(?P<bound>[^"]*)"')
_TYPE = re.compile(r"#\s+TYPE\s+(?P<name>\S+)\s+(?P<kind>\S+)\s*")


@dataclass(frozen=True, slots=True)
class Reading:
    """One series as it was read."""

    name: str
    value: float
    kind: model.SeriesKind


def read(text: str, series: Iterable[str]) -> tuple[Reading, ...]:
    """Take named series from Prometheus text, by name.

    A name without labels stands for the sum over all its labels; a name with labels, written as the component writes
    it, for that one alone. A histogram stands for its buckets, each summed over the other labels, its sum and its
    count; a summary for the last two. A counter whose type stands there without a single sample has counted nothing
    yet. What is no number, or not finite, is absent.

    Raises:
        ProbeError: The text has too many lines.
    """
    lines = text.splitlines()
    if len(lines) > LINES_MAX:
        raise http.ProbeError(f"cannot read the series: {len(lines)} lines are more than {LINES_MAX}")
    scrape = _Scrape(frozenset(series))
    for line in lines:
        if line.startswith("#"):
            scrape.take_type(line)
        elif line:
            scrape.take(line.strip())
    return tuple(sorted(scrape.readings(), key=lambda reading: reading.name))


@dataclass(slots=True)
class _Scrape:
    """What was read so far.

    Args:
        wanted: Names as the manifest has them.
        kinds: What the text says of names that are wanted.
        parts: Names of samples that belong to wanted histograms and summaries, each with what it is reported as.
        values: Sums by the name that they are reported under.
        seen: Names of samples that stood there, whatever their value.
    """

    wanted: frozenset[str]
    kinds: dict[str, str] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)
    values: dict[str, float] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def take_type(self, line: str) -> None:
        """Take a comment; one that says what a wanted name is, is kept."""
        match = _TYPE.fullmatch(line)
        if match is None or match["name"] not in self.wanted:
            return
        name, kind = match["name"], match["kind"]
        self.kinds[name] = kind
        if kind in {"histogram", "summary"}:
            self.parts |= {f"{name}_sum", f"{name}_count"}
        if kind == "histogram":
            self.parts.add(f"{name}_bucket")

    def take(self, line: str) -> None:
        """Take a sample."""
        match = SAMPLE.fullmatch(line)
        if match is None:
            return
        name, labels = match["name"], match["labels"] or ""
        self.seen.add(name)
        value = _number(match["value"])
        if value is None:
            return
        for told in {name, name + labels} & self.wanted:
            if self.kinds.get(told) not in {"histogram", "summary"}:
                self._add(told, value)
        if name in self.parts:
            self._add_part(name, labels, value)

    def _add_part(self, name: str, labels: str, value: float) -> None:
        if not name.endswith("_bucket"):
            self._add(name, value)
            return
        match = BOUND.search(labels)
        if match is not None and _bound(match["bound"]) is not None:
            self._add(f'{name}{{le="{match["bound"]}"}}', value)

    def _add(self, name: str, value: float) -> None:
        self.values[name] = self.values.get(name, 0.0) + value

    def readings(self) -> Iterable[Reading]:
        """Return what was found, of each histogram not too many buckets."""
        for name in self.wanted:
            if self.kinds.get(name) == "counter" and name not in self.seen:
                yield Reading(name, 0.0, model.SeriesKind.COUNTER)
        dropped = {name for family in self.wanted for name in self._too_many(family)}
        for name, value in self.values.items():
            if name not in dropped and math.isfinite(value):
                yield Reading(name, value, self._kind(name))

    def _too_many(self, family: str) -> Iterable[str]:
        prefix = f'{family}_bucket{{le="'
        names = [name for name in self.values if name.startswith(prefix)] if f"{family}_bucket" in self.parts else []
        if len(names) <= BUCKETS_MAX:
            return ()
        names.sort(key=lambda name: float(name.removeprefix(prefix).removesuffix('"}')))
        step = (len(names) - 1) / (BUCKETS_MAX - 1)
        kept = {names[round(number * step)] for number in range(BUCKETS_MAX)}
        return (name for name in names if name not in kept)

    def _kind(self, name: str) -> model.SeriesKind:
        bare = name.partition("{")[0]
        said = self.kinds.get(bare)
        if said in {"counter", "gauge"}:
            return model.SeriesKind.COUNTER if said == "counter" else model.SeriesKind.GAUGE
        return model.SeriesKind.COUNTER if bare.endswith(COUNTER_SUFFIXES) else model.SeriesKind.GAUGE


def _bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return None if math.isnan(bound) else bound


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
