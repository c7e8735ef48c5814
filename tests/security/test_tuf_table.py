"""What docs/node-trust.md says of the cases of the specification's suite is what the tests are."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

from tests.security import test_tuf_keys, test_tuf_releases, test_tuf_roles, test_tuf_times

PAGE = Path(__file__).parents[2] / "docs" / "node-trust.md"
FILES: dict[str, ModuleType] = {
    "roles": test_tuf_roles,
    "times": test_tuf_times,
    "keys": test_tuf_keys,
    "releases": test_tuf_releases,
}
CASES = 53  # functions of the suite, as of August 2026
NAME = re.compile(r"`(\w+)`")


def rows() -> list[tuple[list[str], str, str]]:
    """Cases, test and remark of each line."""
    section = PAGE.read_text().partition("## The cases of the specification")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")][2:]
    return [(NAME.findall(cases), test.strip(), remark.strip()) for cases, test, remark in lines]


def test_every_case_of_the_suite_has_a_test_or_a_reason_why_there_is_none() -> None:
    assert len({case for cases, _, _ in rows() for case in cases}) == CASES
    for cases, test, remark in rows():
        assert test != "does not apply" or (cases and remark), cases


def test_every_test_of_the_cases_stands_in_one_line_and_every_line_names_one() -> None:
    named = [tuple(NAME.findall(test)) for _, test, _ in rows() if test != "does not apply"]
    there = [
        (file, name)
        for file, module in FILES.items()
        for name, _ in inspect.getmembers(module, inspect.isfunction)
        if name.startswith("test_")
    ]
    assert sorted(named) == sorted(there)
