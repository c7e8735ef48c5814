"""Brings this node to what its pointers say: `current` runs and is kept, and nothing else does.

Rules kept here: never touches a component that an operation has in its hands; what is started here is started from
disk alone, without the controller (G1). After a boot a version that has not been made permanent is on trial: the
attempt is in the journal first, and its own early death or a second boot leads back to `permanent`; a power cut alone
does not. Left out: instances that merely died, which the keeper starts again by itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from agent import depot, drivers, processes
from agent.config.errors import ConfigError
from agent.core import model, operation
from agent.drivers import handover
from agent.runner import clock, inventory, operations, steps

TRIAL_RESTARTS_MAX = 0  # how often a version on trial may die; it has one start

WORD_TO_ACCEPT = {
    processes.InstanceState.PREPARED: processes.Word.ACTIVATE,
    processes.InstanceState.PAUSED: processes.Word.RESUME,
}
READY = frozenset({processes.InstanceState.ACTIVE, *WORD_TO_ACCEPT})

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The rooms that upkeep works in."""

    boot_id: str
    disk: depot.Depot
    keeper: processes.Keeper
    stock: inventory.Inventory
    known: operations.Operations
    work: steps.Steps
    now: clock.Now

    async def run_once(self) -> None:
        """Put right what is wrong; what cannot be put right now is logged and tried again the next time."""
        for component, pointers in dict(self.stock.pointers).items():
            if self.known.is_changing(component):
                continue
            try:
                await self._put_right(component, pointers)
            except (drivers.DriverError, steps.StepError, processes.KeeperError, ConfigError) as error:
                _logger.warning("cannot bring %s up: %s", component, error)

    async def _put_right(self, component: str, pointers: depot.Pointers) -> None:
        seen = self.stock.of(component)
        kept = next((each for each in seen if each.is_kept and each.digest == pointers.current), None)
        if self._has_failed_trial(component, pointers, kept):
            await self._fall_back(component, pointers)
        elif kept is None:
            await self._bring_up(component, pointers)
        else:
            await self._let_accept(kept)
            if len(seen) > 1 and not self._is_settling(component):
                await self._driver(pointers.current).gc(component, {kept.id})

    async def _bring_up(self, component: str, pointers: depot.Pointers) -> None:
        serving = self.stock.serving(component)
        if serving is not None and serving.state in READY:  # an earlier agent died before it had said all
            await self._let_accept(serving)
            await self.keeper.keep(component, serving.id)
            return
        if not self._note_trial(component, pointers):
            await self._fall_back(component, pointers)
            return
        try:
            await self._start(component, pointers.current)
        except drivers.DriverError as error:
            if pointers.current == pointers.permanent or error.fault is not model.Fault.VERSION:
                raise
            _logger.warning("cannot bring %s up: %s", component, error)
            await self._fall_back(component, pointers)

    async def _start(self, component: str, digest: str) -> None:
        start_id = f"{self.boot_id}/{component}/{self.now().monotonic_seconds}"
        launch = self.work.launch(component, digest, start_id)
        change = drivers.Change("", component, launch, None, timedelta())
        driver = self._driver(digest)
        await driver.gc(component, ())
        await driver.prepare(change)
        await self.keeper.say(launch.instance_id, processes.Word.ACTIVATE, handover.WORD_TIMEOUT)
        await self.keeper.keep(component, launch.instance_id)
        _logger.info("started %s", component, extra={"component": component, "digest": digest})

    async def _let_accept(self, seen: processes.Instance) -> None:
        """What is current accepts, whenever no operation says otherwise."""
        word = WORD_TO_ACCEPT.get(seen.state)
        if word is not None:
            _logger.warning("%s did not accept", seen.id, extra={"instance_id": seen.id, "state": seen.state.value})
            await self.keeper.say(seen.id, word, handover.WORD_TIMEOUT)

    def _note_trial(self, component: str, pointers: depot.Pointers) -> bool:
        """Journal that `current` is on trial in this boot; False where an earlier boot has tried it already."""
        bringer = self.known.latest_to(component, pointers.current)
        if pointers.current == pointers.permanent or bringer is None:
            return True
        tried = self.known.facts(bringer.assignment.operation_id).get("trial_boot_id")
        if tried is None:
            decision = operation.Decision(bringer)
            self.known.write(decision, self.work.manifest(pointers.current).driver, {"trial_boot_id": self.boot_id})
        return tried in {None, self.boot_id}

    def _has_failed_trial(self, component: str, pointers: depot.Pointers, kept: processes.Instance | None) -> bool:
        bringer = self.known.latest_to(component, pointers.current)
        if kept is None or pointers.current == pointers.permanent or bringer is None:
            return False
        tried = self.known.facts(bringer.assignment.operation_id).get("trial_boot_id")
        return tried == self.boot_id and kept.restarts > TRIAL_RESTARTS_MAX

    async def _fall_back(self, component: str, pointers: depot.Pointers) -> None:
        _logger.warning("going back to permanent", extra={"component": component, "digest": pointers.permanent})
        self.disk.point_current(component, pointers.permanent)
        self.stock.reread_pointers()
        await self._start(component, pointers.permanent)

    def _is_settling(self, component: str) -> bool:
        return any(state.assignment.component == component for state in self.known.unfinished)

    def _driver(self, digest: str) -> drivers.Driver:
        return self.work.driver_of(digest)
