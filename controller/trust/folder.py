"""Where a controller keeps its metadata: files as TUF names them, and one that says which of them count.

A folder and not the store: the files are public, are verified by anybody as they lie there, and are served byte for
byte; they decide nothing about the fleet, so no decision has to be stored with them.

Rules kept: a file is written once, under the name of its version, and is durable before `current.json` names it; that
one is replaced in one step, so that a crash leaves the repository from before or the one after; what is no longer named
is removed. What lies there is verified again when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.metadata import Snapshot, Targets, Timestamp

from controller.core import errors
from controller.trust import files, metadata, repository, succession

CURRENT_NAME = "current.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a folder holds.

    Args:
        due_at: When snapshot and timestamp are to be signed again.
    """

    repository: repository.Repository
    due_at: datetime


class Folder:
    """One folder, which one controller owns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Kept | None:
        """What it holds; None where nothing was ever kept.

        Raises:
            UnavailableError: Code ``trust_damaged``: a file is not as it was written.
        """
        try:
            text = (self._path / CURRENT_NAME).read_text("utf-8")
        except FileNotFoundError:
            return None
        try:
            told = json.loads(text)
            found = self._repository(told)
            succession.check(found)
            return Kept(found, datetime.fromisoformat(told["due_at"]))
        except (OSError, ValueError, KeyError, TypeError, errors.InstarError) as fault:
            raise errors.UnavailableError(
                f"cannot use the metadata in {self._path}: {fault}",
                code="trust_damaged",
                field="trust",
                value=str(self._path),
                rule="as it was written; restore the folder, or remove it and publish the metadata anew",
            ) from fault

    def write(self, kept: Kept) -> None:
        """Keep it: durable when this returns."""
        self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in kept.repository.files():
            path = self._path / file.name
            if not path.exists() or path.read_bytes() != file.content:
                files.write(path, file.content)
        files.write(self._path / CURRENT_NAME, json.dumps(_named(kept), indent=1).encode())
        self._clear({file.name for file in kept.repository.files()})

    def _repository(self, told: dict[str, Any]) -> repository.Repository:
        return repository.Repository(
            roots=tuple(self._file("root", version) for version in told["roots"]),
            targets=self._file_or_none(Targets.type, told["targets"]),
            components={name: self._file(name, version) for name, version in told["components"].items()},
            snapshot=self._file_or_none(Snapshot.type, told["snapshot"]),
            timestamp=self._file_or_none(Timestamp.type, told["timestamp"]),
        )

    def _file(self, role: str, version: int) -> metadata.File:
        name = metadata.file_name(role, version)
        return metadata.read(name, (self._path / name).read_bytes())

    def _file_or_none(self, role: str, version: int | None) -> metadata.File | None:
        return None if version is None else self._file(role, version)

    def _clear(self, named: set[str]) -> None:
        for path in self._unnamed(named):
            path.unlink(missing_ok=True)

    def _unnamed(self, named: set[str]) -> Iterator[Path]:
        for path in self._path.glob("*.json"):
            if path.name not in named and path.name != CURRENT_NAME:
                yield path


def _named(kept: Kept) -> dict[str, object]:
    found = kept.repository
    return {
        "due_at": kept.due_at.isoformat(),
        "roots": [file.version for file in found.roots],
        "targets": _version(found.targets),
        "components": {name: file.version for name, file in sorted(found.components.items())},
        "snapshot": _version(found.snapshot),
        "timestamp": _version(found.timestamp),
    }


def _version(file: metadata.File | None) -> int | None:
    return None if file is None else file.version
