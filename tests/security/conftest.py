from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for sockets, as tmp_path does not."""
    made = Path(tempfile.mkdtemp(prefix="in-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)
