"""What the load client notes of each request: one line of text each, so that two processes can share the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, unique
from pathlib import Path

from controller.cli.demo import exchange

FIELDS = 6  # of one line, parted by tabs


@unique
class Kind(Enum):
    """How a request came to the service."""

    NEW_CONNECTION = "new"
    KEEP_ALIVE = "keep"


@dataclass(frozen=True, slots=True)
class Record:
    """One request.

    Args:
        due_at: When it was to be sent; an open-loop client sends whether or not earlier ones were answered.
        latency_ms: From then until its end, so that waiting for a slow server is counted.
        version: Who answered; empty when nobody did.
        failure: None when it was answered.
    """

    due_at: datetime
    latency_ms: float
    node_id: str
    kind: Kind
    version: str
    failure: exchange.Failure | None


def line(record: Record) -> str:
    """The record as one line, newline included."""
    return (
        "\t".join(
            (
                f"{record.due_at.timestamp():.6f}",
                f"{record.latency_ms:.3f}",
                record.node_id,
                record.kind.value,
                record.version or "-",
                record.failure.value if record.failure else "-",
            )
        )
        + "\n"
    )


def read(path: Path) -> Iterator[Record]:
    """The records of a file so far; a last line that is still being written is left out."""
    with path.open(encoding="ascii") as lines:
        for text in lines:
            if text.endswith("\n"):
                yield parsed(text)


def number(path: Path) -> int:
    """How many records a file has so far."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def parsed(text: str) -> Record:
    """The record that one line holds.

    Raises:
        ValueError: It is no such line.
    """
    fields = text.rstrip("\n").split("\t")
    if len(fields) != FIELDS:
        raise ValueError(f"cannot read a request record of {len(fields)} fields: {FIELDS} are needed")
    due_at, latency_ms, node_id, kind, version, failure = fields
    return Record(
        due_at=datetime.fromtimestamp(float(due_at), UTC),
        latency_ms=float(latency_ms),
        node_id=node_id,
        kind=Kind(kind),
        version="" if version == "-" else version,
        failure=None if failure == "-" else exchange.Failure(failure),
    )
