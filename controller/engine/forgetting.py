"""Lets go of what is over and old, in the background.

Rules kept: it is done in small transactions, between which others have their turn; what is cut short, by the end of
this life or a store that fails, is gone on with at the next look. Left out: what may go (`controller.store.retiring`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Never

import sqlalchemy as sa

from controller import clock as clocks
from controller.config import retention
from controller.core import errors, model
from controller.store import database, retiring
from controller.telemetry import ids

LOOK_PERIOD = timedelta(hours=1)
ROWS_AT_ONCE = 500  # in one transaction: some ten milliseconds of the store

_log = logging.getLogger(__name__)
Delete = Callable[[sa.Connection, datetime, int], int]


class Forgetting:
    """Looks for what may go.

    Args:
        kept: How long what is kept.
        forgotten: Told which rollouts have gone.
    """

    def __init__(
        self,
        store: database.Store,
        clock: clocks.Clock,
        kept: retention.Retention,
        forgotten: Callable[[Iterable[model.RolloutId]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._kept = kept
        self._forgotten = forgotten

    async def run(self) -> Never:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_PERIOD.total_seconds())
            try:
                await self.look()
            except errors.InstarError as error:
                _log.warning("cannot let go of what is old now: %s", error)
            except sa.exc.SQLAlchemyError:
                _log.exception("cannot let go of what is old now")

    async def look(self) -> None:
        """Let go of all that is due now."""
        now, kept = self._clock.now(), self._kept
        await self._rollouts(now - kept.rollouts)
        await self._rows(retiring.delete_firings, now - kept.rollouts)
        await self._rows(retiring.delete_outcomes, now - kept.outcomes)
        await self._rows(retiring.delete_refusals, now - kept.refusals)
        await self._rows(retiring.delete_answers, now - kept.answers)
        await self._spans(now - kept.spans)

    async def _rollouts(self, before: datetime) -> None:
        while due := await self._store.write(lambda connection: retiring.due_rollouts(connection, before)):
            gone = [each for each in due if await self._delete_head(each, before)]
            self._forgotten(gone)
            _log.info("%d rollouts that ended before %s are kept no longer", len(gone), before.isoformat())
            if not gone:
                break
        for rollout_id in await self._store.write(retiring.going):
            while await self._delete_rest(rollout_id):
                pass

    async def _delete_head(self, rollout_id: model.RolloutId, before: datetime) -> bool:
        return await self._store.write(lambda connection: retiring.delete_head(connection, rollout_id, before))

    async def _delete_rest(self, rollout_id: model.RolloutId) -> bool:
        trace_id = ids.trace_id(rollout_id)
        return await self._store.write(
            lambda connection: retiring.delete_rest(connection, rollout_id, trace_id, ROWS_AT_ONCE)
        )

    async def _rows(self, delete: Delete, before: datetime) -> None:
        while await self._store.write(lambda connection: delete(connection, before, ROWS_AT_ONCE)) == ROWS_AT_ONCE:
            pass

    async def _spans(self, before: datetime) -> None:
        after: int | None = 0
        while after is not None:
            after = await self._store.write(functools.partial(_delete_spans, before=before, after=after))


def _delete_spans(connection: sa.Connection, before: datetime, after: int) -> int | None:
    kept = {ids.trace_id(each) for each in retiring.open_rollouts(connection)}
    return retiring.delete_spans(connection, before, kept, after, ROWS_AT_ONCE)
