"""Reads named series out of Prometheus text.

Rules kept here: a bounded number of lines is looked at; what is no number, or not finite, is absent and never zero.
"""

from __future__ import annotations

import math
import re

LINES_MAX = 200  # lines that are looked at; a component that shows more names too much
SAMPLE = re.compile(r"(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)(?P<labels>\{[^}]*\})?\s+(?P<value>\S+)(?:\s+-?\d+)?")


def read(text: str, series: tuple[str, ...]) -> dict[str, float]:
    """Take named series from Prometheus text.

    A name without labels stands for the sum over all its labels; a name with labels, written as the component writes
    it, for that one alone. What is no number, or not finite, is absent.
    """
    values: dict[str, float] = {}
    samples = [line for line in text.splitlines() if line and not line.startswith("#")][:LINES_MAX]
    for line in samples:
        match = SAMPLE.fullmatch(line.strip())
        value = _number(match["value"]) if match else None
        if match is None or value is None:
            continue
        for name in {match["name"], match["name"] + (match["labels"] or "")} & set(series):
            values[name] = values.get(name, 0.0) + value
    return dict(sorted(values.items()))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
