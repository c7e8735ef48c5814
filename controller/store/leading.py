"""Which controller writes to a database that several reach: one at a time, for a term that has a number.

Theory of operation. The leader's every transaction begins by setting its time anew, under its term. Another takes over
once that time has passed, by the database's clock, and raises the term: from then on every transaction of the one
before finds no row of its term, and fails as a whole. The row is locked from the begin of a transaction to its end; so
a takeover waits for what is being written, and then finds that it comes too early.

Rules kept: the time is a hint for others, the term is the lock; who stood still for however long writes nothing.
Left out: what a controller does that leads no more (`controller.server`).
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import sqlalchemy as sa

from controller.core import errors
from controller.store import migration, tables

LEASE_LOST = "lease_lost"
_TABLE = tables.leadership
_UNTIL = "expires_at = clock_timestamp() + make_interval(secs => :seconds)"
_TAKE = sa.text(
    f"UPDATE leadership SET term = term + 1, owner = :owner, {_UNTIL}"  # noqa: S608  # ours
    " WHERE expires_at < clock_timestamp() RETURNING term"
)
# One question instead of three: each is a way to the server and back.
RENEWAL = f"WITH led AS (UPDATE leadership SET {_UNTIL} WHERE term = :term RETURNING term)"  # noqa: S608  # ours
IS_LED = "(SELECT term FROM led)"
_RELEASE = sa.text("UPDATE leadership SET expires_at = to_timestamp(0) WHERE term = :term")
_HOLDER = sa.text("SELECT owner FROM leadership WHERE expires_at >= clock_timestamp()")


def take(connection: sa.Connection, shown: str, lease: timedelta) -> int:
    """Begin a term, and bring the tables to the form that this program needs, in one transaction of the caller.

    Args:
        connection: On which the transaction began; its statements see what was committed before each.
        shown: The database, for people.
        lease: Time after which others may take over.

    Raises:
        RefusedError: Another controller leads, code ``store_in_use``; or a newer program wrote the tables.
    """
    migration.check(connection, shown)
    is_made = sa.inspect(connection).has_table(_TABLE.name)
    if not is_made:
        migration.upgrade(connection, shown)
    told = {"owner": f"{socket.gethostname()}:{os.getpid()}", "seconds": lease.total_seconds()}
    term = connection.scalar(_TAKE, told)
    if term is None:
        raise _in_use(shown, connection.scalar(_HOLDER) or "one that has just begun")
    if is_made:  # only now: whoever led before writes no more
        migration.upgrade(connection, shown)
    return int(term)


def check_free(connection: sa.Connection, shown: str) -> None:
    """Look without locking anything whether it is of any use to ask for a term.

    Raises:
        RefusedError: Another controller leads, code ``store_in_use``; or a newer program wrote the tables.
    """
    migration.check(connection, shown)
    if sa.inspect(connection).has_table(_TABLE.name) and (holder := connection.scalar(_HOLDER)):
        raise _in_use(shown, holder)


def release(connection: sa.Connection, term: int) -> None:
    """End a term: others need not wait for its time to pass."""
    connection.execute(_RELEASE, {"term": term})


def lost(shown: str) -> errors.UnavailableError:
    """Say that another controller leads by now."""
    return errors.UnavailableError(
        f"cannot write to the store {shown}: another controller has taken over",
        code=LEASE_LOST,
        field="store",
        value=shown,
        rule="one controller at a time writes to a store; ask again, and the one that leads answers",
    )


def _in_use(shown: str, holder: str) -> errors.RefusedError:
    return errors.RefusedError(
        f"cannot open the store {shown}: the controller {holder} leads",
        code="store_in_use",
        field="store",
        value=shown,
        rule="one controller at a time opens a store",
    )
