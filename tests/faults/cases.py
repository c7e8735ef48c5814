"""Plays one fault: brings a node to where the operation begins, hits it, and judges what becomes of it.

Rules kept here: a case that was not hit proves nothing and is played again, then counted as failed; the judgement is
the same for all: each operation ends, what is current serves, both pointers are whole (G1), nothing half-made or
running is left, and no request fails where the operation promises that (G2).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from pathlib import Path

from agent.runner import releases
from tests.faults import judgement, points, scenarios, stage

TRIES_MAX = 3  # of a case that was not hit
ROLES = ("keeper", "agent", "verifier", "stager", "new_agent", "migration")
ENDED = ("PERMANENT", "ABORTED", "REFUSED", "EXPIRED")
HIT_SECONDS = 30.0  # in which the operation reaches the point, or has ended
LATE_SECONDS = 5.0  # in which it comes to what it does after its end
TRAFFIC_PAUSE_SECONDS = 0.03
FIRST_NUMBER = 1000  # above those of any saved state


@unique
class Victim(Enum):
    """What ends when the point is reached."""

    PROCESS = "process"
    HOST = "host"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at a point.

    Args:
        action: As strace is told.
    """

    name: str
    action: str
    victim: Victim


KILLED = Fault("killed", "signal=KILL", Victim.PROCESS)
HOST_DIED = Fault("host died", "signal=KILL", Victim.HOST)
DISK_FULL = Fault("disk full", "error=ENOSPC", Victim.NOTHING)
DISK_FAILED = Fault("input/output error", "error=EIO", Victim.NOTHING)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case went."""

    title: str
    violation: str = ""
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a scenario does where nothing is hit.

    Args:
        saved: State directory in which it begins.
    """

    scenario: scenarios.Scenario
    saved: Path
    places: points.Places
    points: tuple[points.Point, ...]


async def save(make: scenarios.Make, directory: Path) -> Path:
    """Make the state in which scenarios begin."""
    target = Path(tempfile.mkdtemp(dir=directory)) / "state"
    async with stage.node() as made:
        made.start()
        await make(made)
        made.forget_finished()
        await made.until(lambda: not made.told()["report"]["operations"])
        await made.die()
        made.save(target)
    return target


async def record(scenario: scenarios.Scenario, saved: Path) -> Recording:
    """Run a scenario under strace without hitting it; again where the machine hit it."""
    for _ in range(TRIES_MAX - 1):
        with contextlib.suppress(stage.Violation, AssertionError):
            return await _record_once(scenario, saved)
    return await _record_once(scenario, saved)


async def _record_once(scenario: scenarios.Scenario, saved: Path) -> Recording:
    async with stage.node() as made:
        made.load(saved)
        outputs = {role: made.root / f"trace.{role}" for role in ROLES}
        for role, output in outputs.items():
            made.trace(role, points.recording(role, output))
        made.start()
        await made.settle()
        since_seconds = time.time()  # noqa: TID251  # strace stamps by this clock
        async with traffic(made, scenario):
            operation_id = scenario.order(made)
            ended = await made.until_state(operation_id, "PERMANENT", "ABORTED")
        if ended["state"] != scenario.ends:
            raise AssertionError(f"{scenario.name} ended in {ended}")
        await made.until(lambda: not made.half_made())
        await _until_over(made, scenario)
        texts = {role: output.read_text(errors="replace") for role, output in outputs.items() if output.exists()}
        calls = [call for role, text in texts.items() for call in points.read(role, text)]
        found = points.enumerate_points(
            calls, made.places, since_seconds=since_seconds, instance=_mark_of(operation_id)
        )
        return Recording(scenario, saved, made.places, found)


def _mark_of(operation_id: str) -> str:
    """End of the id of the instance that an operation starts."""
    return releases.instance_id("web", f"sha256:{'0' * 64}", operation_id).rpartition("-")[2]


async def play(recording: Recording, point: points.Point, fault: Fault) -> Outcome:
    """Play one case; it is tried again where it was not hit."""
    title = f"{recording.scenario.name}: {point.title}: {fault.name}"
    for _ in range(TRIES_MAX):
        try:
            if await _play_once(recording, point, fault):
                return Outcome(title)
        except (stage.Violation, AssertionError) as violation:
            return Outcome(title, violation=str(violation))
    if scenarios.is_by_chance(point):
        return Outcome(title, skipped=f"happens by chance, and did not in {TRIES_MAX} tries")
    return Outcome(title, violation=f"not hit in {TRIES_MAX} tries")


