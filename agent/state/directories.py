"""The directories of the components' states, and what is told of each.

    <state>/data/<component>/{schema.json,state/}      what runs
    <state>/data/.next-<component>/…                   the same, being made; after the change, what was there before
    <state>/data/.kept-<component>/…                   what was there before, while a way back is being made

Rules kept here: `exchange` is the one rename by which state and schema change together; a generation counts the
changes, so of two directories it is known which is the newer. Left out: what makes the new one (`migration`).
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from agent import durability
from agent.config import layout

SCHEMA_NAME = "schema.json"
STATE_NAME = "state"
NEXT_PREFIX = ".next-"
KEPT_PREFIX = ".kept-"
GONE_PREFIX = ".gone-"
DIRECTORY_MODE = 0o711  # a component under a user of its own reaches its state, and lists nothing


class DamagedStateError(Exception):
    """What is told of a state cannot be read."""


@dataclass(frozen=True, slots=True)
class Told:
    """What stands beside a state.

    Args:
        generation: Number of the change that brought it, from 1.
        digest: Of the state when it took its place; empty for one that began empty.
        is_restored: It came from a snapshot, in place of newer writes.
    """

    schema: int
    generation: int
    digest: str = ""
    is_restored: bool = False


@dataclass(frozen=True, slots=True)
class Directory:
    """One state with what is told of it."""

    root: Path

    @property
    def state(self) -> Path:
        """What STATE_DIRECTORY names."""
        return self.root / STATE_NAME

    def told(self) -> Told | None:
        """Read what is told; None where the directory is not there or not whole.

        Raises:
            DamagedStateError: It is not what this agent wrote.
        """
        try:
            return Told(**json.loads((self.root / SCHEMA_NAME).read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise DamagedStateError(f"cannot read {self.root / SCHEMA_NAME}: {error}") from error

    def tell(self, told: Told) -> None:
        """Write it durably; from here on the directory is whole."""
        durability.replace_file(self.root / SCHEMA_NAME, json.dumps(asdict(told)).encode(), mode=0o644)

    def remove(self) -> None:
        """Take it away: its name first."""
        gone = self.root.with_name(f"{GONE_PREFIX}{self.root.name.lstrip('.')}")
        shutil.rmtree(gone, ignore_errors=True)
        if self.root.exists():
            self.root.rename(gone)
            durability.sync_directory(gone.parent)
        shutil.rmtree(gone, ignore_errors=True)


def running(places: layout.Layout, component: str) -> Directory:
    """The one that the component uses."""
    return Directory(places.data(component).parent)


def beside(places: layout.Layout, component: str) -> Directory:
    """The other one: being made, or kept."""
    return Directory(places.data_dir / f"{NEXT_PREFIX}{layout.component_name(component)}")


def create(places: layout.Layout, component: str, schema: int, owner: tuple[int, int] | None) -> None:
    """Make an empty state by one rename; there is none yet."""
    places.data_dir.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    fresh = beside(places, component)
    fresh.remove()
    fresh.root.mkdir(mode=DIRECTORY_MODE)
    fresh.state.mkdir(mode=0o700)
    if owner is not None:
        os.chown(fresh.state, *owner)
    fresh.tell(Told(schema, 1))
    fresh.root.rename(running(places, component).root)
    durability.sync_directory(places.data_dir)


def exchange(places: layout.Layout, component: str) -> None:
    """Let the two change places by one rename."""
    durability.exchange(running(places, component).root, beside(places, component).root)


def kept(places: layout.Layout, component: str) -> Directory:
    """What was beside it before a way back was begun."""
    return Directory(places.data_dir / f"{KEPT_PREFIX}{layout.component_name(component)}")


def sweep(places: layout.Layout) -> None:
    """Remove what an earlier life left half-made: what has no schema, and what was already on its way out."""
    places.data_dir.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    for path in places.data_dir.glob(".*"):
        if path.name.startswith(GONE_PREFIX):
            shutil.rmtree(path, ignore_errors=True)
        elif not (path / SCHEMA_NAME).is_file():
            Directory(path).remove()
