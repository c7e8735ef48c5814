"""The command `python -m tests.faults [--short] [--only TEXT] [-o json]`: plays every fault and counts what held.

`--only controller` plays the deaths of the controller alone; they need nothing but this machine's own programs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec

from tests.faults import cases, clocks, crashes, lives, points, powercut, scenarios, stage, versions

JOBS = 3  # cases at the same time: most of a case is waiting, and the machine has two cores
POWER_CUTS = 8  # of each scenario
P = ParamSpec("P")
Play = Callable[[], Awaitable[cases.Outcome]]


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Args:
        group: What it is one of: a kind of fault in a scenario. The short form plays one of each group.
    """

    title: str
    group: tuple[str, str]
    play: Play


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="one case of each kind of fault in each scenario")
    parser.add_argument("--only", default="", help="cases whose title holds this text")
    parser.add_argument("--scenario", choices=scenarios.SCENARIOS, help="this one alone")
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("-o", dest="output", choices=("text", "json"), default="text")
    chosen = parser.parse_args(argv)
    outcomes = asyncio.run(_run_all(chosen))
    document = _document(outcomes)
    print(json.dumps(document) if chosen.output == "json" else _text(document))  # noqa: T201  # a command's answer
    return 0 if document["held"] == document["cases"] else 1


async def _run_all(chosen: argparse.Namespace) -> Sequence[cases.Outcome]:
    """The node's faults and the controller's, unless only the ones or the others are wanted."""
    of_controller, of_node = await asyncio.gather(_run_deaths(chosen), _run_node(chosen))
    return [*of_controller, *of_node]


async def _run_deaths(chosen: argparse.Namespace) -> Sequence[cases.Outcome]:
    if chosen.scenario or not (chosen.only.startswith(crashes.NAME) or crashes.NAME.startswith(chosen.only)):
        return []
    async with lives.source() as source:
        return await _play_all(await _deaths(source, chosen), chosen.jobs)


async def _run_node(chosen: argparse.Namespace) -> Sequence[cases.Outcome]:
    if chosen.only.startswith(crashes.NAME):
        return []
    obstacle = stage.obstacle()
    if obstacle:
        return [cases.Outcome("everything of a node", skipped=obstacle)]
    with tempfile.TemporaryDirectory(prefix="in-saved-") as folder:
        return await _run(chosen, Path(folder))


async def _deaths(source: lives.Source, chosen: argparse.Namespace) -> Sequence[Case]:
    """Deaths of the controller: at each point by itself; in the short form at each kind, in one run of each story."""
    found: list[Case] = []
    for name in crashes.NAMES:
        group, begin = (crashes.NAME, name), f"{crashes.NAME}: {name}: "
        if not (begin.startswith(chosen.only) or chosen.only.startswith(begin)):
            continue
        if chosen.short:
            found.append(Case(f"{crashes.NAME}: {name}: each kind", group, _bound(crashes.play_each, source, name)))
            continue
        recording = await crashes.record(source, name)
        print(f"{crashes.NAME}: {name}: {len(recording.points)} points", file=sys.stderr)  # noqa: T201  # progress
        for point in recording.points:
            title = crashes.title(name, point)
            print(f"  {title}", file=sys.stderr)  # noqa: T201  # the enumeration is part of the answer
            found.append(Case(title, group, _bound(crashes.play, source, name, point)))
    return [case for case in found if chosen.only in case.title]


async def _run(chosen: argparse.Namespace, folder: Path) -> Sequence[cases.Outcome]:
    wanted = [chosen.scenario] if chosen.scenario else list(scenarios.SCENARIOS)
    recordings = await _record_all({*wanted, scenarios.BASE}, folder, chosen.jobs)
    covered = {each.key for each in recordings[scenarios.BASE].points}
    found: list[Case] = []
    for name in wanted:
        recording = recordings[name]
        played = [each for each in recording.points if each.key not in covered or recording.scenario.owns(each)]
        _list_points(name, played)
        found += [*_hits(recording, played), *_cuts(recording)]
        if name == scenarios.BASE:
            found += [*_steps(recording), *_versions(recording)]
    found = [case for case in found if chosen.only in case.title]
    return await _play_all(_one_of_each(found) if chosen.short else found, chosen.jobs)


