from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests import documents
from tests.controller.core.analysis import table

pytestmark = pytest.mark.core

Figures = Mapping[str, Any]

COLUMNS: Mapping[str, Sequence[tuple[str, str]]] = {
    "judge": [("judge", str(nodes)) for nodes in (table.TEN, table.FIVE, table.FIFTY, table.ONE, table.THREE)],
    "alone": [("judge", str(table.ALONE))],
    "kayenta": [("kayenta", str(table.TEN))],
    "threshold": [("threshold", str(table.TEN)), ("threshold", str(table.ONE))],
}
ALL = [column for columns in COLUMNS.values() for column in columns]
NAMES = {"judge": "judge", "kayenta": "Kayenta's rule", "threshold": "threshold"}


def share(count: int, runs: int) -> str:
    percent = 100 * count / runs
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


def false_alarms(figures: Figures) -> str:
    return share(figures["any"], figures["runs"])


def found(metric: str) -> Callable[[Figures], str]:
    def cell(figures: Figures) -> str:
        median = figures["median_minutes"][metric]
        after = "" if median is None else f", {median:.1f} min"
        return share(figures["found"][metric], figures["runs"]) + after

    return cell


def rows(columns: Sequence[tuple[str, str]], harm: str, cell: Callable[[Figures], str]) -> Iterator[str]:
    golden = table.golden()
    yield "| fleet | " + " | ".join(f"{NAMES[rule]}, {nodes}" for rule, nodes in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for fleet in table.FLEETS:
        cells = [cell(golden[str(table.Case(rule, nodes, fleet, harm, 0))]) for rule, nodes in columns]
        yield f"| {fleet} | " + " | ".join(cells) + " |"


def edges() -> Iterator[str]:
    golden = table.golden()
    yield "| fleet | found worse at 1.1 times | errors, latency, restarts pass at twice | promoted when harmless |"
    yield "|---|---|---|---|"
    for fleet in table.FLEETS:
        edge, double, none = (
            golden[str(table.Case("judge", str(table.TEN), fleet, harm, 0))] for harm in ("edge", "double", "none")
        )
        passed = ", ".join(share(count, double["runs"]) for count in double["passed"].values())
        yield f"| {fleet} | {false_alarms(edge)} | {passed} | {share(none['promoted'], none['runs'])} |"


PARTS: documents.Parts = {
    "harmless": lambda: rows(ALL, "none", false_alarms),
    "errors": lambda: rows(ALL, "harm", found("errors")),
    "latency": lambda: rows([column for column in ALL if column[0] != "threshold"], "harm", found("latency")),
    "edges": edges,
}


def test_the_document_shows_the_figures_of_the_file(*, is_rewriting: bool) -> None:
    documents.check(documents.DOCS / "analysis.md", PARTS, is_rewriting=is_rewriting)
