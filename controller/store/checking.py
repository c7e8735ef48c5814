"""Looks whether a store is whole: its file, every row, each rollout by its rules and by its journal, the audit log.

Rules kept: everything is read within one transaction, so that a controller may go on writing; nothing is changed; one
fault does not hide the next. A rollout is worked out anew from its journal and has to come out as it is stored, where
this version of the program has written all of it: another one may have decided otherwise. Left out: repair; what is
broken is put back from a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import sqlalchemy as sa

from controller.core import errors, events, invariants, model
from controller.core import rollout as rollouts
from controller.core.audit import chain
from controller.core.audit import checking as chains
from controller.store import audits, codec, forms, migration, reading, rows, tables

_AUDIT_AT_ONCE = 1000
# What reading raises where a row is not what this program writes.
_UNREADABLE = (
    errors.InstarError,
    codec.CodecError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    sa.exc.SQLAlchemyError,
)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong.

    Args:
        place: What it is about, such as ``rollout r12`` or ``audit 3/17``.
    """

    place: str
    message: str


@dataclass(slots=True)
class Counts:
    """What was looked at."""

    rollouts: int = 0
    events: int = 0
    replayed: int = 0
    audit_rows: int = 0


class Check:
    """One look at a store.

    Args:
        has_bundle: Tells whether the bundle of a digest is where it should be.
        progress: Told what is looked at, how many of it are done, and how many there are.
    """

    def __init__(self, has_bundle: Callable[[model.Digest], bool], progress: Progress) -> None:
        self._has_bundle = has_bundle
        self._progress = progress
        self.counts = Counts()

    def findings(self, connection: sa.Connection) -> Iterator[Finding]:
        """Go through everything that is wrong, inside a transaction that the caller began."""
        if faults := _faults_of_file(connection):
            yield from faults  # of what it says nothing can be believed
            return
        yield from _form(connection)
        yield from self._engine(connection)
        yield from self._rollouts(connection)
        yield from self._audit(connection)

    def _engine(self, connection: sa.Connection) -> Iterator[Finding]:
        """Read what an engine starts from: all but what is over."""
        self._progress("state", 0, 1)
        try:
            found = reading.snapshot(connection)
        except _UNREADABLE as error:
            yield Finding("state", f"an engine could not start from it: {error}")
            return
        for release in found.releases:
            if not self._has_bundle(release.digest):
                yield Finding(
                    f"release {release.component} {release.version}", f"its bundle {release.digest} is missing"
                )
        self._progress("state", 1, 1)

    def _rollouts(self, connection: sa.Connection) -> Iterator[Finding]:
        ids = connection.scalars(sa.select(tables.rollouts.c.rollout_id).order_by("rollout_id")).all()
        for number, rollout_id in enumerate(ids):
            self._progress("rollouts", number, len(ids))
            self.counts.rollouts += 1
            try:
                faults = list(self._of_rollout(connection, model.RolloutId(rollout_id)))
            except _UNREADABLE as error:
                faults = [f"it cannot be read: {error}"]
            yield from (Finding(f"rollout {rollout_id}", fault) for fault in faults)
        self._progress("rollouts", len(ids), len(ids))

    def _of_rollout(self, connection: sa.Connection, rollout_id: model.RolloutId) -> Iterator[str]:
        stored = reading.rollout(connection, rollout_id)
        assert stored is not None  # noqa: S101  # its row was read in this transaction
        yield from invariants.violations(stored)
        reading.lease(connection, rollout_id)
        happened = reading.journal(connection, rollout_id)
        self.counts.events += len(happened)
        if happened and reading.writers_of(connection, rollout_id) == {forms.CORE_VERSION}:
            self.counts.replayed += 1
            yield from differences(stored, happened)

    def _audit(self, connection: sa.Connection) -> Iterator[Finding]:
        running, place = chains.Check(), chain.Place(0, 0)
        total = connection.scalar(sa.select(sa.func.count()).select_from(tables.audit)) or 0
        while records := audits.following(connection, place, _AUDIT_AT_ONCE):
            for record in records:
                running.take(record)
            self.counts.audit_rows += sum(isinstance(each, chain.Row) for each in records)
            self._progress("audit", self.counts.audit_rows, total)
            place = records[-1].head.place
        report = running.end(audits.head(connection))
        for each in report.findings:
            yield Finding(f"audit {each.place.epoch}/{each.place.position}", each.message)


def differences(stored: model.Rollout, happened: Sequence[rows.Occurrence]) -> Iterator[str]:
    """Name each field in which a rollout differs from what its journal leads to."""
    current = _created(stored, happened)
    for each in happened:
        if current.approval is stored.approval is not None and isinstance(each.event, events.Approved):
            continue  # it is approved already
        try:
            current = replace(rollouts.step(current, each.event).rollout, revision=each.revision)
        except errors.InstarError as error:
            yield f"its journal cannot have led to it: {error}"
            return
    for name in (field.name for field in fields(model.Rollout)):
        if not getattr(current, name) == getattr(stored, name):  # noqa: SIM201  # of persistent maps != tells nothing
            yield f"its journal leads to another {name}"


def _created(stored: model.Rollout, happened: Iterable[rows.Occurrence]) -> model.Rollout:
    """Give a rollout as it was asked for; of the plan before the present one only the approval is left."""
    made = rollouts.create(stored.id, stored.request, stored.plan, actor=stored.actor, at=stored.created_at)
    is_replanned = any(isinstance(each.event, events.Began) and each.event.plan is not None for each in happened)
    return replace(made, approval=stored.approval) if is_replanned else made


def _faults_of_file(connection: sa.Connection) -> Sequence[Finding]:
    if connection.dialect.name != "sqlite":
        return ()  # a server looks after its files itself
    try:
        told = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(20)")]
    except sa.exc.DatabaseError as error:
        told = [str(error.orig)]
    return [Finding("file", fault) for fault in told if fault != "ok"]


def _form(connection: sa.Connection) -> Iterator[Finding]:
    form, wanted = migration.form_of(connection), migration.newest()
    if form != wanted:
        yield Finding("form", f"it has form {form}, and this program needs {wanted}: `instar store migrate`")
