"""What this node runs: pointers and instances, as last seen, and how that is told.

Rules kept here: `refresh` asks the drivers and the disk, everything else answers from what it saw; the instance of a
component is the one that is kept, and it is asked for its health all the time. Left out: what to do about it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta

from agent import depot, drivers, processes
from agent.config.errors import ConfigError
from agent.core import model
from agent.runner import health, operations, releases

COSTLY_SECONDS = 10.0  # between two looks that start a program; health is probed all the time anyway
INSPECT_SECONDS_MAX = 5.0  # for one component; some drivers ask programs of the user

_logger = logging.getLogger(__name__)


def is_living(seen: model.Instance) -> bool:
    """Tell whether an instance has something that runs; one that is parked has not."""
    is_parked = seen.state is model.InstanceState.PAUSED and not seen.pid
    return seen.state is not model.InstanceState.EXITED and not is_parked


class Inventory:
    """The components of this node and their instances."""

    def __init__(
        self,
        disk: depot.Depot,
        board: health.HealthBoard,
        known_releases: releases.Releases,
        known: operations.Operations,
    ) -> None:
        self._disk = disk
        self._board = board
        self._releases = known_releases
        self._known = known
        self._pointers: Mapping[str, depot.Pointers] = {}
        self._stopped: frozenset[str] = frozenset()
        self._unknown: frozenset[str] = frozenset()
        self._seen: Mapping[str, tuple[model.Instance, ...]] = {}
        self._asked_at_seconds: dict[str, float] = {}  # when a look that was costly was taken; on the loop's clock

    @property
    def pointers(self) -> Mapping[str, depot.Pointers]:
        """Installed components and what they point at."""
        return self._pointers

    @property
    def current(self) -> Mapping[str, str]:
        """Digest that is current, for each component."""
        return {name: pointers.current for name, pointers in self._pointers.items()}

    @property
    def stopped(self) -> frozenset[str]:
        """Components that somebody has stopped on purpose."""
        return self._stopped

    @property
    def unknown(self) -> frozenset[str]:
        """Components of which nobody can say now what runs."""
        return self._unknown

    @property
    def versions(self) -> Mapping[str, str]:
        """Version of each component; empty where its release is damaged."""
        return {name: self._version(pointers.current) for name, pointers in self._pointers.items()}

    async def refresh(self) -> bool:
        """Look again, and follow the health of what serves; say whether anything but counters has changed.

        Where a driver cannot say, what it said before still stands, and the component is unknown.
        """
        before = self._gist()
        self.reread_pointers()
        found: dict[str, tuple[model.Instance, ...]] = {}
        unknown: set[str] = set()
        for name in self._names():
            if self._may_rest(name):
                found[name] = self._seen[name]
                continue
            try:
                async with asyncio.timeout(INSPECT_SECONDS_MAX):
                    found[name] = await self._inspected(name)
            except (drivers.DriverError, processes.KeeperError, TimeoutError) as error:
                _logger.warning("cannot inspect %s: %s", name, str(error) or "no answer")
                found[name] = self._seen.get(name, ())
                unknown.add(name)
        self._seen, self._unknown = found, frozenset(unknown)
        self._follow()
        return self._gist() != before

    def _names(self) -> list[str]:
        return sorted(self._pointers.keys() | self._changing())

    def _changing(self) -> set[str]:
        return {state.assignment.component for state in self._known.unfinished}

    def _may_rest(self, component: str) -> bool:
        """Tell whether a costly look is young, and showed what is current serving alone; a change is looked at anew."""
        asked_at_seconds = self._asked_at_seconds.get(component)
        if asked_at_seconds is None or component in self._changing() | self._unknown | self._stopped:
            return False
        is_young = asyncio.get_running_loop().time() < asked_at_seconds + COSTLY_SECONDS
        alone = [(self.current.get(component), model.InstanceState.ACTIVE, True)]
        return is_young and [(seen.digest, seen.state, seen.is_kept) for seen in self.of(component)] == alone

    async def _inspected(self, component: str) -> tuple[model.Instance, ...]:
        """Ask each driver that has, had or gets the component in its hands."""
        found: dict[str, model.Instance] = {}
        asked = self._drivers(component)
        for driver in asked:
            for seen in await driver.inspect(component):
                found.setdefault(seen.id, seen)
        if any(driver.capabilities().is_look_costly for driver in asked):
            self._asked_at_seconds[component] = asyncio.get_running_loop().time()
        else:
            self._asked_at_seconds.pop(component, None)
        return tuple(found.values())

    def _drivers(self, component: str) -> list[drivers.Driver]:
        found: dict[int, drivers.Driver] = {}
        for digest in dict.fromkeys(self._digests(component)):
            try:
                driver = self._releases.driver(digest)
            except (ConfigError, drivers.DriverError) as error:  # not yet unpacked, or damaged
                _logger.debug("%s", error)
            else:
                found[id(driver)] = driver
        return list(found.values())

    def _digests(self, component: str) -> Iterator[str]:
        pointers = self._pointers.get(component)
        if pointers is not None:
            yield from (pointers.current, pointers.permanent)
        for state in self._known.unfinished:
            if state.assignment.component == component:
                yield from filter(None, (state.assignment.new_digest, state.assignment.old_digest))

    def _gist(self) -> object:
        instances = frozenset((seen.id, seen.pid, seen.state) for each in self._seen.values() for seen in each)
        return self._pointers, self._stopped, instances

    def _follow(self) -> None:
        known = {seen.id for each in self._seen.values() for seen in each}
        served = {seen.id: (name, seen) for name, each in self._seen.items() for seen in each if _is_serving(seen)}
        for instance_id in self._board.followed - served.keys():
            if instance_id in known:
                self._board.pause(instance_id)
            else:
                self._board.leave(instance_id)
        for name, seen in served.values():
            try:
                manifest = self._releases.manifest(seen.digest)
            except ConfigError as error:  # an instance of a release that is gone; upkeep ends it
                _logger.warning("%s", error)
            else:
                self._board.follow(seen, name, manifest)

    def reread_pointers(self) -> None:
        """Look at the disk only, right after a pointer has moved."""
        self._pointers = self._disk.components()
        self._stopped = frozenset(name for name in self._pointers if self._disk.is_stopped(name))

    def of(self, component: str) -> tuple[model.Instance, ...]:
        """Every instance of a component, ended ones too."""
        return self._seen.get(component, ())

    def serving(self, component: str) -> model.Instance | None:
        """Return the living instance of what is current; the kept one where there are two."""
        pointers = self._pointers.get(component)
        living = [s for s in self.of(component) if pointers and s.digest == pointers.current and is_living(s)]
        return next(iter(sorted(living, key=lambda seen: not seen.is_kept)), None)

    def kept(self, component: str) -> model.Instance | None:
        """Return the committed instance of a component, whatever it runs and however it is."""
        return next((seen for seen in self.of(component) if seen.is_kept), None)

    @property
    def broken(self) -> Mapping[str, model.Instance]:
        """Components whose instance ended too often, and that instance."""
        kept = {name: self.kept(name) for name in self._pointers}
        return {name: seen for name, seen in kept.items() if seen is not None and seen.is_broken}

    @property
    def components(self) -> tuple[model.ComponentStatus, ...]:
        """What the controller is told of the components."""
        return tuple(self._status(name, pointers) for name, pointers in self._pointers.items())

    @property
    def metrics(self) -> tuple[model.Metric, ...]:
        """What the components show of themselves: of each the instance that serves now."""
        showing = (self._showing(component) for component in self._pointers)
        return tuple(metric for seen in showing if seen for metric in self._board.metrics(seen.id))

    def _showing(self, component: str) -> model.Instance | None:
        """Return the instance that accepts, though it is not yet the committed one; that one where both or none do."""
        active = [seen for seen in self.of(component) if seen.state is model.InstanceState.ACTIVE]
        return next(iter(sorted(active, key=lambda seen: not seen.is_kept)), None) or self.serving(component)

    @property
    def digests(self) -> frozenset[str]:
        """Releases that instances run, or would run again."""
        exited = model.InstanceState.EXITED
        return frozenset(
            seen.digest for each in self._seen.values() for seen in each if seen.state is not exited or seen.is_kept
        )

    def _status(self, name: str, pointers: depot.Pointers) -> model.ComponentStatus:
        serving = self.serving(name)
        return model.ComponentStatus(
            name=name,
            version=self._version(pointers.current),
            digest=pointers.current,
            permanent_digest=pointers.permanent,
            health=self._health(name, serving),
            healthy_for=self._board.healthy_for(serving.id) if serving else timedelta(),
            instances=tuple(seen for seen in self.of(name) if seen.state is not model.InstanceState.EXITED),
            is_stopped=name in self._stopped,
        )

    def _health(self, name: str, serving: model.Instance | None) -> model.Health:
        if serving is not None:
            return self._board.health(serving.id)
        return model.Health.UNKNOWN if name in self._stopped else model.Health.UNHEALTHY

    def _version(self, digest: str) -> str:
        try:
            return self._releases.manifest(digest).version
        except ConfigError as error:  # the release is damaged: nothing but its digest is known
            _logger.warning("%s", error)
            return ""


def _is_serving(seen: model.Instance) -> bool:
    return seen.state is model.InstanceState.ACTIVE or (seen.is_kept and is_living(seen))
