"""Conditions in CEL over a node, and filters over an event: compiled and type-checked when they are stored.

Rules kept: what cannot be told is unknown, neither true nor false; an evaluation is bounded in cost, and what could
cost too much is refused beforehand. Left out: what follows from what they say.
"""

from controller.conditions.environments import COMPILED_MAX, TEXT_LENGTH_MAX
from controller.conditions.expressions import COST_MAX, Names
from controller.conditions.filters import Filter, compile_filter
from controller.conditions.nodes import Condition, Prepared, compile, holds, names, prepare  # noqa: A004 as `re.compile`

__all__ = [
    "COMPILED_MAX",
    "COST_MAX",
    "TEXT_LENGTH_MAX",
    "Condition",
    "Filter",
    "Names",
    "Prepared",
    "compile",
    "compile_filter",
    "holds",
    "names",
    "prepare",
]
