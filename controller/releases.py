"""Bundles: how one is built, read and kept.

Rules kept here: a bundle is one canonical sequence of bytes, so that a digest says everything about it; nothing in a
bundle is trusted, and reading one writes no file and follows no name; a blob is kept whole, durable and under its own
digest, or not at all. Left out: what a manifest means (`controller.config.manifest`) and which releases there are.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, BinaryIO, Self

from controller.core import errors, model

MANIFEST_NAME = "instar.toml"
BUNDLE_BYTES_MAX = 1 << 30  # 1 GiB: what a node can fetch and check within the deadlines of a rollout
MANIFEST_BYTES_MAX = 64 << 10  # 64 KiB, as the node has it: a hundred times a long one
FILES_MAX = 20_000  # past it a node spends more on names than on bytes
CHUNK_BYTES = 1 << 20  # 1 MiB at a time, in memory and on the wire
_BLOCK_BYTES = tarfile.BLOCKSIZE
_RECORD_BYTES = tarfile.RECORDSIZE
_LEFT_OUT = frozenset({"__pycache__"})  # made by running, and different each time
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DIGEST_RULE = "sha256: and 64 hexadecimal digits"
_UNFINISHED = ".incoming-"


@dataclass(frozen=True, slots=True)
class Bundle:
    """What identifies the bytes of a bundle."""

    digest: model.Digest
    size_bytes: int


def build(directory: Path, destination: Path) -> Bundle:
    """Write the bundle of a directory: the same files give the same bytes.

    ``__pycache__`` is left out; everything else goes in, and what cannot is refused.

    Raises:
        InvalidRequestError: A file is a link, special, unreadable or badly named, there is no manifest, or the
            destination cannot be written.
    """
    if destination.resolve().is_relative_to(directory.resolve()):
        raise _invalid("destination", str(destination), "outside the directory that is bundled")
    files = sorted(_files(directory))
    if MANIFEST_NAME not in {name for name, _ in files}:
        raise _invalid("directory", str(directory), f"holds {MANIFEST_NAME}")
    hasher = hashlib.sha256()
    try:
        with _draft_of(destination) as draft:
            for part in _parts(files):
                hasher.update(part)
                draft.write(part)
            size = draft.tell()
    except OSError as fault:
        raise _invalid("file", str(fault.filename), f"can be read or written ({fault.strerror})") from fault
    return Bundle(model.Digest(f"sha256:{hasher.hexdigest()}"), size)


def measure(path: Path) -> Bundle:
    """Digest and size of a bundle file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Bundle(model.Digest(f"sha256:{digest}"), file.tell())


def manifest_text(file: BinaryIO) -> str:
    """Check that a file is a canonical bundle, and return the text of its manifest.

    Raises:
        InvalidRequestError: It is not canonical, or has no manifest in UTF-8.
    """
    file.seek(0)
    names: list[str] = []
    text: bytes | None = None
    while (header := file.read(_BLOCK_BYTES)).strip(b"\0"):
        member = _member(header)
        names.append(member.name)
        _check_order(names)
        body = _body(file, member)
        text = body if member.name == MANIFEST_NAME else text
    _check_end(file)
    _check_folders(names)
    if text is None:
        raise _invalid("bundle", MANIFEST_NAME, f"holds {MANIFEST_NAME} at its root")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise _invalid("bundle", MANIFEST_NAME, "is text in UTF-8") from fault


class Shelf:
    """The folder of bundles for one who only looks: a controller may be at work in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, digest: model.Digest) -> bool:
        """Tell whether a bundle is there."""
        return _path(self._folder, digest).is_file()

    def is_whole(self, digest: model.Digest) -> bool:
        """Tell whether a bundle is there, and is what its name says."""
        return self.has(digest) and measure(_path(self._folder, digest)).digest == digest


class Blobs:
    """The content-addressed folder of bundles: one file each, named by the digits of its digest.

    One controller owns the folder; what a killed one left unfinished is removed at the next start.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(f"{_UNFINISHED}*"):
            unfinished.unlink()

    def receive(self, bundle: Bundle) -> Incoming:
        """Begin to receive a bundle that shall have this digest and size.

        Raises:
            InvalidRequestError: The digest is not one, or the size is past BUNDLE_BYTES_MAX.
        """
        target = self._path(bundle.digest)
        if not 0 < bundle.size_bytes <= BUNDLE_BYTES_MAX:
            raise _invalid("size_bytes", str(bundle.size_bytes), f"is from 1 to {BUNDLE_BYTES_MAX}")
        return Incoming(target, bundle)

    def open_blob(self, digest: model.Digest) -> BinaryIO:
        """Open a kept bundle for reading.

        Raises:
            InvalidRequestError: The digest is not one.
            NotFoundError: There is no such bundle.
        """
        try:
            return self._path(digest).open("rb")
        except FileNotFoundError as fault:
            raise errors.NotFoundError(
                f"cannot open bundle {digest}: it was never published here",
                code="bundle_not_found",
                field="digest",
                value=digest,
            ) from fault

    def _path(self, digest: model.Digest) -> Path:
        return _path(self._folder, digest)


