"""Rollback points: what a node can go back to, and a copy of the state where the manifest asks for one.

    <state>/rollback_points/<component>/<id>/{point.json,state/}

Rules kept here: a point appears by one rename, whole, durable and compared with what it was made from; count, bytes and
age are bounded, and the oldest go first; the newest of a component stays. Left out: going back (`migration`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from agent import durability
from agent.config import bounds, layout
from agent.state import copies

POINT_NAME = "point.json"
STATE_NAME = "state"
STAGING_PREFIX = ".staging-"
GONE_PREFIX = ".gone-"
ID_DIGITS = 12  # of the hash of the operation: one in 280 billion is like another
DIRECTORY_MODE = 0o700


@dataclass(frozen=True, slots=True)
class Point:
    """What a node can go back to.

    Args:
        digest: Release that was current when it was made.
        schema: Of the state at that time; 0 where there is none.
        state_digest: Of the copy; empty where there is no copy.
        is_quiet: Nobody wrote while the copy was made; only then it is restored.
        is_set_aside: It holds what a newer version wrote and an abort had to take away.
    """

    id: str
    component: str
    operation_id: str
    digest: str
    version: str
    created_at: datetime
    schema: int = 0
    state_digest: str = ""
    size_bytes: int = 0
    is_quiet: bool = True
    is_set_aside: bool = False


class Points:
    """The rollback points of one node; keeps nothing in memory."""

    def __init__(self, places: layout.Layout, limits: bounds.RollbackPoints) -> None:
        self._places = places
        self._limits = limits

    def sweep(self) -> None:
        """Remove what an earlier life left half-made."""
        self._places.rollback_points_dir.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        for directory in self._places.rollback_points_dir.iterdir():
            for path in directory.glob(".*"):
                shutil.rmtree(path, ignore_errors=True)

    def of(self, component: str) -> tuple[Point, ...]:
        """Points of a component, newest first; one that cannot be read is none."""
        directory = self._places.rollback_points(component)
        return tuple(sorted(_read_all(directory), key=lambda point: point.created_at, reverse=True))

    def all(self) -> tuple[Point, ...]:
        """Points of all components, newest first."""
        root = self._places.rollback_points_dir
        found = (point for path in (root.iterdir() if root.is_dir() else ()) for point in _read_all(path))
        return tuple(sorted(found, key=lambda point: point.created_at, reverse=True))

    def get(self, component: str, operation_id: str) -> Point | None:
        """Return the point that an operation made, if it did."""
        return next((point for point in self.of(component) if point.id == id_of(operation_id)), None)

    def state_of(self, point: Point) -> Path:
        """Where the copy of the state is."""
        return self._places.rollback_points(point.component) / point.id / STATE_NAME

    def is_whole(self, point: Point) -> bool:
        """Read the copy again and compare it."""
        return not point.state_digest or (
            self.state_of(point).is_dir() and copies.digest(self.state_of(point)) == point.state_digest
        )

    def make(self, point: Point, state: Path | None) -> Point:
        """Write a point, with a copy of a state; one of the same id is replaced.

        Raises:
            OSError: The disk is full or fails; nothing is left of it.
        """
        staging = self._staging(point)
        try:
            staging.mkdir(mode=DIRECTORY_MODE, parents=True)
            if state is not None:
                copied = copies.make(state, staging / STATE_NAME)
                told = {"state_digest": copied.digest, "size_bytes": copied.size_bytes, "is_quiet": copied.is_quiet}
                point = replace(point, **told)  # type: ignore[arg-type]  # three fields of three types
            self._publish(point, staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return point

    def take(self, point: Point, state: Path) -> Point:
        """Write a point from a state that is not needed in its own place any more: it moves."""
        staging = self._staging(point)
        staging.mkdir(mode=DIRECTORY_MODE, parents=True)
        made = replace(point, state_digest=copies.digest(state), size_bytes=copies.size_bytes(state))
        state.rename(staging / STATE_NAME)
        self._publish(made, staging)
        return made

    def expire(self, now: datetime) -> tuple[str, ...]:
        """Remove what is too old, too many or too large, the oldest first; returns the ids."""
        removed = [point for point, is_kept in self._judged(now) if not is_kept]
        for point in removed:
            self._remove(point)
        return tuple(point.id for point in removed)

    def forget(self, component: str) -> None:
        """Remove every point of a component that has left the node."""
        for point in self.of(component):
            self._remove(point)

    def _judged(self, now: datetime) -> Iterator[tuple[Point, bool]]:
        counts: dict[str, int] = {}
        total_bytes = 0
        for point in self.all():
            count = counts[point.component] = counts.get(point.component, 0) + 1
            total_bytes += point.size_bytes
            is_newest = count == 1
            is_within = count <= self._limits.max_count and total_bytes <= self._limits.max_bytes
            yield point, is_newest or (is_within and now - point.created_at <= self._limits.max_age)

    def _staging(self, point: Point) -> Path:
        staging = self._places.rollback_points(point.component) / f"{STAGING_PREFIX}{point.id}"
        shutil.rmtree(staging, ignore_errors=True)
        return staging

    def _publish(self, point: Point, staging: Path) -> None:
        document = {**asdict(point), "created_at": point.created_at.isoformat()}
        durability.replace_file(staging / POINT_NAME, json.dumps(document).encode())
        self._remove(point)
        staging.rename(staging.with_name(point.id))
        durability.sync_directory(staging.parent)
        durability.sync_directory(staging.parent.parent)

    def _remove(self, point: Point) -> None:
        directory = self._places.rollback_points(point.component) / point.id
        gone = directory.with_name(f"{GONE_PREFIX}{point.id}")
        shutil.rmtree(gone, ignore_errors=True)
        if directory.exists():
            directory.rename(gone)
            durability.sync_directory(gone.parent)
        shutil.rmtree(gone, ignore_errors=True)


def id_of(operation_id: str) -> str:
    """Name the point of an operation; the same again for the same operation."""
    return hashlib.sha256(operation_id.encode()).hexdigest()[:ID_DIGITS]


def _read_all(directory: Path) -> Iterator[Point]:
    for path in directory.glob(f"[!.]*/{POINT_NAME}"):
        try:
            document = json.loads(path.read_bytes())
            yield Point(**{**document, "created_at": datetime.fromisoformat(document["created_at"])})
        except (OSError, ValueError, TypeError, KeyError):
            continue
