"""Known bugs, planted into the product one at a time: what the simulator is worth is which of them it finds.

Rules kept: each is small, of a kind that people write, and breaks one promise; each names the sentence that finds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from unittest import mock

from agent import depot
from agent.depot import pointers
from controller.core import dispatch, errors, gate, model, refusals, routes
from controller.core import draft as drafts
from controller.engine import desk as desks
from controller.engine import draft as engine_drafts
from controller.engine import fleet, queueing, standing
from controller.engine import world as worlds
from tests.simulation import world

SEEDS = 100  # that a bug may hide for; most are found by the first few
NODES = 8  # in a run that looks for one
STORY_MINUTES = 10  # of such a run


@dataclass(frozen=True, slots=True)
class Plant:
    """One bug.

    Args:
        name: What is wrong, in words.
        where: What it takes the place of.
        what: What it puts there.
        finds: Part of a violation that shows it.
    """

    name: str
    where: str
    what: object
    finds: str


@dataclass(frozen=True, slots=True)
class Found:
    """What came of looking for one bug; no violation where no seed has found it."""

    name: str
    seed: int
    violation: str


def look_for(plant: Plant, nodes: int = NODES) -> Found:
    """Run seed after seed with a bug until one of them finds it."""
    with mock.patch(plant.where, plant.what):
        for seed in range(1, SEEDS + 1):
            outcome = world.run(seed, nodes, is_hasty=True, story_minutes=STORY_MINUTES)
            found = [each for each in outcome.violations if plant.finds in each]
            if found:
                return Found(plant.name, seed, found[0])
    return Found(plant.name, SEEDS, "")


# On a node.


async def _nothing(*_arguments: object) -> None:
    """Leave it down."""


def _collect_all(self: depot.Depot, keep: object, retain: object) -> tuple[str, ...]:
    del keep, retain
    for both in self.components().values():
        pointers.remove(self.release_dir(both.permanent))
    return ()


# Of a rollout.

_FILL, _FILL_FORWARD = dispatch.fill, dispatch._fill_forward
_FLOOR_ROOM, _PARALLEL_ROOM = dispatch.floor_room, dispatch.parallel_room


def _promote(*_arguments: object, **_options: object) -> gate.Verdict:
    return gate.Verdict(model.Gate.PROMOTE)


def _fill_while_paused(draft: drafts.Draft, at: datetime) -> bool:
    if draft.rollout.state is model.RolloutState.PAUSED and not draft.is_giving_up:
        _FILL_FORWARD(draft, at)
    return _FILL(draft, at)


def _fill_once_more(draft: drafts.Draft, at: datetime) -> bool:
    if draft.rollout.state is model.RolloutState.RUNNING and draft.rollout.is_cancelled:
        _FILL_FORWARD(draft, at)
    return _FILL(draft, at)


def _unmoved(instant: datetime | None, _length: timedelta) -> datetime | None:
    return instant


def _one_more_in_floor(draft: drafts.Draft) -> int:
    return _FLOOR_ROOM(draft) + 1


def _one_more_in_parallel(draft: drafts.Draft) -> int:
    return _PARALLEL_ROOM(draft) + 1


def _all_lanes(_draft: object, lanes: Iterable[str]) -> Iterable[str]:
    return lanes


def _whenever(*_arguments: object) -> bool:
    return True


def _never(*_arguments: object) -> bool:
    return False


# Of the world around it.

_DOWN, _RANK, _NETWORK, _ADD_FREEZE = standing._down, queueing._rank, routes.network, fleet.Fleet.add_freeze


def _nothing_frozen(*_arguments: object) -> str:
    return ""


def _nothing_cordoned(world_now: worlds.World, rollout: model.Rollout, node: model.Node) -> str:
    return _DOWN(world_now, rollout, replace(node, cordoned_because="", quarantined_because=""))


def _nothing_told(*_arguments: object) -> tuple[()]:
    return ()


def _last_first(rollout: model.Rollout) -> tuple[int, str, str]:
    priority, *rest = _RANK(rollout)
    return -priority, rest[0], rest[1]


def _without_barriers(
    component: model.ComponentName, releases: Iterable[model.Release], graph: model.VersionGraph
) -> routes.Network:
    return _NETWORK(component, releases, replace(graph, barriers=()))


def _nothing_checked(*_arguments: object) -> None:
    """Let everybody have the nodes."""


def _nothing_required(*_arguments: object) -> tuple[refusals.Refusal, ...]:
    return ()


async def _done_and_refused(
    self: fleet.Fleet, selector_text: str, since: datetime, until: datetime | None, *, reason: str, actor: str
) -> model.Freeze:
    await _ADD_FREEZE(self, selector_text, since, until, reason=reason, actor=actor)
    raise errors.RefusedError("cannot freeze: it is too late", code="too_late")


async def _answer_first(self: desks.Desk, works: list[desks._Work]) -> None:
    batch = engine_drafts.Draft(self.world, self._clock.now())
    desks._answer([(work, self._draft(work, batch)) for work in works], None)
    await self._write(batch)


_CORE, _ENGINE = "controller.core", "controller.engine"
PLANTS = (
    Plant(
        "a node that starts nothing after a power cut",
        "agent.runner.upkeep.Upkeep._bring_up",
        _nothing,
        "nothing accepts",
    ),
    Plant("a disk that forgets what is pointed at", "agent.depot.Depot.collect", _collect_all, "G1 both versions"),
    Plant("an answer before the commit", f"{_ENGINE}.desk.Desk._serve", _answer_first, "has left"),
    Plant("a gate that promotes whatever happens", f"{_CORE}.gate.decide", _promote, "success keeps the budget"),
    Plant(
        "a pause that the dispatch does not see", f"{_CORE}.dispatch.fill", _fill_while_paused, "paused starts nothing"
    ),
    Plant("a pause in which clocks go on", f"{_CORE}.pausing._later", _unmoved, "a pause stops every clock"),
    Plant("a cancel that assigns once more", f"{_CORE}.dispatch.fill", _fill_once_more, "starts nothing more"),
    Plant("a floor that is one node too low", f"{_CORE}.dispatch.floor_room", _one_more_in_floor, "the floor is kept"),
    Plant("one operation too many", f"{_CORE}.dispatch.parallel_room", _one_more_in_parallel, "parallelism is kept"),
    Plant(
        "failure domains that nobody counts", f"{_CORE}.dispatch._open_lanes", _all_lanes, "failure domains are kept"
    ),
    Plant("windows that are always open", f"{_CORE}.dispatch.is_window_open", _whenever, "outside its window"),
    Plant("an emergency without an end", f"{_CORE}.deciding._is_late", _never, "an emergency is over"),
    Plant("a freeze that nobody hears of", f"{_ENGINE}.standing._frozen", _nothing_frozen, "starts through a freeze"),
    Plant("a cordon that nobody hears of", f"{_ENGINE}.standing._down", _nothing_cordoned, "nothing starts on a"),
    Plant("an absence that tells nothing else", f"{_ENGINE}.standing.news", _nothing_told, "nothing starts"),
    Plant("a queue in which the last is first", f"{_ENGINE}.queueing._rank", _last_first, "nobody is overtaken"),
    Plant("barriers that nobody sees", f"{_CORE}.routes.network", _without_barriers, "past a barrier"),
    Plant(
        "nodes that everybody has", f"{_ENGINE}.admission.check_claims", _nothing_checked, "in one unfinished rollout"
    ),
    Plant(
        "requirements that nobody reads",
        f"{_CORE}.refusals._against_missing",
        _nothing_required,
        "lack what it requires",
    ),
    Plant(
        "a refusal that comes too late",
        f"{_ENGINE}.fleet.Fleet.add_freeze",
        _done_and_refused,
        "refused changes nothing",
    ),
)
