"""Finds what is wrong with a chain: where, and what.

Rules kept: records are taken one by one, so that a log of any length is checked in little memory; one fault is told
once, and what stands behind it is judged by itself. A chain that was cut at its end is whole by itself: only a head
says that more was there. Left out: where the records come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, unique

from controller.core.audit import chain

FINDINGS_MAX = 100  # more is no longer for people: the rest is not looked at


@unique
class Fault(Enum):
    """What is wrong."""

    CHANGED = "CHANGED"  # the fields do not give the hash
    UNLINKED = "UNLINKED"  # it was written behind something else than what stands before it
    MISSING = "MISSING"
    MISPLACED = "MISPLACED"  # it stands behind what was written later
    REPEATED = "REPEATED"
    FORKED = "FORKED"  # two different ones claim one place
    INSERTED = "INSERTED"  # it stands behind the end
    TRUNCATED = "TRUNCATED"  # the chain ends before a known head


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and where."""

    fault: Fault
    place: chain.Place
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a check.

    Args:
        findings: By place; the first FINDINGS_MAX.
        rows: Rows that were looked at.
        epochs: Beginnings of epochs that were.
        head: Where the chain ends.
        is_whole: False where there were so many findings that the rest was not looked at.
    """

    findings: tuple[Finding, ...]
    rows: int
    epochs: int
    head: chain.Head
    is_whole: bool


@dataclass(frozen=True, slots=True)
class _Gap:
    """Places of one epoch that nothing was found at so far; `wanted` is the hash of what should stand at the last."""

    epoch: int
    first: int
    last: int
    wanted: str

    def has(self, place: chain.Place) -> bool:
        """Tell whether a place is in it."""
        return self.epoch == place.epoch and self.first <= place.position <= self.last


class Check:
    """One check of a chain.

    Args:
        begin: What the first record must hang on.
        since: A head that was known earlier, and that the chain must go through.
    """

    def __init__(self, begin: chain.Head = chain.GENESIS, since: chain.Head | None = None) -> None:
        self._head = begin
        self._since = None if since == begin else since
        self._last: chain.Record | None = None
        self._gaps: list[_Gap] = []
        self._skipped: list[tuple[int, int]] = []
        self._late: set[int] = set()
        self._findings: list[Finding] = []
        self._rows = 0
        self._epochs = 0

    @property
    def is_over(self) -> bool:
        """True once so much was found that nothing more is looked at."""
        return len(self._findings) + len(self._gaps) + len(self._skipped) >= FINDINGS_MAX

    def take(self, record: chain.Record) -> None:
        """Look at the next record."""
        if self.is_over:
            return
        place = record.head.place
        if chain.hash_of(record) != record.hash:
            self._find(Fault.CHANGED, place, f"its fields do not give its hash {record.hash}")
        self._pass(record.head)
        if isinstance(record, chain.Row):
            self._rows += 1
            self._take_row(record)
        else:
            self._epochs += 1
            self._take_epoch(record)
        self._last = record

    def end(self, head: chain.Head | None = None, *, must_have_head: bool = False) -> Report:
        """Say what was found.

        Args:
            head: Where whoever gave the records says that the chain ends; None where nobody does.
            must_have_head: Somebody has to say it: what ends without a head was cut off.
        """
        is_whole = not self.is_over
        if is_whole:
            self._miss_what_never_came()
            if must_have_head and head is None:
                self._find(Fault.TRUNCATED, self._head.place, "it ends here, without its head")
            self._compare(head)
            self._look_for_since()
        findings = sorted(self._findings, key=lambda each: each.place)
        return Report(tuple(findings), self._rows, self._epochs, self._head, is_whole)

    def _take_row(self, row: chain.Row) -> None:
        place = row.head.place
        if row.position < 1 or place <= self._head.place:
            self._take_late(row)
            return
        if row.epoch > self._head.epoch:
            self._skip_to(row.epoch)
            self._gaps.append(_Gap(row.epoch, 0, row.position - 1, row.previous_hash))
        elif row.position > self._head.position + 1:
            self._gaps.append(_Gap(row.epoch, self._head.position + 1, row.position - 1, row.previous_hash))
        elif row.previous_hash != self._head.hash:
            self._find(Fault.UNLINKED, place, f"it was written behind another one than the {self._head.place} of here")
        self._head = row.head

    def _take_epoch(self, epoch: chain.Epoch) -> None:
        if epoch.number <= self._head.epoch:
            self._take_late(epoch)
            return
        self._skip_to(epoch.number)
        if epoch.number == self._head.epoch + 1:
            self._compare_seal(epoch)
        self._head = epoch.head

    def _skip_to(self, number: int) -> None:
        """Note that whole epochs are missing before one."""
        if number > self._head.epoch + 1:
            self._skipped.append((self._head.epoch + 1, number - 1))

    def _compare_seal(self, epoch: chain.Epoch) -> None:
        sealed, here = epoch.previous, self._head
        if sealed.place > here.place:
            self._gaps.append(_Gap(here.epoch, here.position + 1, sealed.position, sealed.hash))
        elif sealed.place < here.place:
            what = f"it stands behind the end of its epoch, which was sealed at {sealed.place}"
            self._find(Fault.INSERTED, chain.Place(here.epoch, sealed.position + 1), what)
        elif sealed.hash != here.hash:
            what = f"it was begun behind another one than the {here.place} of here"
            self._find(Fault.UNLINKED, epoch.head.place, what)

    def _take_late(self, record: chain.Record) -> None:
        """Say what is wrong with something whose place was passed."""
        place = record.head.place
        if record == self._last:
            self._find(Fault.REPEATED, place, "it stands here twice")
        elif self._fill(record) or self._is_of_late_epoch(record):
            self._find(Fault.MISPLACED, place, f"it stands behind {self._head.place}")
        else:
            self._find(
                Fault.FORKED, place, "another one has its place: one of them was put in, or the epoch was forked"
            )

    def _fill(self, record: chain.Record) -> bool:
        """Close the gap that something belongs into; tell whether there is one."""
        place = record.head.place
        found = next((each for each in self._gaps if each.has(place)), None)
        if found is None:
            return False
        self._gaps.remove(found)
        if place.position > found.first:
            known = record.previous_hash if isinstance(record, chain.Row) else ""
            self._gaps.append(_Gap(found.epoch, found.first, place.position - 1, known))
        if place.position < found.last:
            self._gaps.append(_Gap(found.epoch, place.position + 1, found.last, found.wanted))
        elif record.hash != found.wanted:
            behind = chain.Place(place.epoch, place.position + 1)
            self._find(Fault.UNLINKED, behind, f"it was written behind another one than the {place} of here")
        return True

    def _is_of_late_epoch(self, record: chain.Record) -> bool:
        """Tell whether something belongs to an epoch that was missing before another one."""
        number = record.head.epoch
        for first, last in self._skipped:
            if first <= number <= last:
                if isinstance(record, chain.Epoch):
                    self._skipped.remove((first, last))
                    rest = ((first, number - 1), (number + 1, last))
                    self._skipped += [each for each in rest if each[0] <= each[1]]
                    self._late.add(number)
                return True
        return number in self._late

    def _pass(self, head: chain.Head) -> None:
        """Note that a head that was known earlier is passed, or what is there in its place."""
        if self._since is not None and head.place == self._since.place:
            if head != self._since:
                what = f"it is another one than the {self._since.hash} that was here earlier"
                self._find(Fault.FORKED, head.place, what)
            self._since = None

    def _miss_what_never_came(self) -> None:
        for gap in self._gaps:
            self._find(Fault.MISSING, chain.Place(gap.epoch, gap.first), _missing(gap))
        for first, last in self._skipped:
            what = f"epoch {first} is missing" if first == last else f"epochs {first} to {last} are missing"
            self._find(Fault.MISSING, chain.Place(first, 0), what)

    def _compare(self, head: chain.Head | None) -> None:
        here = self._head
        if head is None or head == here:
            return
        if head.place > here.place:
            self._find(Fault.TRUNCATED, here.place, f"the chain ends here, but its head is {head}")
        elif head.place < here.place:
            self._find(Fault.INSERTED, here.place, f"it stands behind the head {head}")
        else:
            self._find(Fault.FORKED, here.place, f"the chain ends here with {here.hash}, but its head is {head.hash}")

    def _look_for_since(self) -> None:
        since = self._since
        if since is None:
            return
        if since.place > self._head.place:
            what = f"the chain ends here, before the head {since} that was known earlier"
            self._find(Fault.TRUNCATED, self._head.place, what)
        else:
            self._find(Fault.MISSING, since.place, f"the head {since} that was known earlier is not here")

    def _find(self, fault: Fault, place: chain.Place, message: str) -> None:
        self._findings.append(Finding(fault, place, message))


def check(records: Iterable[chain.Record], begin: chain.Head = chain.GENESIS, head: chain.Head | None = None) -> Report:
    """Check records that are at hand, in their order.

    Args:
        records: Beginnings of epochs and rows.
        begin: What the first of them must hang on.
        head: Where the chain is said to end; None where nothing is known of it.
    """
    running = Check(begin)
    for record in records:
        running.take(record)
    return running.end(head)


def _missing(gap: _Gap) -> str:
    if gap.first == gap.last:
        return "the beginning of the epoch is missing" if gap.last == 0 else "the row is missing"
    first = "the beginning" if gap.first == 0 else f"row {gap.first}"
    return f"{first} to row {gap.last} are missing"
