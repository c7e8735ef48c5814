"""Brings this node to what its pointers say: `current` runs and is kept, and nothing else does.

Rules kept here: never touches a component that an operation has in its hands, nor one that somebody stopped on purpose;
what is started here is started from disk alone, without the controller (G1). After a boot a version that has not been
made permanent is on trial: the attempt is in the journal first, and its own early death or a second boot leads back to
`permanent`; a power cut alone does not. Where somebody has moved `current` by hand, what serves is left alone. Left
out: instances that merely died, which the keeper starts again by itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta

from agent import depot, drivers, journal, processes
from agent.config.errors import ConfigError
from agent.core import model
from agent.runner import clock, drift, hands, inventory, operations, passages, releases
from agent.state import states

TRIAL_RESTARTS_MAX = 0  # how often a version on trial may die; it has one start
DARK_SECONDS_MAX = 20.0  # that something kept has no process before it is started anew; revivals come faster at first
UNACCEPTING = frozenset({model.InstanceState.PREPARED, model.InstanceState.PAUSED})

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The rooms that upkeep works in."""

    boot_id: str
    disk: depot.Depot
    stock: inventory.Inventory
    known: operations.Operations
    releases: releases.Releases
    states: states.States
    drift: drift.Drift
    hands: hands.Hands
    now: clock.Now
    _dark_since_seconds: dict[str, float] = field(default_factory=dict)

    async def run_once(self) -> None:
        """Put right what is wrong; what cannot be put right now is logged and tried again the next time."""
        for component, pointers in dict(self.stock.pointers).items():
            if component in self.stock.unknown or self.hands.on(component).locked():
                continue
            try:
                async with self.hands.on(component):
                    if not self.known.is_changing(component):
                        await self._put_right(component, pointers)
            except (drivers.DriverError, processes.KeeperError, ConfigError, journal.JournalFailedError) as error:
                _logger.warning("cannot bring %s up: %s", component, error)

    async def _put_right(self, component: str, pointers: depot.Pointers) -> None:
        seen = self.stock.of(component)
        kept = next((each for each in seen if each.is_kept and each.digest == pointers.current), None)
        if component in self.stock.stopped:
            await self._end(component, pointers, seen)
        elif self._has_failed_trial(component, pointers, kept):
            await self._fall_back(component, pointers)
        elif kept is None:
            await self._bring_up(component, pointers)
        else:
            await self._let_serve(component, pointers, kept)
            if len(seen) > 1 and not self._is_settling(component):
                await self.releases.driver(pointers.current).gc(component, {kept.id})

    async def _end(self, component: str, pointers: depot.Pointers, seen: tuple[model.Instance, ...]) -> None:
        if seen and not self._is_settling(component):
            await self.releases.driver(pointers.current).gc(component, ())

    async def _bring_up(self, component: str, pointers: depot.Pointers) -> None:
        other = self.stock.kept(component)
        if self.drift.is_moved(component) and other is not None and inventory.is_living(other):
            return  # it was committed, and whoever moved the pointer did not ask for another
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
        serving = self.stock.serving(component)
        instance_id = serving.id if serving else self._fresh_id(component, digest)
        launch = self.releases.launch(component, digest, instance_id)
        await self.releases.driver(digest).bring_up(component, launch)
        _logger.info("brought %s up", component, extra={"component": component, "digest": digest})

    async def _make_way(self, component: str, digest: str) -> None:
        """End everything of a component for one that is to come: it does not stop, and its sockets stay open."""
        await self.releases.driver(digest).gc(component, {self._fresh_id(component, digest)})

    def _fresh_id(self, component: str, digest: str) -> str:
        return releases.instance_id(component, digest, f"{self.boot_id}/{component}/{self.now().monotonic_seconds}")

    async def _let_serve(self, component: str, pointers: depot.Pointers, kept: model.Instance) -> None:
        """What is current accepts, whenever no operation says otherwise; what ended is first left to the keeper."""
        is_dark = self._is_dark_for_long(component, kept)
        if is_dark:  # it ended by itself after it was told to drain; the keeper does not take that for a death
            await self._make_way(component, pointers.current)
        if is_dark or kept.state in UNACCEPTING:
            _logger.warning("%s did not accept", kept.id, extra={"instance_id": kept.id, "state": kept.state.value})
            await self._start(component, pointers.current)

    def _is_dark_for_long(self, component: str, kept: model.Instance) -> bool:
        if kept.state is not model.InstanceState.EXITED or kept.is_broken:
            self._dark_since_seconds.pop(component, None)
            return False
        now_seconds = self.now().monotonic_seconds
        return now_seconds - self._dark_since_seconds.setdefault(component, now_seconds) > DARK_SECONDS_MAX

    def _note_trial(self, component: str, pointers: depot.Pointers) -> bool:
        """Journal that `current` is on trial in this boot; False where an earlier boot has tried it already."""
        bringer = self.known.latest_to(component, pointers.current)
        if pointers.current == pointers.permanent or bringer is None:
            return True
        operation_id = bringer.assignment.operation_id
        tried = self.known.facts(operation_id).get("trial_boot_id")
        if tried is None:
            driver = self.releases.manifest(pointers.current).driver
            self.known.note(operation_id, driver, {"trial_boot_id": self.boot_id})
        return tried in {None, self.boot_id}

    def _has_failed_trial(self, component: str, pointers: depot.Pointers, kept: model.Instance | None) -> bool:
        bringer = self.known.latest_to(component, pointers.current)
        if kept is None or pointers.current == pointers.permanent or bringer is None:
            return False
        tried = self.known.facts(bringer.assignment.operation_id).get("trial_boot_id")
        return tried == self.boot_id and kept.restarts > TRIAL_RESTARTS_MAX

    async def _fall_back(self, component: str, pointers: depot.Pointers) -> None:
        _logger.warning("going back to permanent", extra={"component": component, "digest": pointers.permanent})
        await self._put_state_back(component, pointers)
        self.known.note_committed(component, pointers.permanent)
        self.disk.point_current(component, pointers.permanent)
        self.stock.reread_pointers()
        await self._start(component, pointers.permanent)

    async def _put_state_back(self, component: str, pointers: depot.Pointers) -> None:
        """Bring the state back to what `permanent` can use, while nothing of the component runs."""
        way_back = drivers.Change(
            operation_id="",
            component=component,
            method=model.Method.RESTART,
            new=self.releases.launch(component, pointers.current, ""),
            old=self.releases.launch(component, pointers.permanent, ""),
            time_left=timedelta(),
        )
        if passages.is_stateful(way_back):
            await self._make_way(component, pointers.current)
            await self.states.before_old(way_back, is_discarding=False)

    def _is_settling(self, component: str) -> bool:
        return any(state.assignment.component == component for state in self.known.unfinished)
