"""Reads a bundle by its canonical form: each header must be, byte for byte, the one that we would have written.

Rules kept here: regular files only; names are relative, in order, and unique even where case does not count; paths and
bytes have caps; after the members there are zeros up to a full record and nothing else. Left out: writing (`unpack`).

Source: https://www.gnu.org/software/tar/manual/html_node/Standard.html, the format of ustar
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from agent.config import layout
from agent.verifier.errors import VerificationError

BLOCK_BYTES = 512
RECORD_BYTES = 10240  # the archive ends at a multiple of it
END_BLOCKS_MIN = 2  # zero blocks that say that nothing follows
READ_BYTES = 1024 * 1024
PATHS_MAX = 20_000  # files and directories; their names then take at most some 20 MiB
SEGMENT_BYTES_MAX = 255  # what file systems allow
DEPTH_MAX = 32
MODES = (0o644, 0o755)
REGULAR = b"0"
NAME_FIELD = slice(0, 100)
MODE_FIELD = slice(100, 108)
SIZE_FIELD = slice(124, 136)
TYPE_FIELD = slice(156, 157)
PREFIX_FIELD = slice(345, 500)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a bundle; its bytes begin at ``offset`` of the archive."""

    name: str
    mode: int
    size_bytes: int
    offset: int


def check_digest(descriptor: int, hex_digits: str) -> None:
    """Hash the whole file.

    Raises:
        VerificationError: It has another digest, or is larger than a bundle may be.
    """
    size_bytes = os.fstat(descriptor).st_size
    if size_bytes > layout.BUNDLE_BYTES_MAX:
        rule = f"a bundle has at most {layout.BUNDLE_BYTES_MAX} bytes"
        raise VerificationError(f"cannot accept the bundle: {rule}", code="bundle_too_large", rule=rule)
    checksum = hashlib.sha256()
    for data in pieces(descriptor, 0, size_bytes):
        checksum.update(data)
    if checksum.hexdigest() != hex_digits:
        seen = f"sha256:{checksum.hexdigest()}"
        raise VerificationError(
            f"cannot accept the bundle: its digest is {seen}, not sha256:{hex_digits}",
            code="digest_mismatch",
            field="digest",
            value=seen,
            rule="the bytes have the digest that was asked for",
        )


def members(descriptor: int) -> tuple[Member, ...]:
    """Judge the whole archive.

    Raises:
        VerificationError: It is not the canonical form of any tree.
    """
    found: list[Member] = []
    seen: dict[str, str] = {}
    end = os.fstat(descriptor).st_size
    offset = 0
    while (header := _read(descriptor, offset, BLOCK_BYTES)) != bytes(BLOCK_BYTES):
        member = _member(header, offset + BLOCK_BYTES)
        if found and found[-1].name >= member.name:
            raise _refused(member.name, "members stand in the order of their names, each once")
        _refuse_clash(member.name, seen)
        found.append(member)
        if len(seen) > PATHS_MAX:
            raise _refused(member.name, f"a bundle has at most {PATHS_MAX} files and directories")
        offset = _after(descriptor, member, end)
    _check_end(descriptor, offset, end)
    return tuple(found)


def pieces(descriptor: int, offset: int, size_bytes: int) -> Iterator[bytes]:
    """Read a stretch of the file in bounded pieces.

    Raises:
        VerificationError: The file ends before.
    """
    end = offset + size_bytes
    while offset < end:
        data = _read(descriptor, offset, min(READ_BYTES, end - offset))
        yield data
        offset += len(data)


def _member(header: bytes, offset: int) -> Member:
    if header[TYPE_FIELD] != REGULAR:
        kind = header[TYPE_FIELD].decode("ascii", "backslashreplace")
        raise _refused(_shown(header), f"a member is a regular file, not of type {kind!r}")
    name = _name(header)
    _check_name(name)
    member = Member(name, _number(header, MODE_FIELD), _number(header, SIZE_FIELD), offset)
    if member.mode not in MODES:
        raise _refused(name, f"its mode is 0644 or 0755, not {member.mode:04o}")
    if header != canonical_header(member):
        raise _refused(name, "its header is the canonical one: ustar, no owner, no time, nothing else set")
    return member


