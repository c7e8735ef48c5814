"""The chain of the audit log: what its rows and epochs are, and how each hangs on the one before it.

Theory of operation. An epoch is one life of a controller that writes. It begins with the head of the epoch before it,
and so seals that one; its rows are numbered from 1 on, and each has the hash of the one before, the first that of the
beginning of its epoch. A hash is SHA-256 over all fields, each behind its length, and behind a word that says what they
are: no two different rows, and no row and epoch, give the same bytes. Whoever knows a head can tell later whether
anything before it was changed, taken away, put in or moved.

Rules kept: the form of what is hashed never changes under its name; a new one gets a new name. Left out: where rows are
kept, and who may read them. What a whole new chain would show, only a head that was kept elsewhere does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from controller.core import copying, errors

ROW_NAME = "instar.audit.row.v1"
EPOCH_NAME = "instar.audit.epoch.v1"
DONE = "done"  # the result of what was not refused
LENGTH_BYTES = 8  # of the length before each field, most significant first
HEAD_RULE = "EPOCH:POSITION:HASH, as `instar audit verify` prints it"
_HEAD = re.compile(r"(0|[1-9][0-9]{0,17}):(0|[1-9][0-9]{0,17}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands in the chain; position 0 is the beginning of its epoch."""

    epoch: int
    position: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.position}"


@dataclass(frozen=True, slots=True)
class Head:
    """Up to where a chain goes: a place, and the hash of what stands there."""

    epoch: int
    position: int
    hash: str

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.epoch, self.position)

    def __str__(self) -> str:
        return f"{self.place}:{self.hash}"


GENESIS = Head(0, 0, "0" * 64)  # before the first epoch


@dataclass(frozen=True, slots=True)
class Entry:
    """Who did what to what, when and why, and what came of it.

    Args:
        result: DONE, or the code of the refusal.
    """

    at: datetime
    actor: str
    action: str
    subject: str
    reason: str
    result: str = DONE


@dataclass(frozen=True, slots=True)
class Row:
    """An entry at its place."""

    epoch: int
    position: int
    entry: Entry
    previous_hash: str
    hash: str

    @property
    def head(self) -> Head:
        """The head of a chain that ends with it."""
        return Head(self.epoch, self.position, self.hash)


@dataclass(frozen=True, slots=True)
class Epoch:
    """The beginning of one life of a controller that writes.

    Args:
        previous: The head of the epoch before it, which is sealed by it.
    """

    number: int
    started_at: datetime
    previous: Head
    hash: str

    @property
    def head(self) -> Head:
        """The head of a chain that ends with it."""
        return Head(self.number, 0, self.hash)


Record: TypeAlias = Epoch | Row


def follow(head: Head, entry: Entry) -> Row:
    """Hang an entry on a head."""
    row = Row(head.epoch, head.position + 1, entry, head.hash, "")
    return copying.replace(row, hash=hash_of(row))


def begin(before: Head, started_at: datetime) -> Epoch:
    """Begin the epoch behind a head, and seal with it the one that the head is of."""
    epoch = Epoch(before.epoch + 1, started_at, before, "")
    return copying.replace(epoch, hash=hash_of(epoch))


def hash_of(record: Record) -> str:
    """Give the hash that a row or the beginning of an epoch must have, as 64 hexadecimal digits."""
    if isinstance(record, Row):
        entry = record.entry
        told = (entry.actor, entry.action, entry.subject, entry.reason, entry.result)
        return _digest(
            (ROW_NAME, str(record.epoch), str(record.position), instant(entry.at), *told, record.previous_hash)
        )
    before = record.previous
    sealed = (str(before.epoch), str(before.position), before.hash)
    return _digest((EPOCH_NAME, str(record.number), instant(record.started_at), *sealed))


def instant(at: datetime) -> str:
    """Write an instant as it is hashed: UTC, with six digits of the second."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def parse_head(text: str, field: str) -> Head:
    """Read a head that somebody kept.

    Raises:
        InvalidRequestError: It breaks HEAD_RULE.
    """
    found = _HEAD.fullmatch(text)
    if found is None:
        raise errors.InvalidRequestError(
            f"cannot use {field} {text[:200]!r}: it must be {HEAD_RULE}",
            code="audit_head_invalid",
            field=field,
            value=text[:200],
            rule=HEAD_RULE,
        )
    return Head(int(found[1]), int(found[2]), found[3])


def _digest(fields: Iterable[str]) -> str:
    parts: list[bytes] = []
    for text in fields:
        told = text.encode()
        parts += (len(told).to_bytes(LENGTH_BYTES, "big"), told)
    return hashlib.sha256(b"".join(parts)).hexdigest()
