"""The audit log of one life of a controller: its rows, each hung on the one before, in the transaction that it is of.

Rules kept: the head lives with whoever writes, and moves only when a transaction is durable; after one of which that is
not known it is read again. The first row of a life begins an epoch, which seals the one before. Left out: what a chain
is (`controller.core.audit`), and what keeps rows as they are, which the database does itself (`tables`). Once rows may
be forgotten, it will be whole sealed epochs: what hangs on their head shows that it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from controller.core.audit import chain
from controller.store import audits, forms, tables


class Chaining:
    """What goes on with each transaction of one writer.

    ``head`` is what is known to be durable; None before the first row of this life, and where it is in doubt.
    """

    def __init__(self) -> None:
        self._epoch: chain.Epoch | None = None
        self.head: chain.Head | None = None
        self._drafted: tuple[chain.Epoch, chain.Head] | None = None

    def start(self) -> None:
        """Forget what was drafted by a transaction that came to nothing."""
        if self._drafted is not None:
            self.doubt()

    def write(self, connection: sa.Connection, entries: Sequence[chain.Entry], at: datetime) -> None:
        """Write what was done, inside the transaction that the caller began."""
        if not entries:
            return
        epoch = self._epoch or _begun(connection, at)
        head = self.head or audits.head_of(connection, epoch)
        written = []
        for entry in entries:
            row = chain.follow(head, _plain(entry))
            head = row.head
            written.append(forms.audit_row(row))
        connection.execute(sa.insert(tables.audit), written)
        self._drafted = (epoch, head)

    def settle(self) -> None:
        """Go on from what was written: the transaction is durable."""
        if self._drafted is not None:
            self._epoch, self.head = self._drafted
            self._drafted = None

    def doubt(self) -> None:
        """Read the head again before the next row: nobody knows whether the transaction is durable."""
        self.head = self._drafted = None


def _begun(connection: sa.Connection, at: datetime) -> chain.Epoch:
    epoch = chain.begin(audits.head(connection), at)
    connection.execute(sa.insert(tables.audit_epochs), [forms.audit_epoch_row(epoch)])
    return epoch


def _plain(entry: chain.Entry) -> chain.Entry:
    """Put a mark where an entry has NUL, which not every database can hold: what is hashed is what is stored."""
    told = (entry.actor, entry.action, entry.subject, entry.reason, entry.result)
    if not any("\0" in each for each in told):
        return entry
    return chain.Entry(entry.at, *(each.replace("\0", "\N{REPLACEMENT CHARACTER}") for each in told))
