"""Releases of the agent itself, made from the one that is installed here: the same code under other versions.

Rules kept: the agent is found on Python's path and copied, never imported; only its own word for its version and the
manifest differ between two releases. Left out: libraries, which are those of the node's interpreter.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from controller.cli.demo import process
from controller.core import versions

COMPONENT = "instar-agent"
PACKAGES = ("agent", "instar")  # the agent, and the generated messages that it speaks
VERSION_FILE = Path("agent") / "__init__.py"
_VERSION = re.compile(r'^__version__ = "(?P<version>[^"]*)"', re.MULTILINE)
_LEFT_OUT = shutil.ignore_patterns("__pycache__")

_MANIFEST = """\
name = "{component}"
version = "{version}"
driver = "agent"
command = ["python", "-m", "agent"]
"""


@dataclass(frozen=True, slots=True)
class Source:
    """One version of the agent."""

    version: str

    @property
    def component(self) -> str:
        """Name of the agent as a component."""
        return COMPONENT

    def write(self, folder: Path) -> None:
        """Make a folder that `instar release build` takes."""
        for package in PACKAGES:
            shutil.copytree(_installed(package), folder / package, ignore=_LEFT_OUT)
        file = folder / VERSION_FILE
        told = f'__version__ = "{self.version}"'
        file.write_text(_VERSION.sub(told, file.read_text(encoding="utf-8")), encoding="utf-8")
        manifest = _MANIFEST.format(component=self.component, version=self.version)
        (folder / "instar.toml").write_text(manifest, encoding="utf-8")


def installed() -> Source:
    """The version that runs before any release of the agent is installed.

    Raises:
        process.ProcessError: There is no agent beside this command line, or it does not tell its version.
    """
    file = _installed("agent").parent / VERSION_FILE
    found = _VERSION.search(file.read_text(encoding="utf-8"))
    if found is None:
        raise process.ProcessError(f"cannot make a release of the agent: {file} tells no version")
    return Source(found["version"])


def after(source: Source) -> Source:
    """The version that comes next."""
    known = versions.parse(source.version)
    return Source(f"{known.major}.{known.minor}.{known.patch + 1}")


def _installed(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise process.ProcessError(f"cannot make a release of the agent: there is no package {package}")
    return Path(found.submodule_search_locations[0])