class Incoming:
    """A bundle on its way in; leaving the ``with`` block before ``keep`` forgets it."""

    def __init__(self, target: Path, bundle: Bundle) -> None:
        self._target = target
        self._bundle = bundle
        self._hasher = hashlib.sha256()
        self._received_bytes = 0
        self._file: IO[bytes] = tempfile.NamedTemporaryFile(  # noqa: SIM115  # closed by __exit__
            dir=target.parent, prefix=_UNFINISHED, delete=False
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Forget what was not kept."""
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            InvalidRequestError: They are more than was said.
            UnavailableError: The disk is full.
        """
        self._received_bytes += len(chunk)
        if self._received_bytes > self._bundle.size_bytes:
            raise self._wrong_size()
        self._hasher.update(chunk)
        with _room():
            self._file.write(chunk)

    def checked_manifest(self) -> str:
        """The text of the manifest, once all bytes are in and are what was said.

        Raises:
            InvalidRequestError: Size or digest differ, or the bytes are no bundle.
        """
        if self._received_bytes != self._bundle.size_bytes:
            raise self._wrong_size()
        digest = f"sha256:{self._hasher.hexdigest()}"
        if digest != self._bundle.digest:
            raise errors.InvalidRequestError(
                f"cannot accept the bundle: digest is {digest}, not {self._bundle.digest} as was said",
                code="digest_mismatch",
                field="digest",
                value=self._bundle.digest,
                rule="the sha256 of the bytes that are sent",
            )
        with _room():
            self._file.flush()
        with Path(self._file.name).open("rb") as written:
            return manifest_text(written)

    def keep(self) -> None:
        """Keep the bundle: durable under its digest when this returns.

        Raises:
            UnavailableError: The disk is full.
        """
        with _room():
            self._file.flush()
            os.fsync(self._file.fileno())
            Path(self._file.name).replace(self._target)
            folder = os.open(self._target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _wrong_size(self) -> errors.InvalidRequestError:
        return errors.InvalidRequestError(
            f"cannot accept the bundle: size_bytes is {self._received_bytes} or more,"
            f" not {self._bundle.size_bytes} as was said",
            code="size_mismatch",
            field="size_bytes",
            value=str(self._bundle.size_bytes),
            rule="the number of bytes that are sent",
        )


@contextmanager
def _room() -> Iterator[None]:
    """Turn a full disk into an error that says so."""
    try:
        yield
    except OSError as fault:
        if fault.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise errors.UnavailableError(
            "cannot accept the bundle: the controller's disk is full", code="disk_full", field="bundle"
        ) from fault


@contextmanager
def _draft_of(destination: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only once it is whole."""
    draft = destination.with_name(f".{destination.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            yield file
        draft.replace(destination)
    finally:
        draft.unlink(missing_ok=True)


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a directory, with its name in the bundle."""
    for folder, folders, names in os.walk(directory, onerror=_unreadable):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        for name in [*names, *(one for one in folders if Path(folder, one).is_symlink())]:
            path = Path(folder, name)
            if not stat.S_ISREG(path.lstat().st_mode):
                raise _invalid("directory", str(path), "holds regular files only, no links or special files")
            yield path.relative_to(directory).as_posix(), path


def _unreadable(fault: OSError) -> None:
    raise _invalid("directory", str(fault.filename), f"can be read ({fault.strerror})") from fault


def _parts(files: list[tuple[str, Path]]) -> Iterator[bytes]:
    """The bytes of a bundle, piece by piece."""
    if len(files) > FILES_MAX:
        raise _invalid("directory", str(len(files)), f"holds at most {FILES_MAX} files")
    written = 0
    for name, path in files:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            yield _header(name, found.st_size, is_executable=bool(found.st_mode & 0o111))
            sent = 0
            while chunk := file.read(CHUNK_BYTES):
                sent += len(chunk)
                yield chunk
        if sent != found.st_size:
            raise _invalid("directory", str(path), "does not change while it is bundled")
        yield bytes(-sent % _BLOCK_BYTES)
        written += _BLOCK_BYTES + sent + (-sent % _BLOCK_BYTES)
        if written > BUNDLE_BYTES_MAX - _RECORD_BYTES:
            raise _invalid("directory", str(path), f"makes a bundle of at most {BUNDLE_BYTES_MAX} bytes")
    end = written + 2 * _BLOCK_BYTES
    yield bytes(end - written + (-end % _RECORD_BYTES))


def _header(name: str, size_bytes: int, *, is_executable: bool) -> bytes:
    """The one canonical header of a file."""
    _check_name(name)
    member = tarfile.TarInfo(name)
    member.size = size_bytes
    member.mode = 0o755 if is_executable else 0o644
    try:
        return member.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except UnicodeEncodeError as fault:
        raise _invalid("bundle", ascii(name), "has names in UTF-8") from fault
    except ValueError as fault:
        raise _invalid("bundle", name, f"fits a ustar header ({fault})") from fault


def _check_name(name: str) -> None:
    """A name stays below the root, is the only spelling of its place, and can be shown."""
    path = PurePosixPath(name)
    is_plain = path.as_posix() == name and not path.is_absolute() and ".." not in path.parts and name != "."
    if not is_plain or any(ord(letter) < ord(" ") or letter == "\x7f" for letter in name):
        raise _invalid("bundle", ascii(name), "has relative names without dots as folders or control characters")


def _member(header: bytes) -> tarfile.TarInfo:
    """The file that a header stands for; the header must be the canonical one."""
    try:
        member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as fault:
        raise _invalid("bundle", "header", f"is an uncompressed ustar ({fault})") from fault
    canonical = _header(member.name, member.size, is_executable=bool(member.mode & 0o111))
    if header != canonical:
        raise _invalid(
            "bundle", member.name, "has canonical headers: regular files, mode 0644 or 0755, no owner, no time"
        )
    return member


def _body(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    """Read over the bytes of a file; returns those of a manifest."""
    if member.name == MANIFEST_NAME and member.size > MANIFEST_BYTES_MAX:
        raise _invalid("bundle", MANIFEST_NAME, f"is at most {MANIFEST_BYTES_MAX} bytes long")
    kept = file.read(member.size) if member.name == MANIFEST_NAME else b""
    file.seek(member.size - len(kept), os.SEEK_CUR)
    padding = file.read(-member.size % _BLOCK_BYTES)
    if len(padding) != -member.size % _BLOCK_BYTES or padding.strip(b"\0"):
        raise _invalid("bundle", member.name, "is whole and padded with zeros")
    return kept


def _check_order(names: list[str]) -> None:
    if len(names) > FILES_MAX:
        raise _invalid("bundle", str(len(names)), f"holds at most {FILES_MAX} files")
    if len(names) > 1 and names[-1] <= names[-2]:
        raise _invalid("bundle", names[-1], "has each file once, sorted by name")


def _check_end(file: BinaryIO) -> None:
    """After the first zero block come zeros up to the end of the record, at least one block of them."""
    seen_bytes = file.tell()
    padding = file.read(2 * _RECORD_BYTES)
    end = seen_bytes + _BLOCK_BYTES
    if len(padding) != _BLOCK_BYTES + (-end % _RECORD_BYTES) or padding.strip(b"\0"):
        raise _invalid("bundle", "end", f"ends in zero blocks, padded to {_RECORD_BYTES} bytes")


def _check_folders(names: list[str]) -> None:
    folders = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    for name in names:
        if name in folders:
            raise _invalid("bundle", name, "has no file that is also a folder")


def _path(folder: Path, digest: model.Digest) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise _invalid("digest", digest, f"is {_DIGEST_RULE}")
    return folder / digest.removeprefix("sha256:")


def _invalid(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    code = "digest_invalid" if field == "digest" else "bundle_invalid"
    return errors.InvalidRequestError(
        f"cannot use {field} {value}: it must be one that {rule}", code=code, field=field, value=value, rule=rule
    )
