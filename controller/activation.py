"""Starts what works in the background, stage by stage, and takes it back the other way round.

Rules kept: stages start in their order, and where one fails those before it are stopped again, latest first; asking
again tells the truth: what runs is not started a second time, what failed is tried anew from the first stage, and what
could not be stopped is named and stands in the way of a start. Left out: what the stages do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controller.core import errors

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stage:
    """One part.

    Args:
        start: Raises where it cannot start, and is then as if it had not been asked.
        stop: Raises where it cannot stop properly.
    """

    name: str
    start: Callable[[], Awaitable[object]]
    stop: Callable[[], Awaitable[object]]


class Activation:
    """All stages, in the order in which they start."""

    def __init__(self, *stages: Stage) -> None:
        self._stages = stages
        self._running: list[Stage] = []
        self._stuck: dict[Stage, str] = {}  # those that could not be stopped properly, and why
        self._turn = asyncio.Lock()  # one activation or deactivation at a time

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the stages that run."""
        return tuple(stage.name for stage in self._running)

    @property
    def is_active(self) -> bool:
        """True where every stage runs."""
        return len(self._running) == len(self._stages)

    async def activate(self) -> tuple[str, ...]:
        """Start every stage; return the names of those that were started now, none where all ran before.

        Raises:
            UnavailableError: A stage cannot start, code ``stage_failed``, and the others do not run either; or one
                could not be stopped before, code ``stage_stuck``.
        """
        async with self._turn:
            if self.is_active:
                return ()
            await self._stop_all(tuple(self._stuck))
            self._refuse_stuck()
            for stage in self._stages:
                await self._start(stage)
            return self.running

    async def deactivate(self) -> tuple[str, ...]:
        """Stop every stage that runs, latest first; return the names of those that were stopped now.

        Raises:
            UnavailableError: Some could not be stopped properly, code ``stage_stuck``; none of the others runs.
        """
        async with self._turn:
            stopped = self.running[::-1]
            await self._stop_all((*self._stuck, *self._running[::-1]))
            self._refuse_stuck()
            return stopped

    async def _start(self, stage: Stage) -> None:
        try:
            await stage.start()
        except BaseException as error:
            await self._stop_all(tuple(self._running[::-1]))
            if not isinstance(error, Exception):
                raise
            raise errors.UnavailableError(
                f"cannot activate: {stage.name} did not start: {error}",
                code="stage_failed",
                field="stage",
                value=stage.name,
                rule="every stage starts, or none runs",
            ) from error
        self._running.append(stage)

    async def _stop_all(self, stages: tuple[Stage, ...]) -> None:
        for stage in stages:
            self._stuck.pop(stage, None)
            if stage in self._running:
                self._running.remove(stage)
            try:
                await stage.stop()
            except Exception as error:  # noqa: BLE001 whatever it is, the others are stopped all the same
                _log.exception("cannot stop %s", stage.name)
                self._stuck[stage] = str(error)

    def _refuse_stuck(self) -> None:
        if self._stuck:
            told = "; ".join(f"{stage.name} was not stopped properly: {why}" for stage, why in self._stuck.items())
            raise errors.UnavailableError(
                f"cannot vouch for what runs: {told}",
                code="stage_stuck",
                field="stage",
                value=", ".join(stage.name for stage in self._stuck),
                rule="what is started again was stopped before",
            )
