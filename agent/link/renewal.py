"""When this node asks for its next certificate, so that it never runs out while a controller can be reached.

Rules kept: at half the life of the present one, early or late by chance, so that a fleet does not come at once; a
failure is tried again after a while, and is logged with what is wrong; the link moves to the new certificate without a
pause. Where the certificate has run out, the node recovers by itself, as often as the controller allows. Left out: how
certificates are got (`enrolment`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Never

from agent import identity
from agent.config.errors import ConfigError
from agent.link import enrolment

SPREAD = 0.2  # of half the life: renewals of a fleet that came in together lie so far apart
LOOK_SECONDS_MAX = 600.0  # between two looks at the wall clock, which may be set meanwhile
RETRY_MIN = timedelta(seconds=1)
RETRY_SHARE = 32  # a try for each such part of a life, at most: before it is over there are sixteen
RETRY_REFUSED = timedelta(minutes=5)  # where the controller has said no: somebody has to do something

_logger = logging.getLogger(__name__)


def due(known: identity.Identity, draw: float) -> datetime:
    """When the next certificate is asked for.

    Args:
        known: The present one.
        draw: A random number from 0 up to but not including 1.
    """
    half = (known.not_after - known.issued_at) / 2
    return known.issued_at + half * (1 + SPREAD * (draw - 0.5))


class Renewal:
    """Keeps the certificate of this node fresh.

    Args:
        state_dir: Where the identity lies.
        address: Of the controller.
        move: Makes the link use what is new.
    """

    def __init__(
        self,
        state_dir: Path,
        address: str,
        *,
        now: Callable[[], datetime],
        draw: Callable[[], float],
        move: Callable[[], Awaitable[None]],
    ) -> None:
        self._state_dir = state_dir
        self._address = address
        self._now = now
        self._draw = draw
        self._move = move

    async def run(self) -> Never:
        """Renew until cancelled."""
        known = identity.load(self._state_dir)
        while True:
            await self._until(due(known, self._draw()))
            known = await self._renewed(known)
            facts = {"serial": known.serial, "not_after": known.not_after.isoformat()}
            _logger.info("this node has a new certificate", extra={"node_id": known.node_id, **facts})
            await self._move()

    async def _until(self, at: datetime) -> None:
        while (left := (at - self._now()).total_seconds()) > 0:  # noqa: ASYNC110  # the wall clock has no event
            await asyncio.sleep(min(left, LOOK_SECONDS_MAX))

    async def _renewed(self, known: identity.Identity) -> identity.Identity:
        """Try until there is a new one; also one that people of this node have got meanwhile."""
        while True:
            try:
                await self._ask(known)
                return identity.load(self._state_dir)
            except (enrolment.EnrolmentError, ConfigError, OSError) as error:
                _logger.warning("%s; %s", error, self._why(known), extra={"node_id": known.node_id})
                wait = self._wait(known, error)
            await asyncio.sleep(wait.total_seconds() * (0.5 + self._draw()))
            if identity.exists(self._state_dir) and (found := identity.load(self._state_dir)) != known:
                return found

    async def _ask(self, known: identity.Identity) -> None:
        folder = identity.folder(self._state_dir)
        if self._now() < known.not_after:
            await enrolment.renew(folder, known, self._address)
        else:
            await enrolment.recover(folder, known)

    def _wait(self, known: identity.Identity, error: Exception) -> timedelta:
        usual = max(RETRY_MIN, (known.not_after - known.issued_at) / RETRY_SHARE)
        is_refused = isinstance(error, enrolment.EnrolmentError) and error.is_refused
        return max(usual, RETRY_REFUSED) if is_refused else min(usual, RETRY_REFUSED)

    def _why(self, known: identity.Identity) -> str:
        if self._now() < known.not_after:
            return f"certificate {known.serial} of {known.name} is good until {known.not_after.isoformat()}"
        return f"certificate {known.serial} of {known.name} ran out at {known.not_after.isoformat()}"
