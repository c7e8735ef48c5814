from __future__ import annotations

from pathlib import Path

import pytest

from tests import datadriven
from tests.controller.core.test_golden import files
from tests.controller.core.triggers import playing

pytestmark = pytest.mark.core


@pytest.mark.parametrize("path", files("trigger"), ids=lambda path: path.stem)
def test_a_trigger_does_what_the_scenario_says(path: Path, *, is_rewriting: bool) -> None:
    datadriven.run(path, playing.Playing().handle, is_rewriting=is_rewriting)
