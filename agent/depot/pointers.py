"""The two pointers of a component: links that move by one rename, and directories that appear and go by one.

Rules kept here: what is pointed at is durable before the pointer; a half-made name starts with a dot. Left out: what
may be pointed at (`agent.depot`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent import durability
from agent.config import layout

DIRECTORY_MODE = 0o700  # the run of the node is nobody else's business
CURRENT = "current"
PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Pointers:
    """What a component points at; both digests name whole releases."""

    current: str
    permanent: str


def install(directory: Path, hex_digits: str) -> None:
    """Make a component with both pointers at one release."""
    fresh = directory.with_name(f"{durability.HALF_MADE}new-{directory.name}")
    remove(fresh)
    fresh.mkdir(mode=DIRECTORY_MODE)
    for pointer in (CURRENT, PERMANENT):
        (fresh / pointer).symlink_to(_link_text(hex_digits))
    durability.sync_directory(fresh)
    fresh.rename(directory)
    durability.sync_directory(directory.parent)


def swing(directory: Path, pointer: str, hex_digits: str) -> None:
    """Move one pointer."""
    fresh = directory / f"{durability.HALF_MADE}{pointer}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(_link_text(hex_digits))
    fresh.rename(directory / pointer)
    durability.sync_directory(directory)


def _link_text(hex_digits: str) -> str:
    return f"../../releases/{hex_digits}"


def target(pointer: Path) -> str:
    """Digest that a pointer names."""
    return layout.digest_of(pointer.readlink().name)


def whole(directory: Path) -> Iterator[Path]:
    """Give what is not half-made, in the order of names."""
    return (path for path in sorted(directory.iterdir()) if not path.name.startswith(durability.HALF_MADE))


def remove(path: Path) -> None:
    """Remove a file, link or tree; nothing there is success."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_by_rename(path: Path) -> None:
    """Take a directory away: its name first, so that it is never there in part."""
    gone = path.with_name(f"{durability.HALF_MADE}gone-{path.name}")
    remove(gone)
    if path.exists():
        path.rename(gone)
        durability.sync_directory(path.parent)
    remove(gone)
