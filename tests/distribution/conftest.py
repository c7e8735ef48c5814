from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.packaging.distribution import building

needs_ssh = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="this host has no ssh-keygen")


@dataclass(frozen=True)
class Built:
    """One build: its folder, and what was said on standard error."""

    folder: Path
    said: str


def run(*words: str | Path, within: Path = building.ROOT, environment: Mapping[str, str] | None = None) -> str:
    """Run the command; what it says on standard error."""
    command = [sys.executable, "-m", "controller.packaging.distribution", *map(str, words)]
    told = os.environ | (environment or {})
    done = subprocess.run(command, cwd=within, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What this work tree's last commit gives, unsigned, where an older build was signed."""
    if not (building.ROOT / ".git").exists():
        pytest.skip("this is no clone")
    folder = tmp_path_factory.mktemp("built")
    (folder / building.SIGNATURE).write_text("of another build")
    return Built(folder, run("wheels", folder))
