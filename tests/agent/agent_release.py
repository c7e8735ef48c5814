"""Releases of the agent, made from the present sources."""

from collections.abc import Mapping
from pathlib import Path

import agent
import instar

COMPONENT = "instar-agent"
MANIFEST = """\
name = "instar-agent"
version = "{version}"
driver = "agent"
command = ["python", "-m", "agent"]
"""


def sources() -> dict[str, bytes]:
    """Files of a release of the agent, from the present sources."""
    files = {}
    for package in (Path(agent.__file__).parent, Path(next(iter(instar.__path__)))):
        for path in package.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files[str(path.relative_to(package.parent))] = path.read_bytes()
    return files


def bundle(version: str, changed: Mapping[str, str] | None = None) -> tuple[str, dict[str, bytes]]:
    """Manifest and files of a version of the agent, with text added to some of them."""
    made = sources()
    added = {"agent/__init__.py": f'\n__version__ = "{version}"\n', **(changed or {})}
    for path, text in added.items():
        made[path] += text.encode()
    return MANIFEST.format(version=version), made
