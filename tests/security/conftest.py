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


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in memory, where the host has one, for tests that wait for no disk."""
    memory = Path("/dev/shm")  # noqa: S108  # a folder of its own is made in it
    made = Path(tempfile.mkdtemp(prefix="in-", dir=memory if memory.is_dir() else None))
    yield made
    shutil.rmtree(made, ignore_errors=True)
