from __future__ import annotations

import filecmp
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from google.protobuf import json_format

from controller.cli.demo import agent_bundles
from instar.v1 import manifest_pb2

ASK = "import agent, instar; print(agent.__version__, agent.__file__, instar.__file__)"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    agent_bundles.Source("7.8.9").write(tmp_path / "tree")
    return tmp_path / "tree"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_release_of_the_agent_runs_from_its_own_tree_and_tells_its_own_version(tree: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    told = subprocess.run([sys.executable, "-c", ASK], env=environment, check=True, capture_output=True, text=True)

    assert told.stdout.split() == ["7.8.9", str(tree / "agent/__init__.py"), str(tree / "instar/__init__.py")]


def test_its_manifest_has_the_agent_s_own_driver_and_no_unknown_key(tree: Path) -> None:
    text = (tree / "instar.toml").read_text(encoding="utf-8")
    manifest = json_format.ParseDict(tomllib.loads(text), manifest_pb2.Manifest())

    assert (manifest.name, manifest.version, manifest.driver) == ("instar-agent", "7.8.9", "agent")
    assert list(manifest.command) == ["python", "-m", "agent"]


def test_two_releases_differ_in_their_version_alone(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    agent_bundles.Source("7.9.0").write(other)
    names = files(tree)

    assert names == files(other)
    assert not [name for name in names if "__pycache__" in name]
    _, differing, unread = filecmp.cmpfiles(tree, other, names, shallow=False)
    assert (set(differing), unread) == ({"agent/__init__.py", "instar.toml"}, [])
    first, second = ((folder / "agent/__init__.py").read_text(encoding="utf-8") for folder in (tree, other))
    assert second == first.replace("7.8.9", "7.9.0")


@pytest.mark.parametrize(("version", "following"), [("0.1.0", "0.1.1"), ("1.9.9", "1.9.10"), ("2.0.0-rc.1", "2.0.1")])
def test_the_version_after_another_is_the_next_patch(version: str, following: str) -> None:
    assert agent_bundles.after(agent_bundles.Source(version)) == agent_bundles.Source(following)


def test_the_installed_version_is_what_the_agent_tells_of_itself() -> None:
    told = subprocess.run([sys.executable, "-c", ASK], check=True, capture_output=True, text=True)

    assert agent_bundles.installed().version == told.stdout.split()[0]
