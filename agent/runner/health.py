"""What the instances of this node say of themselves: health without a break, and metrics.

Rules kept here: each followed instance has one task that asks it, period after period, all the time; another process
id begins again from nothing, but for the turns that it took; what turned too often is unhealthy until that is over;
what is no longer followed is no longer known. Left out: what a turn is worth (`agent.core.stability`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

from agent import probes, processes
from agent.config.errors import ConfigError
from agent.core import model, stability
from agent.runner import clock, releases

ALIVE_PERIOD_SECONDS = 1.0  # between two looks at an instance that has no health probe: it is well while it serves
UNJUDGED = frozenset({model.InstanceState.STARTING, model.InstanceState.PREPARED, model.InstanceState.PAUSED})
PROBE_CHECKS = "instar.probe.checks"  # counters of each component, beside what it shows itself
PROBE_FAILURES = "instar.probe.failures"
MILLISECONDS = 1000
AGENT_DRIVER = "agent"  # of the agent itself, which is well once a controller has heard it

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Followed:
    """One instance that is asked, and what it said.

    Args:
        flapped_at_seconds: Monotonic instant at which it was last seen to flap; 0, the kernel's start, for never.
        metrics: What it last showed.
        checks: How often it was asked whether it is well.
        failures: How often it was not.
    """

    instance: model.Instance
    component: str
    manifest: model.Manifest
    watch: probes.HealthWatch
    turns: stability.Stability = field(default_factory=stability.Stability)
    flapped_at_seconds: float = 0.0
    metrics: tuple[model.Metric, ...] = ()
    scrape_due_seconds: float = 0.0
    checks: int = 0
    failures: int = 0


class HealthBoard:
    """The followed instances.

    Args:
        is_agent_well: Says whether the agent itself is.
        changed: Called when the health of one has changed.
    """

    def __init__(
        self,
        known: releases.Releases,
        now: clock.Now,
        group: asyncio.TaskGroup,
        is_agent_well: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self._releases = known
        self._now = now
        self._group = group
        self._is_agent_well = is_agent_well
        self._changed = changed
        self._followed: dict[str, Followed] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, instance: model.Instance, component: str, manifest: model.Manifest) -> None:
        """Ask an instance from now on; one that is asked already goes on."""
        known = self._followed.get(instance.id)
        if known is not None and instance.id in self._tasks and _is_same_life(known.instance, instance):
            known.instance = instance
            return
        self.leave(instance.id)
        threshold = manifest.health.failure_threshold if manifest.health else 1
        followed = Followed(instance, component, manifest, probes.HealthWatch(threshold))
        if known is not None:
            again = max(1, instance.restarts - known.instance.restarts)
            followed.turns = known.turns.turned(self._now().monotonic_seconds, again)
        self._followed[instance.id] = followed
        task = self._group.create_task(self._ask_on(followed), name=f"health of {instance.id}")
        self._tasks[instance.id] = task

    def leave(self, instance_id: str) -> None:
        """Ask an instance no more."""
        self._followed.pop(instance_id, None)
        self.pause(instance_id)

    def pause(self, instance_id: str) -> None:
        """Ask an instance no more for now, since it has ended; its turns are kept in case that it comes back."""
        task = self._tasks.pop(instance_id, None)
        if task is not None:
            task.cancel()
        followed = self._followed.get(instance_id)
        if followed is not None:
            followed.instance = replace(followed.instance, pid=0)
            followed.watch = probes.HealthWatch(followed.watch.failure_threshold)

    @property
    def followed(self) -> frozenset[str]:
        """Identities of the instances that are asked."""
        return frozenset(self._followed)

    def health(self, instance_id: str) -> model.Health:
        """What an instance last said; UNKNOWN where it is not followed."""
        followed = self._followed.get(instance_id)
        if followed is None:
            return model.Health.UNKNOWN
        return model.Health.UNHEALTHY if self.is_flapping(instance_id) else followed.watch.health

    def is_flapping(self, instance_id: str) -> bool:
        """Tell whether an instance was now well, now not, or died, too often lately."""
        followed = self._followed.get(instance_id)
        return followed is not None and followed.turns.is_flapping(self._now().monotonic_seconds)

    def healthy_for(self, instance_id: str) -> timedelta:
        """Time without a break for which an instance has been healthy."""
        followed = self._followed.get(instance_id)
        if followed is None or self.is_flapping(instance_id):
            return timedelta()
        now_seconds = self._now().monotonic_seconds
        steady_for = timedelta(seconds=max(0.0, now_seconds - followed.flapped_at_seconds))
        return min(followed.watch.healthy_for(now_seconds), steady_for)

    def metrics(self, instance_id: str) -> tuple[model.Metric, ...]:
        """What an instance last showed, and how often it was asked whether it is well."""
        followed = self._followed.get(instance_id)
        return (*_probed(followed), *followed.metrics) if followed else ()

    async def _ask_on(self, followed: Followed) -> None:
        probe = followed.manifest.health
        period_seconds = probe.period.total_seconds() if probe else ALIVE_PERIOD_SECONDS
        while True:
            if self._is_known(followed):
                self._note(followed, await self._ask(followed))
            await self._scrape(followed)
            await asyncio.sleep(period_seconds)

    def _is_known(self, followed: Followed) -> bool:
        """Tell whether anything can be said now; what does not serve yet, or is paused for a while, is not judged."""
        if followed.manifest.driver == AGENT_DRIVER:
            return self._is_agent_well()
        return followed.manifest.health is not None or followed.instance.state not in UNJUDGED

    async def _ask(self, followed: Followed) -> probes.Answer:
        probe = followed.manifest.health
        if probe is None:
            is_active = followed.instance.state is model.InstanceState.ACTIVE
            return probes.Answer(is_active, "" if is_active else f"it is {followed.instance.state.value}")
        run = self._releases.commands(followed.component, followed.instance.digest)
        try:
            return await probes.ask(probe, self._address(followed, probe.socket), run)
        except (ConfigError, processes.KeeperError) as error:
            return probes.Answer(is_success=False, reason=str(error))

    def _address(self, followed: Followed, socket: str) -> str:
        return self._releases.address(socket, followed.instance, followed.component)

    def _note(self, followed: Followed, answer: probes.Answer) -> None:
        instance_id = followed.instance.id
        before, was_flapping = followed.watch.health, self.is_flapping(instance_id)
        now_seconds = self._now().monotonic_seconds
        followed.checks += 1
        followed.failures += not answer.is_success
        followed.watch = followed.watch.seen(is_success=answer.is_success, now_seconds=now_seconds)
        if followed.watch.health is not before and before is not model.Health.UNKNOWN:
            followed.turns = followed.turns.turned(now_seconds)
        is_flapping = self.is_flapping(instance_id)
        if is_flapping:
            followed.flapped_at_seconds = now_seconds
        if followed.watch.health is not before or is_flapping is not was_flapping:
            facts = {"instance_id": instance_id, "health": self.health(instance_id).value, "is_flapping": is_flapping}
            _logger.info("health changed: %s", answer.reason or "well", extra=facts)
            self._changed()

    async def _scrape(self, followed: Followed) -> None:
        source = followed.manifest.metrics
        now_seconds = self._now().monotonic_seconds
        if source is None or now_seconds < followed.scrape_due_seconds:
            return
        followed.scrape_due_seconds = now_seconds + source.period.total_seconds()
        try:
            address = self._address(followed, source.socket)
            followed.metrics = await probes.scrape(source, followed.component, address, _life(followed.instance))
        except (ConfigError, probes.ProbeError) as error:
            followed.metrics = ()  # absent is unknown; a stale value would be a lie
            _logger.warning("%s", error)


def _probed(followed: Followed) -> Iterator[model.Metric]:
    for name, value in ((PROBE_CHECKS, followed.checks), (PROBE_FAILURES, followed.failures)):
        life = _life(followed.instance)
        yield model.Metric(name, followed.component, float(value), model.SeriesKind.COUNTER, life)


def _life(instance: model.Instance) -> int:
    """Number the process of an instance: younger ones have higher numbers; 0 where its beginning is not known."""
    return round(instance.started_at_seconds * MILLISECONDS)


def _is_same_life(before: model.Instance, after: model.Instance) -> bool:
    return (before.pid, before.restarts) == (after.pid, after.restarts)