def _one_of_each(found: Iterable[Case]) -> Sequence[Case]:
    """Of each group the one in the middle, for what differs most is neither at the beginning nor at the end."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in found:
        groups.setdefault(case.group, []).append(case)
    return [group[len(group) // 2] for group in groups.values()]


async def _record_all(names: Iterable[str], folder: Path, jobs: int) -> Mapping[str, cases.Recording]:
    """Make the states that scenarios begin in, each once, then record the scenarios."""
    chosen = {name: each for name, each in scenarios.SCENARIOS.items() if name in names}
    turns = asyncio.Semaphore(jobs)

    async def save(make: scenarios.Make) -> Path:
        async with turns:
            return await cases.save(make, folder)

    async def record(scenario: scenarios.Scenario, saved: Path) -> cases.Recording:
        async with turns:
            return await cases.record(scenario, saved)

    async with asyncio.TaskGroup() as group:
        saving = {make: group.create_task(save(make)) for make in {each.make for each in chosen.values()}}
    async with asyncio.TaskGroup() as group:
        recording = {name: group.create_task(record(each, saving[each.make].result())) for name, each in chosen.items()}
    return {name: task.result() for name, task in recording.items()}


def _hits(recording: cases.Recording, found: Iterable[points.Point]) -> Iterable[Case]:
    name = recording.scenario.name
    return [
        Case(f"{name}: {point.title}: {fault.name}", (name, fault.name), _bound(cases.play, recording, point, fault))
        for point in found
        for fault in cases.faults_at(point)
    ]


def _cuts(recording: cases.Recording) -> Iterable[Case]:
    scenario = recording.scenario
    return [
        Case(
            f"{scenario.name}: power cut, seed {seed}",
            (scenario.name, "power cut"),
            _bound(powercut.play, scenario, recording.saved, seed),
        )
        for seed in range(POWER_CUTS)
    ]


def _steps(recording: cases.Recording) -> Iterable[Case]:
    scenario = recording.scenario
    return [
        Case(
            f"{scenario.name}: clock steps by {offset} s in {moment}",
            (scenario.name, f"clock {offset}"),
            _bound(clocks.play, scenario, recording.saved, moment, offset),
        )
        for moment in clocks.MOMENTS
        for offset in clocks.STEPS
    ]


def _versions(recording: cases.Recording) -> Iterable[Case]:
    return [
        Case(f"version that {each.name}", ("version", each.name), _bound(versions.play, each, recording.saved))
        for each in versions.VERSIONS
    ]


def _bound(play: Callable[P, Awaitable[cases.Outcome]], *args: P.args, **kwargs: P.kwargs) -> Play:
    return lambda: play(*args, **kwargs)


async def _play_all(found: Sequence[Case], jobs: int) -> Sequence[cases.Outcome]:
    outcomes: list[cases.Outcome] = []
    waiting = iter(found)

    async def work() -> None:
        for case in waiting:
            outcome = await case.play()
            outcomes.append(outcome)
            _progress(len(outcomes), len(found), outcome)

    async with asyncio.TaskGroup() as group:
        for _ in range(jobs):
            group.create_task(work())
    return outcomes


def _progress(done: int, of: int, outcome: cases.Outcome) -> None:
    verdict = f"FAILED: {outcome.violation}" if outcome.violation else outcome.skipped or "held"
    print(f"{done}/{of} {outcome.title}: {verdict}", file=sys.stderr, flush=True)  # noqa: T201  # progress


def _list_points(name: str, found: Sequence[points.Point]) -> None:
    print(f"{name}: {len(found)} points", file=sys.stderr)  # noqa: T201  # progress
    for point in found:
        print(f"  {point.title}", file=sys.stderr)  # noqa: T201  # the enumeration is part of the answer


def _document(outcomes: Sequence[cases.Outcome]) -> Mapping[str, object]:
    played = [each for each in outcomes if not each.skipped]
    failed = [{"case": each.title, "why": each.violation} for each in played if each.violation]
    return {
        "cases": len(played),
        "held": len(played) - len(failed),
        "failed": failed,
        "skipped": dict(Counter(each.skipped for each in outcomes if each.skipped)),
    }


def _text(document: Mapping[str, object]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in document.items())


if __name__ == "__main__":
    sys.exit(main())
