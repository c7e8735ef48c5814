"""Plays the deaths of a controller: a story is recorded once without any, then played with death at one point, or many.

Rules kept here: each transition that the recording came by has a point at each of its boundaries; a story in which
nothing died where it should proves nothing and counts as failed; in the end everything was done, and once: by the audit
log, by the nodes, and by the store, which is looked through and worked out anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller import releases
from controller.rpc import principals
from controller.store import checking, database
from tests.faults import callers, cases, coming_in, fleet_story, light_agents, lives, stage, stories, transitions

NODES = ("n1", "n2", "n3")
MANIFEST = 'name = "{name}"\nversion = "{version}"\ndriver = "handover"\ncommand = ["python", "main.py"]\n'
NAME = "controller"
STORIES: Mapping[str, stories.Story] = {"rollouts": stories.rollouts, "fleet": fleet_story.fleet}
NAMES = (*STORIES, coming_in.NAME)
BY_CHANCE = frozenset({"Ticked", "session closed", "Store.write_chunks"})


@dataclass(frozen=True, slots=True)
class Recording:
    """What a story came by where nothing died."""

    name: str
    points: tuple[lives.Point, ...]


@contextlib.asynccontextmanager
async def told(house: lives.House) -> AsyncIterator[stories.Teller]:
    """Have a controller that dies where it shall, and agents, while the block runs."""
    house.folder.mkdir(parents=True, exist_ok=True)
    agents = {
        node_id: light_agents.Agent(
            node_id, (("authorization", f"Bearer {house.enrol(principals.Kind.AGENT, node_id)}"),)
        )
        for node_id in NODES
    }
    caller = callers.Caller(house)
    living = [asyncio.ensure_future(house.live())]
    living += [asyncio.ensure_future(each.live(house.address)) for each in agents.values()]
    try:
        yield stories.Teller(caller, agents, _bundles(house.folder))
    finally:
        for task in reversed(living):
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)
        await caller.close()
        house.kill()


async def record(source: lives.Source, name: str) -> Recording:
    """Tell a story without any death."""
    with tempfile.TemporaryDirectory(prefix="in-told-") as folder:
        house = lives.House(source, Path(folder))
        passed = await _tell(house, name)
        return Recording(name, tuple(_points(passed)))


def _points(passed: lives.Passed) -> Iterator[lives.Point]:
    """Each transition at each boundary; of those that first came together, one stands for all."""
    seen: set[lives.Point] = set()
    for boundary, names in passed:
        new = [name for name in names if (boundary, name) not in seen]
        seen |= {(boundary, name) for name in new}
        if new:
            yield boundary, next(filter(transitions.is_answered, new), new[0])


def title(name: str, point: lives.Point) -> str:
    """How a point of a story is printed."""
    boundary, transition = point
    return f"{NAME}: {name}: {transition}: killed {boundary}"


async def play(source: lives.Source, name: str, point: lives.Point) -> cases.Outcome:
    """Tell a story with death at a point; again where nobody came by."""
    said = title(name, point)
    for _ in range(cases.TRIES_MAX):
        with tempfile.TemporaryDirectory(prefix="in-told-") as folder:
            house = lives.House(source, Path(folder), [point])
            violation = await _violation(house, name)
        if violation:
            return cases.Outcome(said, violation=violation)
        if not house.armed:
            return cases.Outcome(said)
    if point[1] in BY_CHANCE:
        return cases.Outcome(said, skipped=f"happens by chance, and did not in {cases.TRIES_MAX} tries")
    return cases.Outcome(said, violation=f"not hit in {cases.TRIES_MAX} tries")


async def play_each(source: lives.Source, name: str) -> cases.Outcome:
    """Tell a story with death at each kind of transition that it comes by, once, each life at the next one."""
    with tempfile.TemporaryDirectory(prefix="in-told-") as folder:
        house = lives.House(source, Path(folder), dies_at_each=True)
        violation = await _violation(house, name)
    kinds, boundaries = len(house.spared), Counter(boundary for boundary, _ in house.deaths)
    told = ", ".join(f"{count} {boundary}" for boundary, count in sorted(boundaries.items()))
    return cases.Outcome(f"{NAME}: {name}: {len(house.deaths)} lives, {kinds} kinds: killed {told}", violation)


async def _violation(house: lives.House, name: str) -> str:
    try:
        await _tell(house, name)
    except (stage.Violation, AssertionError, TimeoutError) as violation:
        last = house.deaths[-1] if house.deaths else "nowhere"
        return f"{str(violation) or type(violation).__name__}; died last at {last}"
    return ""


async def _tell(house: lives.House, name: str) -> lives.Passed:
    """Tell it to its end, and judge; what was passed until then."""
    if name == coming_in.NAME:
        passed = await coming_in.tell(house)
        check_store(house)
        return passed
    async with told(house) as teller:
        await STORIES[name](teller)
        await judge(teller)
        living = await house.listening()
        all_passed = [*house.passed, *living.passed]
        await house.stop()
    check_store(house)
    return all_passed


async def judge(teller: stories.Teller) -> None:
    """See that everything was done, and nothing twice.

    Raises:
        stage.Violation: It is not so.
    """
    rows = await teller.caller.audit()
    for mark, count in teller.caller.asked.items():
        found = sum(mark.fits(row) for row in rows)
        if found != count:
            raise stage.Violation(f"{mark.action} {mark.subject} {mark.reason} was done {found} times, not {count}")
    twice = [each for agent in teller.agents.values() for each in agent.twice]
    if twice:
        raise stage.Violation("; ".join(twice))


def check_store(house: lives.House) -> None:
    """Look the store through, as `instar store check` does.

    Raises:
        stage.Violation: Something is wrong with it.
    """
    shelf = releases.Shelf(house.state_dir / "releases" / "sha256")
    with database.looked_at(house.state_dir / "controller.db") as connection:
        found = [*checking.Check(shelf.is_whole, lambda *_: None).findings(connection)]
    if found:
        raise stage.Violation("; ".join(f"{each.place}: {each.message}" for each in found))


def _bundles(folder: Path) -> dict[str, Path]:
    return {version: _bundle(folder / version, version) for version in stories.VERSIONS}


def _bundle(root: Path, version: str) -> Path:
    root.mkdir()
    (root / "instar.toml").write_text(MANIFEST.format(name=light_agents.COMPONENT, version=version))
    (root / "main.py").write_text(f"print({version!r})\n")
    bundle = root.with_name(f"{version}.tar")
    releases.build(root, bundle)
    return bundle
