"""The program uv, as the stager needs it: an environment, and wheels in it.

Rules kept here: it reads no configuration and no variable of the host, downloads no interpreter, builds nothing, and
takes packages from one place alone. Left out: where the environment goes.

Source: https://docs.astral.sh/uv/reference/cli/#uv-pip-install and .../uv/reference/environment/
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PASSED_ON = ("LANG", "PATH", "SSL_CERT_FILE", "TMPDIR")  # facts of the host
OUTPUT_CHARS_MAX = 2000  # the end of what uv says; the first lines only tell what it resolved
FIXED: Mapping[str, str] = {
    "UV_NO_CONFIG": "1",
    "UV_NO_CACHE": "1",  # what one release brought never reaches another
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_NO_PROGRESS": "1",
    "UV_CONCURRENT_DOWNLOADS": "4",  # a node at work has other things to do
    "UV_CONCURRENT_INSTALLS": "1",
    "PYC_INVALIDATION_MODE": "UNCHECKED_HASH",  # times of files change when a node is copied
    "NO_COLOR": "1",
}


class UvError(Exception):
    """The program could not do what it was asked; the message is the end of what it said."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where wheels come from: a folder of the release, or the node's index."""

    wheelhouse: Path | None
    index: str

    @property
    def arguments(self) -> Sequence[str]:
        """Name that place and no other."""
        if self.wheelhouse is not None:
            return ("--offline", "--no-index", "--find-links", str(self.wheelhouse))
        return ("--default-index", self.index)


def find(configured: Path | None) -> Path | None:
    """Find the program: where the configuration says, else beside the interpreter, else on the path."""
    if configured is not None:
        return configured if os.access(configured, os.X_OK) else None
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("uv")
    return Path(found) if found else None


def make(program: Path, directory: Path) -> None:
    """Make an empty environment of the interpreter that runs here; it can be renamed.

    Raises:
        UvError: It could not be made.
    """
    _run(program, ["venv", "--quiet", "--no-project", "--relocatable", "--python", sys.executable, str(directory)])


def install(program: Path, directory: Path, requirements: Path, source: Source) -> None:
    """Install wheels into an environment, each checked against its hashes, and compile them.

    Raises:
        UvError: A requirement cannot be met.
    """
    rules = ["--require-hashes", "--only-binary", ":all:", "--link-mode", "copy", "--compile-bytecode", "--strict"]
    place = ["--python", str(directory / "bin" / "python")]
    _run(program, ["pip", "install", "--quiet", *place, *rules, *source.arguments, "--requirements", str(requirements)])


def _run(program: Path, arguments: Sequence[str]) -> None:
    environment = {**{name: os.environ[name] for name in PASSED_ON if name in os.environ}, **FIXED}
    done = subprocess.run(  # noqa: S603  # the program that the node's owner chose, with words of ours
        [str(program), *arguments], env=environment, capture_output=True, text=True, check=False, errors="replace"
    )
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise UvError(said[-OUTPUT_CHARS_MAX:])
