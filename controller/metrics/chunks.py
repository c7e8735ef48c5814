"""The form in which a stretch of a node's series is stored: compact, and complete enough to go on from.

Rules kept: what was written is read again bit for bit; each body carries the version of its form, and one of another
form is an error, never a guess. Left out: when it is written and read (`keeping`).
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from controller.metrics import windows

VERSION = 1
_LEVEL = 1  # of compression: a third of the size; more costs ten times the time for a twentieth
_HEAD_BYTES = 4  # length of the head


class ChunkError(Exception):
    """A body cannot be read."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Readings of one component on one node.

    Args:
        kinds: Of each series, by name, whether it is a counter; in the order of the columns.
        times: Of the readings, in seconds since 1970.
        values: What is kept of them, [reading, series].
        seen: What the node last told of each series, when the chunk was made.
        total: What each had come to by then.
        life: Number of the process that counted then.
        latest: When that was, in seconds since 1970.
    """

    kinds: dict[str, bool]
    times: windows.Floats
    values: windows.Floats
    seen: windows.Floats
    total: windows.Floats
    life: int
    latest: float


def only(chunk: Chunk, names: Collection[str]) -> Chunk:
    """Leave out the series of a chunk that are not among these."""
    kept = [column for column, name in enumerate(chunk.kinds) if name in names]
    return dataclasses.replace(
        chunk,
        kinds={name: kind for name, kind in chunk.kinds.items() if name in names},
        values=chunk.values[:, kept],
        seen=chunk.seen[kept],
        total=chunk.total[kept],
    )


def encode(chunk: Chunk) -> bytes:
    """Write a chunk."""
    head = json.dumps({"v": VERSION, "kinds": chunk.kinds, "life": chunk.life, "latest": chunk.latest}).encode()
    arrays = (chunk.seen, chunk.total, chunk.times, chunk.values)
    data = b"".join(np.ascontiguousarray(array, "<f8").tobytes() for array in arrays)
    return zlib.compress(len(head).to_bytes(_HEAD_BYTES, "big") + head + data, _LEVEL)


def decode(body: bytes) -> Chunk:
    """Read a chunk.

    Raises:
        ChunkError: It is damaged, or of another form.
    """
    try:
        data = zlib.decompress(body)
        end = _HEAD_BYTES + int.from_bytes(data[:_HEAD_BYTES], "big")
        head = json.loads(data[_HEAD_BYTES:end])
        if head["v"] != VERSION:
            raise ChunkError(f"cannot read a chunk of form {head['v']!r}: this program reads form {VERSION}")
        series = len(head["kinds"])
        numbers = np.frombuffer(data, "<f8", offset=end).astype(np.float64)
        readings = (len(numbers) - 2 * series) // (series + 1)
        seen, total, times, values = np.split(numbers, np.cumsum([series, series, readings]))
        return Chunk(head["kinds"], times, values.reshape(readings, series), seen, total, head["life"], head["latest"])
    except (zlib.error, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ChunkError(f"cannot read a chunk: {error}") from error
