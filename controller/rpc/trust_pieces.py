"""Files of signed metadata as the pieces in which they travel, and back.

Rules kept: what comes in is bounded by count and size before it is looked at; names are checked by who reads the files.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Protocol

from controller.core import errors

PIECE_BYTES = 1 << 20  # 1 MiB: half of what gRPC lets in as one message
FILES_MAX = 2_048  # twice the components of one repository
BYTES_MAX = 64 << 20  # of all files of one put: more than a thousand components need


class Piece(Protocol):
    """A piece of one file."""

    name: str
    content: bytes
    is_last_piece: bool


def cut(files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes, bool]]:
    """Names and pieces, each with whether it is the last one of its file."""
    for name, content in files:
        for start in range(0, max(1, len(content)), PIECE_BYTES):
            end = start + PIECE_BYTES
            yield name, content[start:end], end >= len(content)


async def joined(pieces: AsyncIterator[Piece]) -> list[tuple[str, bytes]]:
    """The files whose pieces come.

    Raises:
        InvalidRequestError: They are too many or too large, or a file does not end before the next one begins.
    """
    files: list[tuple[str, bytes]] = []
    name, parts, size = "", list[bytes](), 0
    async for piece in pieces:
        if parts and piece.name != name:
            raise _invalid("name", piece.name[:200], f"{name}, of which the last piece has not come")
        name, size = piece.name, size + len(piece.content)
        if size > BYTES_MAX or len(files) >= FILES_MAX:
            raise _invalid("content", f"{len(files)} files", f"at most {FILES_MAX} files and {BYTES_MAX} bytes")
        parts.append(piece.content)
        if piece.is_last_piece:
            files.append((name, b"".join(parts)))
            parts = []
    if parts or not files:
        raise _invalid("content", name[:200], "one whole file at least, and whole to the last one")
    return files


def _invalid(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot take {field} {value!r}: it must be {rule}",
        code="metadata_invalid",
        field=field,
        value=value,
        rule=rule,
    )
