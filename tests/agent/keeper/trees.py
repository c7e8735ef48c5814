"""Releases of our own agent and keeper, made from the present sources."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import agent
import instar
from agent.keeper import digest

SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc")


def release(state: Path, changed: Mapping[str, str], *, name: str) -> tuple[str, Path]:
    """Unpack a release made of the present sources and some files changed; returns digest and directory.

    Args:
        changed: Text to append to files, by their path in the release.
        name: Of a folder for the making.
    """
    tree = state / name
    shutil.copytree(Path(agent.__file__).parent, tree / "agent", ignore=SKIPPED)
    shutil.copytree(next(iter(instar.__path__)), tree / "instar", ignore=SKIPPED)
    for path, text in changed.items():
        with (tree / path).open("a") as file:
            file.write(text)
    found = digest.tree_digest(tree)
    target = state / "releases" / found.removeprefix("sha256:")
    tree.rename(target)
    return found, target
