"""What a Prometheus server answers, read: one value for each node and step, or a fault that says whose it is.

Rules kept: everything in an answer is doubted: its size, its form, its order, its numbers; ``NaN`` and infinities are
missing; an answer with warnings is not whole, and counts for nothing. Left out: asking (`prometheus`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from controller.config import sources
from controller.core import errors
from controller.core.analysis import samples

SERIES_MAX = 20_000  # in one answer: twice the largest fleet of one controller
TEXT_CHARS_MAX = 300  # of a server's own words in an error
_REFUSED = (400, 422)
_NOT_ALLOWED = (401, 403, 407)
_NO_SUCH_PATH = (404, 405)
_BUSY = (408, 429)
_OK = 200
_REDIRECTS = range(300, 400)
_SERVER_FAULTS = range(500, 600)


@dataclass(frozen=True, slots=True)
class Span:
    """Points in time, all one step apart.

    Args:
        start_ms: The first one, in milliseconds of Unix time.
    """

    start_ms: int
    step_ms: int
    steps: int

    @property
    def end_ms(self) -> int:
        """The last one."""
        return self.start_ms + (self.steps - 1) * self.step_ms


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Values of nodes at the points of a span: one row for each node, NaN for missing."""

    rows: Mapping[str, int]
    values: samples.Floats


def fault(
    server: sources.Server,
    code: str,
    what: str,
    *,
    blame: errors.Blame = errors.Blame.SOURCE,
    is_retryable: bool = True,
) -> errors.SourceError:
    """Say that a server gave no answer that counts."""
    message = f"cannot use what the Prometheus server {server.name} answers: {what}"
    return errors.SourceError(message, code=code, source=server.name, blame=blame, is_retryable=is_retryable)


def check_status(server: sources.Server, status: int, location: str, body: bytes) -> None:
    """Refuse every answer but a good one.

    Raises:
        SourceError: The status is not 200.
    """
    if status == _OK:
        return
    words = _words(body)
    if status in _REDIRECTS:
        raise _configured(server, "redirected", f"it sends to {_place(location)}, and redirects are not followed")
    if status in _REFUSED:
        what = f"it refuses the query: {words}"
        raise fault(server, "query_refused", what, blame=errors.Blame.CALLER, is_retryable=False)
    if status in _NOT_ALLOWED:
        raise _configured(server, "not_allowed", f"it does not let the controller in (HTTP {status})")
    if status in _NO_SUCH_PATH:
        raise _configured(server, "wrong_address", f"no Prometheus API is there (HTTP {status})")
    is_passing = status in _SERVER_FAULTS or status in _BUSY
    raise fault(server, "server_failed", f"HTTP {status}: {words}", is_retryable=is_passing)


def _configured(server: sources.Server, code: str, what: str) -> errors.SourceError:
    return fault(server, code, what, blame=errors.Blame.CONTROLLER, is_retryable=False)


def _place(location: str) -> str:
    """Give scheme and host of where a redirect leads; what follows may hold secrets."""
    found = re.match(r"(https?)://(?:[^/?#]*@)?([^/?#@\s]{1,255})", location)
    return f"{found[1]}://{found[2]}" if found else "another path"


def _words(body: bytes) -> str:
    """Find a server's own words about its fault."""
    try:
        found = json.loads(body)
        text = str(found["error"])
    except (ValueError, TypeError, KeyError, RecursionError):
        text = body[: 4 * TEXT_CHARS_MAX].decode("utf-8", "replace")
    shown = "".join(character if character.isprintable() else " " for character in text[:TEXT_CHARS_MAX])
    return shown.strip() or "it says nothing"


def read(server: sources.Server, body: bytes, span: Span) -> Grid:
    """Read the answer to one range query.

    Raises:
        SourceError: It is no such answer, it is not whole, or two series are of one node.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise fault(server, "wrong_answer", "it is no JSON", is_retryable=False) from error
    result = _result(server, found)
    if len(result) > SERIES_MAX:
        what = f"it holds {len(result)} series, and {SERIES_MAX} may be: sum by {server.node_label}"
        raise fault(server, "too_many_series", what, blame=errors.Blame.CALLER, is_retryable=False)
    rows: dict[str, int] = {}
    values = np.full((len(result), span.steps), np.nan)
    for series in result:
        try:
            node = _node(server, series["metric"])
            points = series["values"]
            if node is not None:
                _add(server, rows, node)
                _fill(values[rows[node]], points, span)
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise fault(server, "wrong_answer", "a series of it has no values", is_retryable=False) from error
    return Grid(rows, values[: len(rows)])


def _result(server: sources.Server, found: Any) -> list[Any]:  # noqa: ANN401  # JSON from elsewhere
    if not isinstance(found, dict) or found.get("status") != "success":
        raise fault(server, "wrong_answer", "it does not say success", is_retryable=False)
    if found.get("warnings"):
        raise fault(server, "partial", f"it is not whole: {_words(json.dumps({'error': found['warnings']}).encode())}")
    data = found.get("data")
    if not isinstance(data, dict) or data.get("resultType") != "matrix" or not isinstance(data.get("result"), list):
        raise fault(server, "wrong_answer", "it is no matrix", is_retryable=False)
    result: list[Any] = data["result"]
    return result


def _node(server: sources.Server, labels: Mapping[str, str]) -> str | None:
    """Find the node that a series is of; None where its label says of none."""
    value = labels.get(server.node_label)
    if value is None:
        what = f"a series has no label {server.node_label}, which is to tell nodes apart"
        raise fault(server, "no_node_label", what, blame=errors.Blame.CALLER, is_retryable=False)
    if server.nodes and value in server.nodes:
        return server.nodes[value]
    found = re.fullmatch(server.node_pattern, value)
    return found[1] if found else None


def _add(server: sources.Server, rows: dict[str, int], node: str) -> None:
    if node in rows:
        what = f"it holds two series of node {node}: sum by {server.node_label}"
        raise fault(server, "duplicate_series", what, blame=errors.Blame.CALLER, is_retryable=False)
    rows[node] = len(rows)


def _fill(row: samples.Floats, points: list[list[Any]], span: Span) -> None:
    """Put the points where they belong; those between the steps are none that was asked for."""
    for at, text in points:
        index, beside = divmod(round(float(at) * 1000) - span.start_ms, span.step_ms)
        if beside or not 0 <= index < span.steps or not math.isnan(row[index]):
            raise ValueError(at)
        value = float(text)
        if math.isfinite(value):
            row[index] = value
