"""Filters over an event.

Theory of operation. A filter sees ``event.source``, ``id``, ``type``, ``subject``, ``time`` and ``data``: each a
variable of its own, so that a misspelt one is refused beforehand, and a time that the sender does not tell is missing.
What the data holds only the event tells; a whole number in it is an int where it fits,
and one with a point a double.

Rules kept: fails closed; data that cannot be read is missing. Left out: which events a filter is asked about.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import Any

import cel_expr_python.cel as cel  # noqa: PLR0402 # mypy finds the stub of a folder that is no package only so

from controller.conditions import environments, expressions
from controller.core import model

_INT_MAX = 2**63 - 1  # of CEL; a whole number beyond is a double
_SHOWN_MAX = 20  # characters of a number
_SIZES: expressions.Sizes = {("event.data",): 256}  # members of the data; lists within are taken to hold more


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled filter.

    Args:
        text: As it was written.
    """

    text: str
    _compiled: environments.Compiled

    def matches(self, event: model.ReceivedEvent) -> bool | None:
        """Tell whether an event passes; None where that is unknown."""
        return self._compiled.truth(_environment().Activation(_said(event)))


def compile_filter(text: str, field: str) -> Filter:
    """Compile a filter.

    Args:
        text: In CEL.
        field: What the refusal calls the text.

    Raises:
        InvalidRequestError: It is too long or too costly, is no CEL, names what there is not, or gives no bool.
    """
    return Filter(text, environments.checked(text, field, "event", _compiled))


@functools.lru_cache(maxsize=environments.COMPILED_MAX)
def _compiled(text: str) -> environments.Compiled:
    return environments.compiled(_environment(), text, _SIZES)


@functools.cache
def _environment() -> cel.Env:
    texts = dict.fromkeys(("event.source", "event.id", "event.type", "event.subject"), cel.Type.STRING)
    rest = {"event.time": cel.Type.TIMESTAMP, "event.data": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)}
    return environments.environment(texts | rest)


def _said(event: model.ReceivedEvent) -> dict[str, Any]:
    """Say an event in the variables of a filter, without what is missing."""
    said: dict[str, Any] = {
        "event.source": event.source,
        "event.id": event.id,
        "event.type": event.type,
        "event.subject": event.subject,
    }
    if event.at is not None:
        said["event.time"] = event.at
    try:
        data = json.loads(event.data, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return said
    return said | {"event.data": data} if isinstance(data, dict) else said


def _whole(text: str) -> float:
    number = int(text)
    return number if -_INT_MAX <= number <= _INT_MAX else _finite(text)


def _finite(text: str) -> float:
    """Read a number that is one: whatever is compared with an infinity would hold, or would not."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"cannot use {text[:_SHOWN_MAX]} as a number")
    return number
