"""The bytes of the journal: a preallocated file of aligned slots, each holding one record or nothing.

Rules kept here: a slot is header and payload under one checksum, so a torn write is an empty slot and never a wrong
record; a slot never spans two pages, so writing one cannot harm another. Left out: what a record means.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent import durability

SLOT_BYTES = 4096  # one page, the largest piece that disks and page caches write at once
SLOT_COUNT = 512  # 2 MiB; an operation takes about 30, so a node may be cut off for more than ten of them
MAGIC = b"ISJ1"  # says the version of the format; another one is not read
HEADER = struct.Struct("<4sQII")  # magic, sequence, payload bytes, crc32 of the two numbers and the payload
PAYLOAD_BYTES_MAX = SLOT_BYTES - HEADER.size
EMPTY = bytes(SLOT_BYTES)


@dataclass(frozen=True, slots=True)
class Slot:
    """One filled slot; ``sequence`` is the order of writing."""

    index: int
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """What a journal file holds.

    Args:
        slots: Filled slots in the order of writing.
        slot_count: Number of whole slots of the file.
        damaged: Indices of slots that hold something that is no record: torn writes.
    """

    slots: tuple[Slot, ...]
    slot_count: int
    damaged: tuple[int, ...]


def pack(sequence: int, payload: bytes) -> bytes:
    """Make the bytes of a whole slot."""
    header = HEADER.pack(MAGIC, sequence, len(payload), _checksum(sequence, payload))
    return (header + payload).ljust(SLOT_BYTES, b"\0")


def unpack(index: int, data: bytes) -> Slot | None:
    """Read the bytes of a slot; None where no record stands in them whole."""
    magic, sequence, size_bytes, checksum = HEADER.unpack_from(data)
    payload = data[HEADER.size : HEADER.size + size_bytes]
    is_whole = magic == MAGIC and size_bytes == len(payload) and checksum == _checksum(sequence, payload)
    return Slot(index, sequence, payload) if is_whole else None


def write(descriptor: int, index: int, data: bytes) -> None:
    """Put the bytes of a whole slot in its place, not yet durably."""
    if os.pwrite(descriptor, data, index * SLOT_BYTES) != SLOT_BYTES:
        raise OSError(errno.EIO, "only a part of a slot was written")


def load(descriptor: int) -> Image:
    """Read all slots of an open journal file; a last slot that is not whole does not count."""
    filled: list[Slot] = []
    damaged: list[int] = []
    slot_count = os.fstat(descriptor).st_size // SLOT_BYTES
    for index, data in _pages(descriptor, slot_count):
        slot = unpack(index, data)
        if slot is not None:
            filled.append(slot)
        elif data != EMPTY:
            damaged.append(index)
    return Image(tuple(sorted(filled, key=lambda slot: slot.sequence)), slot_count, tuple(damaged))


def preallocate(descriptor: int, directory: Path) -> None:
    """Give a new file its room on disk, durably, so that no later write can find the disk full."""
    try:
        os.posix_fallocate(descriptor, 0, SLOT_COUNT * SLOT_BYTES)
    except OSError:
        os.ftruncate(descriptor, 0)
        raise
    os.fsync(descriptor)
    durability.sync_directory(directory)


def _pages(descriptor: int, slot_count: int) -> Iterator[tuple[int, bytes]]:
    for index in range(slot_count):
        yield index, os.pread(descriptor, SLOT_BYTES, index * SLOT_BYTES)


def _checksum(sequence: int, payload: bytes) -> int:
    return zlib.crc32(struct.pack("<QI", sequence, len(payload)) + payload)
