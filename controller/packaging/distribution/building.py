"""The wheels and the source of this project, as the last commit has them, and what comes beside them.

Rules kept here: built is what is committed, so whatever lies about in the work tree is left out, and time is that of
the commit; files come to the folder when all of them are made, the sums last, and no signature of others stays.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from controller.packaging.distribution import bill, lock, programs
from controller.packaging.distribution.errors import DistributionError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SUMS = "SHA256SUMS"
SIGNATURE = f"{SUMS}.sig"
# What is built where; the source of the hand-over library lies in that of the whole.
BUILT = ((".", ("sdist", "wheel")), ("agent/sdk", ("wheel",)))


@dataclass(frozen=True, slots=True)
class Commit:
    """What is built.

    Args:
        id: Its hash.
        made_at_seconds: Since 1970: SOURCE_DATE_EPOCH where the environment has it, else when it was committed.
    """

    id: str
    made_at_seconds: int

    @property
    def made_at(self) -> datetime:
        """When it was made."""
        return datetime.fromtimestamp(self.made_at_seconds, UTC)


def last_commit() -> Commit:
    """The commit that is checked out.

    Raises:
        DistributionError: This is no clone, or SOURCE_DATE_EPOCH is no number of seconds.
    """
    found, committed = programs.said("git", "log", "-1", "--format=%H %ct", within=ROOT).split()
    seconds = os.environ.get("SOURCE_DATE_EPOCH", committed)
    if not seconds.isdecimal():
        raise DistributionError(f"cannot use SOURCE_DATE_EPOCH {seconds!r}: it is a number of seconds since 1970")
    return Commit(found, int(seconds))


def left_out() -> Sequence[str]:
    """What differs from the last commit, and is therefore not built; as git says it."""
    return programs.said("git", "status", "--porcelain", within=ROOT).splitlines()


def build(folder: Path, commit: Commit) -> Sequence[Path]:
    """Make everything but the signature.

    Returns:
        The files, the sums last.

    Raises:
        DistributionError: Something could not be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        source, made = Path(name) / "source", Path(name) / "made"
        source.mkdir()
        made.mkdir()
        _check_out(commit, source, Path(name) / "source.tar")
        _build(source, made, commit)
        version = next(made.glob("instar-*.whl")).name.split("-")[1]
        _write_bill(source, made, version, commit)
        files = sorted(made.iterdir())
        (made / SUMS).write_text("".join(f"{_digits(path)}  {path.name}\n" for path in files), encoding="utf-8")
        (folder / SIGNATURE).unlink(missing_ok=True)
        return [Path(shutil.copy(path, folder)) for path in (*files, made / SUMS)]


def write_bill(folder: Path, commit: Commit) -> Path:
    """Make the bill of materials alone, of the work tree as it is."""
    from agent import __version__  # noqa: PLC0415  # of the work tree, which a build must not look at

    folder.mkdir(parents=True, exist_ok=True)
    return _write_bill(ROOT, folder, __version__, commit)


def _check_out(commit: Commit, source: Path, packed: Path) -> None:
    programs.said("git", "archive", "--format=tar", "-o", packed, commit.id, within=ROOT)
    programs.said("tar", "-xf", packed, "-C", source)


def _build(source: Path, made: Path, commit: Commit) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(commit.made_at_seconds)}
    for place, kinds in BUILT:
        targets = [word for kind in kinds for word in ("-t", kind)]
        programs.said(
            sys.executable,
            "-m",
            "hatchling",
            "build",
            *targets,
            "-d",
            made,
            within=source / place,
            environment=environment,
        )


def _write_bill(source: Path, folder: Path, version: str, commit: Commit) -> Path:
    pins = lock.read((source / "requirements.lock").read_text(encoding="utf-8"))
    path = folder / f"instar-{version}.cdx.json"
    path.write_text(bill.document(pins, version, commit.made_at), encoding="utf-8")
    return path


def _digits(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
