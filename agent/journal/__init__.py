"""The write-ahead journal of the agent: what it began, how far it came, and what it must never do twice.

Rules kept here: a record is on disk when the call returns; one agent owns the journal (a lock says so); after a failed
write or flush nothing more is written, since what the disk then holds is not known; the slots of an operation are used
again only when it is terminal and the controller has acknowledged it, and its outcome is remembered even then (G4).
Left out: what to do with what is read back: no COMMIT, undo; COMMIT, redo (`agent.runner`).
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, cast

from agent import durability
from agent.core import model, operation
from agent.journal import records, slots
from agent.journal.records import Fact, History, Record, StateRecord

__all__ = [
    "Contents",
    "Fact",
    "History",
    "Journal",
    "JournalError",
    "JournalFailedError",
    "JournalFullError",
    "JournalLockedError",
    "JournalUnreadableError",
    "RecordTooLargeError",
    "StateRecord",
    "read",
]

JOURNAL_NAME = "journal"
IDENTITY_NAME = "identity.json"
RESERVED_SLOTS = 64  # kept for operations that have begun: twice what one takes, so that none is stuck half-way
STATE_DIR_MODE = 0o711  # components under users of their own pass through it; what is private below it is closed
OUTCOMES_MAX = 64  # remembered after their slots are free; an older duplicate is refused by its fence anyway


class JournalError(Exception):
    """The journal cannot do what was asked; the message says why."""


class JournalFullError(JournalError):
    """No slot is free; the controller must acknowledge outcomes first."""


class JournalFailedError(JournalError):
    """A write or flush has failed, now or earlier; nothing is written any more in this life of the agent."""


class JournalLockedError(JournalError):
    """Another agent owns the journal."""


class JournalUnreadableError(JournalError):
    """A file of the journal is whole, but not in a form that this version of the agent reads."""


class RecordTooLargeError(JournalError):
    """A record does not fit a slot, even without its free text."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node must remember longer than any operation; ``committed`` is a digest for each component."""

    highest_fence: int
    outcomes: Mapping[str, model.OperationStatus]
    committed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contents:
    """A journal as it can be read by anybody, for example by `instar-agent status`.

    Args:
        operations: In the order in which they began.
        damaged_slots: Number of slots that hold a torn write.
    """

    operations: tuple[History, ...]
    highest_fence: int
    outcomes: Mapping[str, model.OperationStatus]
    damaged_slots: int


@dataclass(frozen=True, slots=True)
class _Entry:
    index: int
    sequence: int
    record: Record


