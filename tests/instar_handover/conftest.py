"""A node for each test that asks for one."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.agent.keeper import node


@pytest.fixture
async def a_node() -> AsyncIterator[node.Node]:
    root = Path(tempfile.mkdtemp(prefix="ih-"))  # tmp_path is too long for socket paths
    try:
        async with node.running(root) as made:
            yield made
    finally:
        shutil.rmtree(root)
