"""What a benchmark measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of one benchmark.

    Args:
        ours: The figure that it is about, in ``unit``.
        n: Number of samples behind it.
        figures: Its further keys.
    """

    bench: str
    ours: float
    unit: str
    n: int
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        """One JSON document."""
        return json.dumps({"bench": self.bench, "ours": self.ours, "unit": self.unit, "n": self.n, **self.figures})

    def as_text(self) -> str:
        """A few lines for people."""
        rows = {"ours": f"{self.ours} {self.unit}", "n": self.n, **self.figures}
        return "\n".join([self.bench, *(f"  {key:<16} {value}" for key, value in rows.items())])
