"""What the instances of this node say of themselves: health without a break, and metrics.

Rules kept here: each followed instance has one task that asks it, period after period, all the time; another process
id begins again from nothing; what is no longer followed is no longer known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from agent import probes
from agent.config import layout
from agent.core import model
from agent.runner import clock

ALIVE_PERIOD_SECONDS = 1.0  # between two looks at an instance that has no health probe: it is well while it lives

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Followed:
    """One instance that is asked, and what it said."""

    pid: int
    component: str
    manifest: model.Manifest
    watch: probes.HealthWatch
    metrics: tuple[model.Metric, ...] = ()
    scrape_due_seconds: float = 0.0


class HealthBoard:
    """The followed instances.

    Args:
        run_dir: Where their probe sockets are.
        changed: Called when the health of one has changed.
    """

    def __init__(self, run_dir: Path, now: clock.Now, group: asyncio.TaskGroup, changed: Callable[[], None]) -> None:
        self._run_dir = run_dir
        self._now = now
        self._group = group
        self._changed = changed
        self._followed: dict[str, Followed] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, instance: model.Instance, component: str, manifest: model.Manifest) -> None:
        """Ask an instance from now on; one that is asked already goes on."""
        known = self._followed.get(instance.id)
        if known is not None and known.pid == instance.pid:
            return
        self.leave(instance.id)
        threshold = manifest.health.failure_threshold if manifest.health else 1
        followed = Followed(instance.pid, component, manifest, probes.HealthWatch(threshold))
        self._followed[instance.id] = followed
        task = self._group.create_task(self._ask_on(instance.id, followed), name=f"health of {instance.id}")
        self._tasks[instance.id] = task

    def leave(self, instance_id: str) -> None:
        """Ask an instance no more."""
        self._followed.pop(instance_id, None)
        task = self._tasks.pop(instance_id, None)
        if task is not None:
            task.cancel()

    @property
    def followed(self) -> frozenset[str]:
        """Identities of the instances that are asked."""
        return frozenset(self._followed)

    def health(self, instance_id: str) -> model.Health:
        """What an instance last said; UNKNOWN where it is not followed."""
        followed = self._followed.get(instance_id)
        return followed.watch.health if followed else model.Health.UNKNOWN

    def healthy_for(self, instance_id: str) -> timedelta:
        """Time without a break for which an instance has been healthy."""
        followed = self._followed.get(instance_id)
        return followed.watch.healthy_for(self._now().monotonic_seconds) if followed else timedelta()

    def metrics(self, instance_id: str) -> tuple[model.Metric, ...]:
        """What an instance last showed."""
        followed = self._followed.get(instance_id)
        return followed.metrics if followed else ()

    async def _ask_on(self, instance_id: str, followed: Followed) -> None:
        probe = followed.manifest.health
        period_seconds = probe.period.total_seconds() if probe else ALIVE_PERIOD_SECONDS
        socket_path = layout.probe_socket(self._run_dir, instance_id)
        while True:
            answer = await probes.ask(probe, socket_path) if probe else probes.Answer(is_success=True)
            self._note(instance_id, followed, answer)
            await self._scrape(followed, socket_path)
            await asyncio.sleep(period_seconds)

    def _note(self, instance_id: str, followed: Followed, answer: probes.Answer) -> None:
        before = followed.watch.health
        now_seconds = self._now().monotonic_seconds
        followed.watch = followed.watch.seen(is_success=answer.is_success, now_seconds=now_seconds)
        if followed.watch.health is not before:
            facts = {"instance_id": instance_id, "health": followed.watch.health.value}
            _logger.info("health changed: %s", answer.reason or "well", extra=facts)
            self._changed()

    async def _scrape(self, followed: Followed, socket_path: Path) -> None:
        source = followed.manifest.metrics
        now_seconds = self._now().monotonic_seconds
        if source is None or now_seconds < followed.scrape_due_seconds:
            return
        followed.scrape_due_seconds = now_seconds + source.period.total_seconds()
        try:
            followed.metrics = await probes.scrape(source, followed.component, socket_path)
        except probes.ProbeError as error:
            followed.metrics = ()  # absent is unknown; a stale value would be a lie
            _logger.info("%s", error)
