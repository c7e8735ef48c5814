"""What a store knows of its having been put back from a copy: read and written inside a transaction of the caller."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from controller.store import codec, replacing, tables

_NAME = "restorations"


@dataclass(frozen=True, slots=True)
class Restoration:
    """A span of which a store knows nothing, though a controller was at work in it.

    Args:
        since: The latest instant that the copy knew of; None where it knew of none.
    """

    since: datetime | None
    until: datetime

    def has(self, at: datetime) -> bool:
        """Tell whether an instant, known to the second as certificates know it, is in the span."""
        return (self.since is None or self.since.replace(microsecond=0) <= at) and at < self.until


def read(connection: sa.Connection) -> tuple[Restoration, ...]:
    """Read all of them, oldest first."""
    text = connection.scalar(sa.select(tables.meta.c.value).where(tables.meta.c.name == _NAME))
    return () if text is None else codec.decode(text, tuple[Restoration, ...])


def add(connection: sa.Connection, restoration: Restoration) -> None:
    """Remember one more."""
    text = codec.encode((*read(connection), restoration), tuple[Restoration, ...])
    replacing.upsert(connection, tables.meta, [{"name": _NAME, "value": text}])
