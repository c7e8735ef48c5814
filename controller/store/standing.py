"""Standing by while another controller leads on the same database, and leading until another has taken over.

Rules kept: who stands by has read nothing but who leads, and changes nothing; who leads no more is told within a part
of the lease, also where it has nothing to write. Left out: who leads (`leading`), and what is served meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from controller.config import stores
from controller.core import errors
from controller.store import database, executor

STAND_BY_SECONDS = 1.0  # between two looks whether the leader is gone

_log = logging.getLogger(__name__)


async def opened(where: Path | stores.PostgreSQL, *, is_patient: bool = False) -> database.Store:
    """Open a store, with a thread for its writes; wait while another controller leads on its database.

    Args:
        where: The file, or the database.
        is_patient: Wait too where the database does not answer; else only once it has.

    Raises:
        RefusedError: Another controller has the file open, or the store is none for this program.
        UnavailableError: The database does not answer, and has not answered before.
    """
    told = ""
    while True:
        try:
            return database.Store(where, executor.WriterThread())
        except (errors.RefusedError, errors.UnavailableError) as error:
            is_away = isinstance(error, errors.UnavailableError)
            is_waiting = (is_patient or told) if is_away else error.code == "store_in_use"
            if isinstance(where, Path) or not is_waiting:
                raise
            if error.code != told:
                _log.info("stands by: %s", error)
            told = error.code
        await asyncio.sleep(STAND_BY_SECONDS)


@contextlib.asynccontextmanager
async def leading(store: database.Store) -> AsyncIterator[None]:
    """Stay the one that writes to the store while the block runs; the block is cancelled where another takes over.

    Raises:
        UnavailableError: Another controller has taken over, code ``lease_lost``.
    """
    try:
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(store.keep(), name="lease")
            yield
            keeping.cancel()
    except BaseExceptionGroup as found:
        raise found.exceptions[0] from None