async def _play_once(recording: Recording, point: points.Point, fault: Fault) -> bool:
    """Return False where the point was not reached."""
    scenario = recording.scenario
    async with stage.node() as made:
        made.load(recording.saved)
        output = made.root / "trace"
        made.trace(point.role, points.arguments(point, fault.action, recording.places, made.places, output))
        made.start()
        await made.settle()
        async with traffic(made, scenario) as seen:
            operation_id = scenario.order(made)
            is_hit = await _hit(made, scenario, operation_id, output, is_late=point.step in ENDED)
            if is_hit and fault.victim is Victim.HOST:
                seen.is_same_boot = False
                await made.die()
                made.check_disk()
                made.start()
            if is_hit:
                await made.until_state(operation_id, *ENDED)
            await made.settle()
        if is_hit:
            is_lossy = scenario.may_fail_requests(point) or not seen.is_same_boot
            await judge(made, scenario, seen, is_lossy=is_lossy)
        return is_hit


async def _hit(
    made: stage.FaultNode, scenario: scenarios.Scenario, operation_id: str, output: Path, *, is_late: bool
) -> bool:
    """Wait until the fault has happened; False where everything ended without it."""
    until = time.monotonic() + HIT_SECONDS
    while time.monotonic() < until and not _has_fired(output):
        is_ended = made.status(operation_id)["state"] in ENDED and not made.half_made()
        if is_ended and await scenario.is_over(made):
            break
        await asyncio.sleep(stage.POLL_SECONDS)
    # The tracer writes after the fact; and something is done after the end as well.
    until = time.monotonic() + (LATE_SECONDS if is_late else stage.POLL_SECONDS)
    while time.monotonic() < until and not _has_fired(output):  # noqa: ASYNC110  # it lies in another process
        await asyncio.sleep(stage.POLL_SECONDS)
    return _has_fired(output)


def _has_fired(output: Path) -> bool:
    return output.exists() and points.has_fired(output.read_text(errors="replace"))


async def _until_over(made: stage.FaultNode, scenario: scenarios.Scenario) -> None:
    async with asyncio.timeout(stage.PATIENCE_SECONDS):
        while not await scenario.is_over(made):  # noqa: ASYNC110  # it lies in other processes
            await asyncio.sleep(stage.POLL_SECONDS)


async def judge(made: stage.FaultNode, scenario: scenarios.Scenario, seen: judgement.Seen, *, is_lossy: bool) -> None:
    """See what became of the node, and what its clients saw.

    Raises:
        stage.Violation: It is not as it must be.
    """
    made.check_disk()
    await made.check_leftovers()
    await scenario.judge(made, seen)
    if seen.failed and seen.pid is not None and not is_lossy:
        raise stage.Violation(f"{seen.failed} of {seen.total} requests failed")


@contextlib.asynccontextmanager
async def traffic(made: stage.FaultNode, scenario: scenarios.Scenario) -> AsyncIterator[judgement.Seen]:
    """Ask the service all the time while the block runs."""
    served = await made.answer()
    acknowledged = judgement.numbers(made.keeper.state)
    seen = judgement.Seen(served.pid if served else None, acknowledged=acknowledged)
    is_over = asyncio.Event()
    asking = asyncio.ensure_future(_ask_on(made, seen, scenario.answer_seconds, is_over))
    try:
        yield seen
    finally:
        is_over.set()
        await asking


async def _ask_on(made: stage.FaultNode, seen: judgement.Seen, answer_seconds: float, is_over: asyncio.Event) -> None:
    for number in itertools.count(FIRST_NUMBER):
        if is_over.is_set():
            return
        seen.total += 1
        if await made.answer(number, within_seconds=answer_seconds) is None:
            seen.failed += 1
        else:
            seen.acknowledged.add(number)
        await asyncio.sleep(TRAFFIC_PAUSE_SECONDS)


def faults_at(point: points.Point) -> Sequence[Fault]:
    """The faults that make sense at a point."""
    found = [KILLED, HOST_DIED]
    if point.name in WRITING:
        found.append(DISK_FULL)
    if point.name in FLUSHING:
        found.append(DISK_FAILED)
    return found


WRITING = frozenset(
    {
        "write",
        "pwrite64",
        "writev",
        "openat",
        "mkdir",
        "mkdirat",
        "rename",
        "renameat",
        "symlink",
        "symlinkat",
        "ftruncate",
        "fallocate",
        "copy_file_range",
        "bind",
    }
)
FLUSHING = frozenset({"fsync", "fdatasync", "syncfs"})
