"""Programs of the host that are run here: git, tar, ssh-keygen, uv."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from controller.packaging.distribution.errors import DistributionError


def said(*words: str | Path, within: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Run a program to its end.

    Returns:
        What it said on its standard output.

    Raises:
        DistributionError: It is not installed, or ended with another code than 0.
    """
    done = _run(*words, within=within, environment=environment)
    if done.returncode:
        raise DistributionError(f"cannot run {' '.join(map(str, words[:3]))} …: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def let_ask(*words: str | Path) -> None:
    """Run a program that may ask whoever sits there: for a passphrase, or to touch a key.

    Raises:
        DistributionError: It is not installed, or ended with another code than 0; it has said why.
    """
    try:
        subprocess.run(words, check=True)
    except FileNotFoundError as error:
        raise DistributionError(f"cannot run {words[0]}: install it") from error
    except subprocess.CalledProcessError as error:
        raise DistributionError(f"cannot run {words[0]}: it ended with {error.returncode}, as it says above") from error


def failure(*words: str | Path) -> str:
    """Run a program whose answer lies in a file.

    Returns:
        What it said on its standard error, whatever it ended with.

    Raises:
        DistributionError: It is not installed.
    """
    return _run(*words).stderr.strip()


def _run(
    *words: str | Path, within: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, cwd=within, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise DistributionError(f"cannot run {words[0]}: install it") from error
