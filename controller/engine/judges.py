"""Looks at canary waves: asks for what their nodes measure, has it judged, and tells the rollouts.

Theory of operation. One task for all rollouts. At intervals it asks, for each wave that is being judged, the source of
its analysis for what changed and untouched nodes measure, calls the judge, and feeds what was found to the rollout.

Rules kept: no fault of a source, of the judge or of the store ends the task, or keeps it from other rollouts; a large
judgement is made beside the loop; a figure that is no number is never stored; the same untouched nodes are compared
with at every look, as long as they stay so. Left out: the judge (`controller.core.analysis`), the sources (`sources`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from controller import clock as clocks
from controller.core import copying, events, forecasts, judging, model, progress
from controller.core.analysis import judge, samples
from controller.engine import desk as desks
from controller.engine import draft as drafts
from controller.engine import sources, timing
from controller.engine import world as worlds
from controller.metrics import queries

# Between two looks, at most; with shorter heartbeats it is as long as these.
LOOK_PERIOD_MAX = timedelta(seconds=10)
# Nodes times metrics that are judged on the loop: a few milliseconds.
INLINE_FIGURES_MAX = 1_000

_log = logging.getLogger(__name__)


class Judges:
    """Looks at every canary wave that is being judged.

    Args:
        source: Where the figures come from.
    """

    def __init__(self, desk: desks.Desk, clock: clocks.Clock, source: sources.Sources) -> None:
        self._desk = desk
        self._clock = clock
        self._sources = source

    async def run(self, heartbeat_period: timedelta) -> None:
        """Look until cancelled."""
        period = min(heartbeat_period, LOOK_PERIOD_MAX)
        while True:
            await asyncio.sleep(period.total_seconds())
            rollouts = self._desk.world.rollouts
            judged = [each for each in sorted(rollouts) if judging.case(rollouts[each], self._clock.now())]
            await asyncio.gather(*map(self._look_safely, judged))

    async def _look_safely(self, rollout_id: model.RolloutId) -> None:
        try:
            await self.look(rollout_id)
        except Exception:  # noqa: BLE001 the fault of one look must not keep the task from the others
            _log.exception("cannot look at rollout %s", rollout_id, extra={"rollout_id": rollout_id})

    async def look(self, rollout_id: model.RolloutId) -> None:
        """Judge the canary wave of one rollout, if it has one to judge, and tell the rollout."""
        world, at = self._desk.world, self._clock.now()
        rollout = world.rollouts.get(rollout_id)
        case = None if rollout is None else judging.case(rollout, at)
        if rollout is None or case is None:
            return
        found = await self._judged(world, rollout, case, at)
        await self._desk.submit(functools.partial(_tell, rollout_id=rollout_id, judgement=found))

    async def _judged(
        self, world: worlds.World, rollout: model.Rollout, case: judging.Case, at: datetime
    ) -> model.Judgement:
        question = _question(world, rollout, case, at)
        answer = sources.Answer(fault="no changed node is left")
        if question is not None:
            answer = await self._sources.ask(question)
        made = functools.partial(judge.judge, case.analysis, answer.samples, at, case.elapsed, case.previous)
        found = _storable(await asyncio.to_thread(made) if _is_large(answer.samples) else made())
        return copying.replace(found, message=f"{found.message}: {answer.fault}") if answer.fault else found


def _tell(draft: drafts.Draft, rollout_id: model.RolloutId, judgement: model.Judgement) -> None:
    timing.feed_running(draft, rollout_id, events.Judged(draft.at, judgement))


def _is_large(found: Mapping[str, samples.Sample]) -> bool:
    return sum(len(each.is_canary) for each in found.values()) > INLINE_FIGURES_MAX


def _question(world: worlds.World, rollout: model.Rollout, case: judging.Case, at: datetime) -> sources.Question | None:
    if not case.changed:
        return None
    version = next(change.to_version for change in rollout.plan.waves[rollout.wave - 1].changes)
    return sources.Question(
        subject=queries.Subject(rollout.id, case.component, version),
        analysis=case.analysis,
        canary={each.node_id: each.changed_at + case.analysis.warm_up for each in case.changed},
        control=control(world, rollout, case),
        began_at=min(each.left_at for each in case.changed),
        at=at,
    )


def control(world: worlds.World, rollout: model.Rollout, case: judging.Case) -> tuple[model.NodeId, ...]:
    """Name the nodes that a canary wave is compared with.

    They run what the canary has left, are up, and nothing changes on them: neither this rollout nor another one. Where
    there are very many, some are taken by lot, at each look the same ones.
    """
    left = {each.from_digest for each in case.changed}
    busy = set(_busy(rollout))
    found = [
        node.id
        for node in world.nodes.values()
        if node.id not in busy
        and world.claims.get(node.id, rollout.id) == rollout.id
        and forecasts.can_compare(node, case.component, left)
    ]
    return tuple(sorted(found, key=functools.partial(_lot, rollout.id))[: forecasts.CONTROL_NODES_MAX])


def _lot(rollout_id: model.RolloutId, node_id: model.NodeId) -> tuple[int, str]:
    return zlib.crc32(f"{rollout_id} {node_id}".encode()), node_id


def _busy(rollout: model.Rollout) -> Iterator[model.NodeId]:
    """Go through the nodes of a rollout that are changed by the wave that is out, or change now."""
    yield from (change.node_id for change in rollout.plan.waves[rollout.wave - 1].changes)
    yield from (each.change.node_id for each in rollout.changes.values() if progress.is_out(each))


def _storable(found: model.Judgement) -> model.Judgement:
    """Put nothing in the place of what is no number: it could not be stored, nor could what is stored with it."""
    return copying.replace(found, evidence=tuple(map(_finite, found.evidence)))


def _finite(each: model.Evidence) -> model.Evidence:
    names = ("canary_value", "control_value", "lift", "lift_low", "lift_high", "p")
    wrong = [name for name in names if (value := getattr(each, name)) is not None and not math.isfinite(value)]
    return copying.replace(each, **dict.fromkeys(wrong)) if wrong else each
