"""What lies on the node's disk: bundles that come in, releases with their environments, and each component's pointers.

Rules kept here: at every instant, whatever is killed or loses power, each installed component has one whole
``current`` and one whole ``permanent`` (G1): what is pointed at is durable before the pointer, a pointer moves by one
rename, a component comes and goes by one rename, and a release is removed only when nothing refers to it. Everything
half-made has a name that starts with a dot and is swept by `prepare`. Left out: unpacking (`agent.verifier`), making
environments (`agent.stager`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agent import durability
from agent.config import layout
from agent.depot import pointers
from agent.depot.incoming import DepotError, Incoming
from agent.depot.metadata import IncomingMetadata
from agent.depot.pointers import CURRENT, PERMANENT, Pointers

__all__ = ["CURRENT", "PERMANENT", "STOPPED", "Depot", "DepotError", "Incoming", "IncomingMetadata", "Pointers"]

STOPPED = "stopped"
PRIVATE_MODE = 0o700  # the run of the node is nobody else's business
BLOCK_BYTES = 512  # of st_blocks, by POSIX
PASSABLE_MODE = 0o711  # a component under a user of its own reaches its release, and lists nothing


class Depot:
    """The disk of one node; keeps nothing in memory.

    Args:
        quota_bytes: What all releases and environments may take; None where only the disk bounds them.
    """

    def __init__(self, places: layout.Layout, quota_bytes: int | None = None) -> None:
        self._places = places
        self._quota_bytes = quota_bytes

    def prepare(self) -> None:
        """Make the directories, and sweep what an earlier life left half-made."""
        places = self._places
        modes = {
            places.components_dir: PRIVATE_MODE,
            places.releases_dir: PASSABLE_MODE,
            places.environments_dir: PASSABLE_MODE,
            places.incoming_dir: PRIVATE_MODE,
            places.trust_dir: PRIVATE_MODE,
        }
        for directory, mode in modes.items():
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
            durability.sync_directory(directory)
            _sweep(directory)
        durability.sync_directory(places.state_dir)
        for directory in pointers.whole(places.components_dir):
            _sweep(directory)

    def free_bytes(self) -> int:
        """Bytes that this user may still write below the state directory."""
        disk = os.statvfs(self._places.state_dir)
        return disk.f_bavail * disk.f_frsize

    def has_bundle(self, digest: str) -> bool:
        """Say whether the whole bundle is there."""
        return self._places.bundle(digest).is_file()

    def has_release(self, digest: str) -> bool:
        """Say whether the release is unpacked."""
        return self._places.release_dir(digest).is_dir()

    def release_dir(self, digest: str) -> Path:
        """Directory of an unpacked release."""
        return self._places.release_dir(digest)

    def releases(self) -> Mapping[str, int]:
        """Bytes of each release that is here, with its environment, the oldest first."""
        found = [path for path in _whole_in(self._places.releases_dir) if layout.HEX.fullmatch(path.name)]
        found.sort(key=_made_at)
        return {layout.digest_of(path.name): self._size_bytes(path.name) for path in found}

    def receive(self, digest: str, bytes_max: int) -> Incoming:
        """Go on with the fetch of a bundle, where an earlier one ended; hashes again what is there."""
        return Incoming.open(digest, self._places, bytes_max)

    def receive_metadata(self) -> IncomingMetadata:
        """Begin to take what the controller says of releases; what it said before stays until that is whole."""
        return IncomingMetadata(self._places.incoming_metadata_dir)

    def pointers(self, component: str) -> Pointers | None:
        """What a component points at; None where it is not installed."""
        directory = self._places.component_dir(component)
        try:
            return Pointers(pointers.target(directory / CURRENT), pointers.target(directory / PERMANENT))
        except FileNotFoundError:
            return None

    def components(self) -> Mapping[str, Pointers]:
        """All installed components by name."""
        found = {path.name: self.pointers(path.name) for path in _whole_in(self._places.components_dir)}
        return {name: both for name, both in sorted(found.items()) if both is not None}

    def point_current(self, component: str, digest: str) -> None:
        """Move ``current``; a component that is new gets both pointers at once.

        Raises:
            DepotError: The release is not there (``release_missing``).
        """
        self._point(component, CURRENT, digest)

    def point_permanent(self, component: str, digest: str) -> None:
        """Move ``permanent``; see `point_current`."""
        self._point(component, PERMANENT, digest)

    def remove_component(self, component: str) -> None:
        """Take a component off the node by one rename; its releases go with the next `collect`."""
        pointers.remove_by_rename(self._places.component_dir(component))

    def is_stopped(self, component: str) -> bool:
        """Say whether somebody has stopped a component on purpose."""
        return (self._places.component_dir(component) / STOPPED).exists()

    def mark_stopped(self, component: str) -> None:
        """Remember, over a boot too, that a component is stopped on purpose; again is success."""
        directory = self._places.component_dir(component)
        (directory / STOPPED).touch()
        durability.sync_directory(directory)

    def clear_stopped(self, component: str) -> None:
        """Let a component run again; again is success."""
        directory = self._places.component_dir(component)
        (directory / STOPPED).unlink(missing_ok=True)
        durability.sync_directory(directory)

    def discard_bundle(self, digest: str) -> None:
        """Remove a bundle, whole or partial, for example one that was refused."""
        for path in (self._places.bundle(digest), self._places.partial_bundle(digest)):
            path.unlink(missing_ok=True)

    def make_room(self, needed_bytes: int, keep: Collection[str], retain: Sequence[str] = ()) -> tuple[str, ...]:
        """See that a release of so many bytes will fit: nothing that is referred to goes, and the oldest goes first.

        Args:
            needed_bytes: Of the release with its environment, as far as that is known.
            keep: Digests that running instances and unfinished operations refer to.
            retain: Digests that rollback points refer to, newest first; they go when nothing else can.

        Returns:
            Digests of the releases that were removed.

        Raises:
            DepotError: It cannot fit: by the quota (``disk_quota``), or the disk (``disk_full``); nothing was removed.
        """
        sizes = self.releases()
        removable = self._removable(sizes, keep, retain)
        fixed_bytes = sum(sizes.values()) - sum(sizes[digest] for digest in removable)
        if self._quota_bytes is not None and fixed_bytes + needed_bytes > self._quota_bytes:
            rule = f"disk_quota is {self._quota_bytes} bytes, and {fixed_bytes} are in use"
            raise DepotError(f"cannot take a release of {needed_bytes} bytes: {rule}", code="disk_quota")
        free_bytes = self.free_bytes() + sum(sizes[digest] for digest in removable)
        if needed_bytes > free_bytes:
            message = f"cannot take a release of {needed_bytes} bytes: {free_bytes} are free"
            raise DepotError(message, code="disk_full")
        return self._remove_until(needed_bytes, sizes, removable)

    def collect(self, keep: Collection[str], retain: Sequence[str] = ()) -> tuple[str, ...]:
        """Remove each release and bundle that nothing refers to, and what is retained beyond the quota.

        Args:
            keep: Digests that running instances and unfinished operations refer to.
            retain: Digests that rollback points refer to, newest first.

        Returns:
            Digests of the releases that were removed.
        """
        kept = self._kept(keep)
        unreferred = [digest for digest in self.releases() if digest not in kept and digest not in retain]
        for digest in unreferred:
            self._remove(digest)
        self._remove_strays()
        wanted = {layout.METADATA_NAME, *(layout.hex_of(digest) for digest in kept)}
        for path in _whole_in(self._places.incoming_dir):
            if path.name.removesuffix(layout.PARTIAL_SUFFIX) not in wanted:
                pointers.remove(path)
        if self._quota_bytes is None:
            return tuple(unreferred)
        sizes = self.releases()
        return (*unreferred, *self._remove_until(0, sizes, self._removable(sizes, keep, retain)))

    def _kept(self, keep: Collection[str]) -> frozenset[str]:
        pointed = {digest for both in self.components().values() for digest in (both.current, both.permanent)}
        return frozenset(pointed | set(keep))

    def _removable(self, sizes: Mapping[str, int], keep: Collection[str], retain: Sequence[str]) -> Sequence[str]:
        """What may go, in order: what nothing refers to, then what is retained, the oldest first."""
        kept = self._kept(keep)
        unreferred = [digest for digest in sizes if digest not in kept and digest not in retain]
        return [*unreferred, *(digest for digest in reversed(retain) if digest in sizes and digest not in kept)]

    def _remove_until(self, needed_bytes: int, sizes: Mapping[str, int], removable: Sequence[str]) -> tuple[str, ...]:
        removed: list[str] = []
        used_bytes = sum(sizes.values())
        for digest in removable:
            is_within = self._quota_bytes is None or used_bytes + needed_bytes <= self._quota_bytes
            if is_within and needed_bytes <= self.free_bytes():
                break
            self._remove(digest)
            used_bytes -= sizes[digest]
            removed.append(digest)
        return tuple(removed)

    def _remove(self, digest: str) -> None:
        """Remove a release, then its environment, which without it is nothing."""
        pointers.remove_by_rename(self._places.release_dir(digest))
        self._places.environment_digest(digest).unlink(missing_ok=True)
        pointers.remove_by_rename(self._places.environment_dir(digest))

    def _remove_strays(self) -> None:
        """Remove what is named as no release is, and environments whose release is gone."""
        for path in _whole_in(self._places.releases_dir):
            if not layout.HEX.fullmatch(path.name):
                pointers.remove(path)
        for path in _whole_in(self._places.environments_dir):
            if not (self._places.releases_dir / path.name.removesuffix(layout.DIGEST_SUFFIX)).is_dir():
                pointers.remove(path)

    def _size_bytes(self, hex_digits: str) -> int:
        return sum(
            _tree_bytes(root / hex_digits) for root in (self._places.releases_dir, self._places.environments_dir)
        )

    def _point(self, component: str, pointer: str, digest: str) -> None:
        directory = self._places.component_dir(component)
        release = self._places.release_dir(digest)
        if not release.is_dir():
            raise DepotError(f"cannot point {component} at {digest}: that release is not here", code="release_missing")
        if directory.is_dir():
            pointers.swing(directory, pointer, release.name)
        else:
            pointers.install(directory, release.name)


def _whole_in(directory: Path) -> Iterator[Path]:
    return pointers.whole(directory) if directory.is_dir() else iter(())


def _sweep(directory: Path) -> None:
    for path in directory.glob(f"{durability.HALF_MADE}*"):
        pointers.remove(path)


def _made_at(directory: Path) -> tuple[float, str]:
    return directory.stat().st_mtime, directory.name


def _tree_bytes(directory: Path) -> int:
    """Bytes on disk of a tree; what goes away meanwhile does not count."""
    total = 0
    for folder, _folders, files in os.walk(directory):
        for name in files:
            with suppress(FileNotFoundError):
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118  # twenty thousand Paths cost a second
                total += status.st_blocks * BLOCK_BYTES if stat.S_ISREG(status.st_mode) else 0
    return total
