"""A small JSON document of a driver that must outlive everything: one file, replaced whole.

Rules kept here: what `write` has returned for is durable. Left out: what stands in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER_MODE = 0o755  # others may read it: it holds no secret


def read(path: Path) -> dict[str, Any]:
    """Read a document; one that is not there is empty."""
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return document


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a document, and its folder where that is missing."""
    path.parent.mkdir(mode=FOLDER_MODE, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)
    sync(path.parent.parent)


def remove(path: Path) -> None:
    """Remove a document; one that is not there is success."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync(path.parent)


def sync(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
