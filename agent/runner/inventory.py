"""What this node runs: pointers and instances, as last seen, and how that is told.

Rules kept here: `refresh` asks the keeper and the disk, everything else answers from what it saw; the instance of a
component is the one that the keeper keeps, and it is asked for its health all the time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta

from agent import depot, processes
from agent.config.errors import ConfigError
from agent.core import model
from agent.drivers import handover
from agent.runner import health, steps

LIVING = frozenset(processes.InstanceState) - {processes.InstanceState.EXITED}

_logger = logging.getLogger(__name__)


class Inventory:
    """The components of this node and their instances."""

    def __init__(
        self, disk: depot.Depot, keeper: processes.Keeper, board: health.HealthBoard, work: steps.Steps
    ) -> None:
        self._disk = disk
        self._keeper = keeper
        self._board = board
        self._work = work
        self._pointers: Mapping[str, depot.Pointers] = {}
        self._seen = processes.Inspection((), (), ())

    @property
    def pointers(self) -> Mapping[str, depot.Pointers]:
        """Installed components and what they point at."""
        return self._pointers

    @property
    def current(self) -> Mapping[str, str]:
        """Digest that is current, for each component."""
        return {name: pointers.current for name, pointers in self._pointers.items()}

    @property
    def outcomes(self) -> tuple[processes.Outcome, ...]:
        """What the keeper has decided."""
        return self._seen.outcomes

    async def refresh(self) -> bool:
        """Look again, and follow the health of what serves; say whether anything but counters has changed.

        Raises:
            processes.KeeperError: The keeper does not answer.
        """
        before = self._gist()
        self._pointers = self._disk.components()
        self._seen = await self._keeper.inspect()
        self._follow()
        return self._gist() != before

    def _gist(self) -> tuple[Mapping[str, depot.Pointers], frozenset[tuple[str, int, processes.InstanceState]]]:
        return self._pointers, frozenset((seen.id, seen.pid, seen.state) for seen in self._seen.instances)

    def _follow(self) -> None:
        served = {seen.id: seen for seen in self._seen.instances if _is_serving(seen)}
        for instance_id in self._board.followed - served.keys():
            self._board.leave(instance_id)
        for seen in served.values():
            try:
                manifest = self._work.manifest(seen.digest)
            except ConfigError as error:  # an instance of a release that is gone; upkeep ends it
                _logger.warning("%s", error)
            else:
                self._board.follow(handover.instance_of(seen), seen.component, manifest)

    def reread_pointers(self) -> None:
        """Look at the disk only, right after a pointer has moved."""
        self._pointers = self._disk.components()

    def of(self, component: str) -> tuple[processes.Instance, ...]:
        """Every instance of a component, ended ones too."""
        return tuple(seen for seen in self._seen.instances if seen.component == component)

    def serving(self, component: str) -> processes.Instance | None:
        """Return the living instance of what is current; the kept one where there are two."""
        pointers = self._pointers.get(component)
        living = [s for s in self.of(component) if pointers and s.digest == pointers.current and s.state in LIVING]
        return next(iter(sorted(living, key=lambda seen: not seen.is_kept)), None)

    @property
    def components(self) -> tuple[model.ComponentStatus, ...]:
        """What the controller is told of the components."""
        return tuple(self._status(name, pointers) for name, pointers in self._pointers.items())

    @property
    def metrics(self) -> tuple[model.Metric, ...]:
        """What the components show of themselves."""
        serving = (self.serving(component) for component in self._pointers)
        return tuple(metric for seen in serving if seen for metric in self._board.metrics(seen.id))

    @property
    def digests(self) -> frozenset[str]:
        """Releases that living instances run."""
        return frozenset(seen.digest for seen in self._seen.instances if seen.state in LIVING)

    def _status(self, name: str, pointers: depot.Pointers) -> model.ComponentStatus:
        serving = self.serving(name)
        instances = tuple(handover.instance_of(seen) for seen in self.of(name) if seen.state in LIVING)
        return model.ComponentStatus(
            name=name,
            version=self._version(pointers.current),
            digest=pointers.current,
            permanent_digest=pointers.permanent,
            health=self._board.health(serving.id) if serving else model.Health.UNHEALTHY,
            healthy_for=self._board.healthy_for(serving.id) if serving else timedelta(),
            instances=instances,
        )

    def _version(self, digest: str) -> str:
        try:
            return self._work.manifest(digest).version
        except ConfigError as error:  # the release is damaged: nothing but its digest is known
            _logger.warning("%s", error)
            return ""


def _is_serving(seen: processes.Instance) -> bool:
    return seen.state is processes.InstanceState.ACTIVE or (seen.is_kept and seen.state in LIVING)
