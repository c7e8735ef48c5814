"""What lies on the node's disk: bundles that come in, unpacked releases, and the two pointers of each component.

Rules kept here: at every instant, whatever is killed or loses power, each installed component has one whole
``current`` and one whole ``permanent`` (G1): what is pointed at is durable before the pointer, a pointer moves by one
rename, a component comes and goes by one rename, and a release is removed only when nothing refers to it. Everything
half-made has a name that starts with a dot and is swept by `prepare`. Left out: unpacking (`agent.verifier`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from agent.config import layout

READ_BYTES = 1024**2  # one read while a partial bundle is hashed again
DIRECTORY_MODE = 0o700  # the run of the node is nobody else's business
HALF_MADE = "."  # names that start so are never whole

CURRENT = "current"
PERMANENT = "permanent"


class DepotError(Exception):
    """The disk of the node is not in the state that was asked for; nothing changed.

    Args:
        code: Stable, in snake_case, for example ``digest_mismatch``.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Pointers:
    """What a component points at; both digests name whole releases."""

    current: str
    permanent: str


class Depot:
    """The disk of one node; keeps nothing in memory."""

    def __init__(self, places: layout.Layout) -> None:
        self._places = places

    def prepare(self) -> None:
        """Make the directories, and sweep what an earlier life left half-made."""
        for directory in (self._places.components_dir, self._places.releases_dir, self._places.incoming_dir):
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            _sync(directory)
            for path in directory.glob(HALF_MADE + "*"):
                _remove(path)
        _sync(self._places.state_dir)
        for directory in _whole(self._places.components_dir):
            for path in directory.glob(HALF_MADE + "*"):
                _remove(path)

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

    def receive(self, digest: str) -> Incoming:
        """Go on with the fetch of a bundle, where an earlier one ended; hashes again what is there."""
        return Incoming.open(digest, self._places)

    def pointers(self, component: str) -> Pointers | None:
        """What a component points at; None where it is not installed."""
        directory = self._places.component_dir(component)
        try:
            return Pointers(_target(directory / CURRENT), _target(directory / PERMANENT))
        except FileNotFoundError:
            return None

    def components(self) -> Mapping[str, Pointers]:
        """All installed components by name."""
        found = {path.name: self.pointers(path.name) for path in _whole(self._places.components_dir)}
        return {name: pointers for name, pointers in sorted(found.items()) if pointers is not None}

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
        directory = self._places.component_dir(component)
        gone = directory.with_name(f"{HALF_MADE}gone-{component}")
        _remove(gone)
        with suppress(FileNotFoundError):
            directory.rename(gone)
            _sync(directory.parent)
        _remove(gone)

    def discard_bundle(self, digest: str) -> None:
        """Remove a bundle, whole or partial, for example one that was refused."""
        for path in (self._places.bundle(digest), self._places.partial_bundle(digest)):
            path.unlink(missing_ok=True)

    def collect(self, keep: Collection[str]) -> tuple[str, ...]:
        """Remove each release and bundle that no pointer and no digest of ``keep`` refers to.

        Args:
            keep: Digests that running instances and unfinished operations refer to.

        Returns:
            Digests of the releases that were removed.
        """
        pointed = {digest for both in self.components().values() for digest in (both.current, both.permanent)}
        kept = {layout.hex_of(digest) for digest in pointed | set(keep)}
        dead = [path for path in _whole(self._places.releases_dir) if path.name not in kept]
        for path in dead:
            gone = path.with_name(f"{HALF_MADE}gone-{path.name}")
            path.rename(gone)
            _sync(path.parent)
            _remove(gone)
        for path in _whole(self._places.incoming_dir):
            if path.name.removesuffix(layout.PARTIAL_SUFFIX) not in kept:
                _remove(path)
        return tuple(layout.digest_of(path.name) for path in dead if layout.HEX.fullmatch(path.name))

    def _point(self, component: str, pointer: str, digest: str) -> None:
        directory = self._places.component_dir(component)
        release = self._places.release_dir(digest)
        if not release.is_dir():
            raise DepotError(f"cannot point {component} at {digest}: that release is not here", code="release_missing")
        if directory.is_dir():
            _swing(directory, pointer, release.name)
        else:
            _install(directory, release.name)


class Incoming:
    """A bundle that is being fetched; its name becomes final only when the digest of its bytes is right."""

    def __init__(self, digest: str, places: layout.Layout, file: BinaryIO) -> None:
        self._digest = digest
        self._places = places
        self._file = file
        self._sum = hashlib.sha256()
        self._offset = 0

    @classmethod
    def open(cls, digest: str, places: layout.Layout) -> Self:
        """Open the partial bundle and hash what is in it."""
        path = places.partial_bundle(digest)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        incoming = cls(digest, places, os.fdopen(descriptor, "r+b"))
        while data := incoming._file.read(READ_BYTES):
            incoming._count(data)
        return incoming

    @property
    def offset(self) -> int:
        """Number of bytes that are there; the next one to fetch."""
        return self._offset

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            DepotError: The bundle would be larger than any may be (``bundle_too_large``); it is removed.
            OSError: The disk is full or fails; what was written before stays.
        """
        if self._offset + len(data) > layout.BUNDLE_BYTES_MAX:
            self._discard()
            rule = f"a bundle has at most {layout.BUNDLE_BYTES_MAX} bytes"
            raise DepotError(f"cannot receive {self._digest}: {rule}", code="bundle_too_large")
        self._file.write(data)
        self._count(data)

    def complete(self) -> Path:
        """Check the digest and give the bundle its name, durably.

        Raises:
            DepotError: The bytes have another digest (``digest_mismatch``); they are removed.
        """
        seen = layout.DIGEST_PREFIX + self._sum.hexdigest()
        if seen != self._digest:
            self._discard()
            raise DepotError(
                f"cannot accept the bundle: its digest is {seen}, not {self._digest}", code="digest_mismatch"
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        path = self._places.bundle(self._digest)
        self._places.partial_bundle(self._digest).rename(path)
        _sync(path.parent)
        return path

    def close(self) -> None:
        """Stop here; a later `Depot.receive` goes on from these bytes."""
        self._file.close()

    def _count(self, data: bytes) -> None:
        self._sum.update(data)
        self._offset += len(data)

    def _discard(self) -> None:
        self._places.partial_bundle(self._digest).unlink(missing_ok=True)
        with suppress(OSError):  # what could not be written is not wanted any more
            self.close()


def _install(directory: Path, hex_digits: str) -> None:
    fresh = directory.with_name(f"{HALF_MADE}new-{directory.name}")
    _remove(fresh)
    fresh.mkdir(mode=DIRECTORY_MODE)
    for pointer in (CURRENT, PERMANENT):
        (fresh / pointer).symlink_to(_link_text(hex_digits))
    _sync(fresh)
    fresh.rename(directory)
    _sync(directory.parent)


def _swing(directory: Path, pointer: str, hex_digits: str) -> None:
    fresh = directory / f"{HALF_MADE}{pointer}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(_link_text(hex_digits))
    fresh.rename(directory / pointer)
    _sync(directory)


def _link_text(hex_digits: str) -> str:
    return f"../../releases/{hex_digits}"


def _target(pointer: Path) -> str:
    return layout.digest_of(pointer.readlink().name)


def _whole(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.iterdir()) if not path.name.startswith(HALF_MADE))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
