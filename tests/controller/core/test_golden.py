from __future__ import annotations

from pathlib import Path

import pytest

from tests import datadriven
from tests.controller.core import planning, rolling

pytestmark = pytest.mark.core

TESTDATA = Path(__file__).parents[2] / "testdata"


def files(folder: str) -> list[Path]:
    return sorted((TESTDATA / folder).glob("*.txt"))


@pytest.mark.parametrize("path", files("plan"), ids=lambda path: path.stem)
def test_the_planner_does_what_the_scenario_says(path: Path, *, is_rewriting: bool) -> None:
    datadriven.run(path, planning.Planning().handle, is_rewriting=is_rewriting)


@pytest.mark.parametrize("path", files("rollout"), ids=lambda path: path.stem)
def test_the_rollout_does_what_the_scenario_says(path: Path, *, is_rewriting: bool) -> None:
    datadriven.run(path, rolling.Rolling().handle, is_rewriting=is_rewriting)
