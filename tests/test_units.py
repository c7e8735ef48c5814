"""What the units forbid: the figures on the page about hosts, and what none of them may come to leave open."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import documents

ROOT = documents.DOCS.parent
PAGE = documents.DOCS / "operations.md"
AGENT, CONTROLLER = "instar-agent.service", "instar-controller.service"
UNITS = {AGENT: ROOT / "agent/packaging" / AGENT, CONTROLLER: ROOT / "controller/packaging" / CONTROLLER}
EXPOSURE_MAX = {AGENT: 5.3, CONTROLLER: 2.0}  # of 10, by any systemd
STATED = re.compile(r"of systemd (\d+) counts ([0-9.]+) of 10 for\s+`([a-z.-]+)`")
ITEM = re.compile(r"`([A-Za-z/=]+=[^`\s]*)`\s+([0-9]\.[0-9])")
pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="this host has no systemd")


def analysed(unit: Path, *options: str) -> str:
    words = ["systemd-analyze", "security", "--offline=true", *options, str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.stdout


def exposure(unit: Path) -> str:
    match = re.search(rf"Overall exposure level for {unit.name}: ([0-9.]+)", analysed(unit))
    assert match is not None
    return match[1]


def version() -> str:
    shown = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    return shown.split()[1]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_leaves_no_more_open_than_it_may(name: str) -> None:
    assert float(exposure(UNITS[name])) <= EXPOSURE_MAX[name]


@pytest.fixture
def page() -> str:
    """The page, where its figures are those of this systemd."""
    text = PAGE.read_text(encoding="utf-8")
    [by] = {match[0] for match in STATED.findall(text)}
    if by != version():
        pytest.skip(f"the page says what systemd {by} counts")
    return text


@pytest.mark.parametrize("name", UNITS)
def test_the_figure_on_the_page_is_what_systemd_counts(page: str, name: str) -> None:
    assert {unit: figure for _, figure, unit in STATED.findall(page)}[name] == exposure(UNITS[name])


def test_the_page_gives_a_reason_for_each_item_that_the_keepers_unit_leaves_open(page: str) -> None:
    section = page.partition("### What its unit leaves open\n")[2].partition("\n### ")[0]
    items = json.loads(analysed(UNITS[AGENT], "--json=short"))
    assert dict(ITEM.findall(section)) == {
        each["name"]: each["exposure"] for each in items if each["exposure"] not in {None, "0"}
    }


def test_a_unit_that_forbids_nothing_is_counted_as_the_page_says(page: str, tmp_path: Path) -> None:
    unit = tmp_path / "bare.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    assert f"a unit that forbids nothing has {exposure(unit)}" in page