def canonical_header(member: Member) -> bytes:
    """The only header that a member may have."""
    info = tarfile.TarInfo(member.name)
    info.mode, info.size = member.mode, member.size_bytes
    try:
        return info.tobuf(tarfile.USTAR_FORMAT, encoding="utf-8", errors="strict")
    except ValueError as error:
        raise _refused(member.name, f"it fits a ustar header: {error}") from error


def _name(header: bytes) -> str:
    prefix = header[PREFIX_FIELD].split(b"\0", 1)[0]
    name = header[NAME_FIELD].split(b"\0", 1)[0]
    try:
        return (prefix + b"/" + name if prefix else name).decode()
    except UnicodeDecodeError as error:
        raise _refused(_shown(header), "its name is UTF-8") from error


def _check_name(name: str) -> None:
    segments = name.split("/")
    if len(segments) > DEPTH_MAX:
        raise _refused(name, f"it lies at most {DEPTH_MAX} deep")
    for segment in segments:
        if segment in {"", ".", ".."}:
            raise _refused(name, "its name is relative and has no empty, . or .. part")
        if len(segment.encode()) > SEGMENT_BYTES_MAX:
            raise _refused(name, f"each part of its name has at most {SEGMENT_BYTES_MAX} bytes")
        if not segment.isprintable():
            raise _refused(name, "its name has printable characters only")


def _refuse_clash(name: str, seen: dict[str, str]) -> None:
    """Refuse what would be one file for a system that ignores case, and a file that is a directory too."""
    segments = name.split("/")
    for depth in range(1, len(segments) + 1):
        path = "/".join(segments[:depth]) + ("/" if depth < len(segments) else "")
        folded = path.casefold()
        if seen.setdefault(folded, path) != path:
            raise _refused(name, f"it is not {seen[folded]} in another case")
        if folded.rstrip("/") in seen and folded.endswith("/"):
            raise _refused(name, f"{path} is a file and cannot be a directory")
        if folded + "/" in seen:
            raise _refused(name, f"{path} is a directory and cannot be a file")


def _number(header: bytes, field: slice) -> int:
    digits = header[field].rstrip(b"\0 ")
    if not digits or not set(digits) <= set(b"01234567"):
        raise _refused(_shown(header), "its numbers are octal digits")
    return int(digits, base=8)


def _after(descriptor: int, member: Member, end: int) -> int:
    """Offset of the header after a member, whose padding must be zero."""
    stop = member.offset + member.size_bytes
    padding_bytes = -member.size_bytes % BLOCK_BYTES
    if stop + padding_bytes > end:
        raise _truncated()
    if any(_read(descriptor, stop, padding_bytes)):
        raise _refused(member.name, "zeros follow it up to a full block")
    return stop + padding_bytes


def _check_end(descriptor: int, offset: int, end: int) -> None:
    smallest = offset + END_BLOCKS_MIN * BLOCK_BYTES
    if end != smallest + -smallest % RECORD_BYTES:
        raise _truncated() if end < smallest else _refused("", "it ends with the first full record after its members")
    if any(any(data) for data in pieces(descriptor, offset, end - offset)):
        raise _refused("", "nothing but zeros follows its members")


def _read(descriptor: int, offset: int, size_bytes: int) -> bytes:
    data = os.pread(descriptor, size_bytes, offset)
    if len(data) < size_bytes:
        raise _truncated()
    return data


def _shown(header: bytes) -> str:
    return header[NAME_FIELD].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _truncated() -> VerificationError:
    rule = "it is whole, up to its last record"
    return VerificationError(f"cannot accept the bundle: it ends too early; {rule}", code="bundle_truncated", rule=rule)


def _refused(name: str, rule: str) -> VerificationError:
    what = f"member {name!r} of the bundle" if name else "the bundle"
    message = f"cannot accept {what}: {rule}"
    return VerificationError(message, code="bundle_not_canonical", field=name, value=name, rule=rule)
