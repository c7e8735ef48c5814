"""The audit log as those see it who read it: page by page, whole and in order, and up to where it goes.

Rules kept: what is read is committed; where it ends the writer says, so that a tail that was cut off is missed; a long
log is read in pieces, between which the rest of the controller works. Left out: writing it, which is done in the
transaction of what it tells.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass

from controller.core import access, model
from controller.core.audit import chain, checking, choosing
from controller.engine import acts, office, stepping
from controller.engine import draft as drafts
from controller.store import audits, reading

ROWS_AT_ONCE = 500  # of one read: some three milliseconds
ROWS_LOOKED_AT = 2_000  # for one page: what is rare is found over several


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the rows that are wanted, newest first.

    Args:
        goes_on: Where the next page begins; None where this is the last one.
    """

    rows: tuple[chain.Row, ...]
    goes_on: chain.Place | None


class Audits(office.Office):
    """The audit log."""

    def audit_head(self) -> chain.Head:
        """Say up to where the audit log goes."""
        return self._store.audit_head()

    def audit_page(self, wanted: choosing.Wanted, before: chain.Place | None, limit: int) -> Page:
        """Find rows, newest first; a page may be short, or empty, though more follow.

        Args:
            wanted: Which.
            before: Where the page before has ended; None for the first one.
            limit: Largest number of rows.
        """
        seen = self._store.read(lambda connection: audits.before(connection, before, wanted.subject, ROWS_LOOKED_AT))
        found: list[chain.Row] = []
        for row in seen:
            if wanted.takes(row.entry):
                found.append(row)
                if len(found) == limit:
                    return Page(tuple(found), row.head.place)
        return Page(tuple(found), seen[-1].head.place if len(seen) == ROWS_LOOKED_AT else None)

    def audit_from(self, begin: chain.Head, end: chain.Head) -> AsyncIterator[tuple[chain.Record, ...]]:
        """Read everything behind one head up to another, in order, in pieces.

        Raises:
            NotFoundError: The audit log does not go through the first one, code ``audit_head_not_found``.
        """
        if not self._store.read(lambda connection: audits.passes(connection, begin)):
            raise office.not_found("audit_head", "since", str(begin))
        return self._records(begin, end)

    async def _records(self, begin: chain.Head, end: chain.Head) -> AsyncIterator[tuple[chain.Record, ...]]:
        place = begin.place
        while place < end.place:
            found = self._store.read(functools.partial(audits.following, place=place, limit=ROWS_AT_ONCE))
            if not found:
                return
            yield tuple(each for each in found if each.head.place <= end.place)
            place = found[-1].head.place
            await asyncio.sleep(0)

    async def verify_audit(self, since: chain.Head | None) -> checking.Report:
        """Look for whatever is wrong with the audit log as it is stored.

        Args:
            since: A head that was known earlier; None for none.
        """
        running, end = checking.Check(since=since), self.audit_head()
        async for records in self._records(chain.GENESIS, end):
            for record in records:
                running.take(record)
        return running.end(end)

    async def note_access(self, subject: str, facts: access.Facts) -> None:
        """Write how what decides who may do what differs from what was written of it last; nothing where it does not.

        The facts and the row are of one transaction, so that a change is told once, whenever it was made.

        Args:
            subject: Where the facts are from; one note of it at a time.
            facts: All of them, as they are now.
        """

        def work(draft: drafts.Draft) -> None:
            before = self._store.read(functools.partial(reading.access, subject=subject))
            if before != facts:
                draft.put_access(subject, facts)
                draft.put_audit(stepping.CONTROLLER_ACTOR, "access.change", subject, access.told(before, facts))

        await self._desk.submit(work)

    async def note_log_read(self, node_id: model.NodeId, component: model.ComponentName, *, actor: str) -> None:
        """Write that somebody was given the log of a component."""

        def work(draft: drafts.Draft) -> None:
            draft.put_audit(actor, acts.name("read_log"), f"{node_id} {component}")

        await self._desk.submit(work)