class Journal:
    """The journal as its one owner has it; `open` makes it.

    Invariant: what `operations`, `highest_fence` and `outcome` answer is on disk.
    """

    def __init__(self, state_dir: Path, descriptor: int) -> None:
        image = slots.load(descriptor)
        self._state_dir = state_dir
        self._descriptor = descriptor
        self._entries = _grouped(image)
        self._sequence = max((slot.sequence for slot in image.slots), default=0)
        used = {entry.index for entries in self._entries.values() for entry in entries}
        self._free = set(range(image.slot_count)) - used
        self._identity = _read_identity(state_dir)
        self._failure = ""

    @classmethod
    def open(cls, state_dir: Path) -> Self:
        """Own the journal of a state directory, made where there is none.

        Raises:
            JournalLockedError: Another agent owns it.
            JournalUnreadableError: It is of another version.
            OSError: The state directory cannot be read or has no room.
        """
        state_dir.mkdir(mode=STATE_DIR_MODE, parents=True, exist_ok=True)
        descriptor = os.open(state_dir / JOURNAL_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor, state_dir)
            if os.fstat(descriptor).st_size == 0:
                slots.preallocate(descriptor, state_dir)
            return cls(state_dir, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Give the journal up, so that another agent can own it."""
        os.close(self._descriptor)

    @property
    def failure(self) -> str:
        """Why nothing is written any more; empty while all is well."""
        return self._failure

    @property
    def operations(self) -> tuple[History, ...]:
        """Everything that is not forgotten, in the order in which it began."""
        return tuple(_history(entries) for entries in self._entries.values())

    @property
    def highest_fence(self) -> int:
        """The highest fence that this node has ever accepted."""
        return self._identity.highest_fence

    @property
    def committed(self) -> Mapping[str, str]:
        """What this node itself last made current, for each component; else somebody has moved it by hand."""
        return self._identity.committed

    def note_committed(self, component: str, digest: str) -> None:
        """Make durable what this node makes current; empty where the component leaves it."""
        if self._identity.committed.get(component, "") != digest:
            committed = {name: kept for name, kept in self._identity.committed.items() if name != component}
            committed |= {component: digest} if digest else {}
            self._write_identity(replace(self._identity, committed=committed))

    def outcome(self, operation_id: str) -> model.OperationStatus | None:
        """How an operation ended whose slots are already free; None where that is not remembered."""
        return self._identity.outcomes.get(operation_id)

    def write_state(self, record: StateRecord) -> None:
        """Make a state record durable.

        Raises:
            JournalFullError, JournalFailedError, RecordTooLargeError: Nothing was written that counts.
        """
        self._write(record)

    def write_step(self, record: model.StepRecord) -> None:
        """Make a step record durable; its operation has a state record already.

        Raises:
            JournalFullError, JournalFailedError, RecordTooLargeError: Nothing was written that counts.
        """
        if record.operation_id not in self._entries:
            raise JournalError(f"cannot write a step of operation {record.operation_id}: it has not begun here")
        self._write(record)

    def raise_fence(self, fence: int) -> None:
        """Make a higher fence durable; a lower one changes nothing."""
        if fence > self._identity.highest_fence:
            self._write_identity(replace(self._identity, highest_fence=fence))

    def forget(self, operation_id: str) -> None:
        """Free the slots of an operation that is terminal and acknowledged, and remember its outcome.

        The newest state record goes last, after the others are durably gone: a crash between leaves an operation that
        is terminal, never one that looks unfinished. An operation that is not there is forgotten already.
        """
        entries = self._entries.get(operation_id)
        if entries is None:
            return
        history = _history(entries)
        latest = history.latest.operation
        if not history.is_terminal:
            raise JournalError(f"cannot forget operation {operation_id}: {latest.phase.value} is not terminal")
        self._remember(operation.status(latest))
        newest = max((entry for entry in entries if isinstance(entry.record, StateRecord)), key=_sequence_of)
        self._erase([entry for entry in entries if entry is not newest])
        self._erase([newest])
        del self._entries[operation_id]
        self._free.update(entry.index for entry in entries)

    def _write(self, record: Record) -> None:
        self._refuse_after_failure()
        operation_id = records.operation_id_of(record)
        payload = records.encode(record, bytes_max=slots.PAYLOAD_BYTES_MAX)
        if payload is None:
            rule = f"a record has at most {slots.PAYLOAD_BYTES_MAX} bytes"
            raise RecordTooLargeError(f"cannot write a record of operation {operation_id}: {rule}")
        index = self._slot_for(operation_id)
        sequence = self._sequence + 1
        self._put([(index, slots.pack(sequence, payload))])
        self._sequence = sequence
        self._free.discard(index)
        self._entries.setdefault(operation_id, []).append(_Entry(index, sequence, records.decode(payload)))

    def _slot_for(self, operation_id: str) -> int:
        reserved = 0 if operation_id in self._entries else RESERVED_SLOTS
        if len(self._free) <= reserved:
            rule = f"{len(self._free)} slots are free and {reserved} are kept for what has begun"
            raise JournalFullError(f"cannot write a record of operation {operation_id}: {rule}")
        return min(self._free)

    def _erase(self, entries: Iterable[_Entry]) -> None:
        self._refuse_after_failure()
        self._put([(entry.index, slots.EMPTY) for entry in entries])

    def _put(self, writes: Iterable[tuple[int, bytes]]) -> None:
        try:
            for index, data in writes:
                slots.write(self._descriptor, index, data)
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._fail(error)

    def _remember(self, status: model.OperationStatus) -> None:
        kept = [item for item in self._identity.outcomes.items() if item[0] != status.operation_id]
        outcomes = dict([*kept, (status.operation_id, status)][-OUTCOMES_MAX:])
        self._write_identity(replace(self._identity, outcomes=outcomes))

    def _write_identity(self, identity: Identity) -> None:
        self._refuse_after_failure()
        try:
            durability.replace_file(self._state_dir / IDENTITY_NAME, json.dumps(records.to_plain(identity)).encode())
        except OSError as error:
            self._fail(error)
        self._identity = identity

    def _fail(self, error: OSError) -> None:
        self._failure = f"cannot write the journal: {error}"
        raise JournalFailedError(self._failure) from error

    def _refuse_after_failure(self) -> None:
        if self._failure:
            raise JournalFailedError(self._failure)


def read(state_dir: Path) -> Contents:
    """Read a journal without owning it; empty where there is none.

    Raises:
        JournalUnreadableError: It is of another version.
        OSError: It cannot be read.
    """
    identity = _read_identity(state_dir)
    try:
        descriptor = os.open(state_dir / JOURNAL_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return Contents((), identity.highest_fence, identity.outcomes, damaged_slots=0)
    try:
        image = slots.load(descriptor)
    finally:
        os.close(descriptor)
    operations = tuple(_history(entries) for entries in _grouped(image).values())
    return Contents(operations, identity.highest_fence, identity.outcomes, len(image.damaged))


def _lock(descriptor: int, state_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise JournalLockedError(f"cannot own the journal in {state_dir}: another agent has it") from error


def _grouped(image: slots.Image) -> dict[str, list[_Entry]]:
    entries: dict[str, list[_Entry]] = {}
    for slot in image.slots:
        try:
            record = records.decode(slot.payload)
        except ValueError as error:
            raise JournalUnreadableError(f"cannot read slot {slot.index} of the journal: {error}") from error
        entries.setdefault(records.operation_id_of(record), []).append(_Entry(slot.index, slot.sequence, record))
    return {key: kept for key, kept in entries.items() if _history(kept).states}  # steps alone say nothing


def _history(entries: Iterable[_Entry]) -> History:
    kept = [entry.record for entry in entries]
    states = tuple(record for record in kept if isinstance(record, StateRecord))
    return History(states, tuple(record for record in kept if isinstance(record, model.StepRecord)))


def _sequence_of(entry: _Entry) -> int:
    return entry.sequence


def _read_identity(state_dir: Path) -> Identity:
    path = state_dir / IDENTITY_NAME
    try:
        document = json.loads(path.read_bytes())
        outcomes = cast("Mapping[str, object]", document["outcomes"])
        statuses = {key: records.from_plain(model.OperationStatus, plain) for key, plain in outcomes.items()}
        return Identity(int(document["highest_fence"]), statuses, dict(document.get("committed", {})))
    except FileNotFoundError:
        return Identity(0, {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalUnreadableError(f"cannot read {path}: {error!r}") from error
