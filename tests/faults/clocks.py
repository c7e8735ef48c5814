"""Clock steps: the wall clock of the node jumps by an hour, forwards and backwards, in the middle of an operation.

Rules kept here: deadlines are monotonic, so nothing ends early or late. Played with libfaketime, whose file says by
how much the clock of the node's processes is off; the clock of the machine stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.faults import cases, scenarios, stage

LIBRARY = "libfaketimeMT.so.1"
LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime")
STEPS: Sequence[str] = ("+3600", "-3600")
MOMENTS: Sequence[str] = ("PREPARE", "SOAK", "BAKE")


async def play(scenario: scenarios.Scenario, saved: Path, moment: str, offset: str) -> cases.Outcome:
    """Let the clock jump when the operation comes to a step."""
    title = f"{scenario.name}: clock steps by {offset} s in {moment}"
    library = next((path for path in (Path(folder, LIBRARY) for folder in LIBRARY_FOLDERS) if path.exists()), None)
    if library is None:
        return cases.Outcome(title, skipped="libfaketime is not installed")
    async with stage.node() as made:
        made.load(saved)
        clock = made.root / "clock"
        clock.write_text("+0")
        made.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        try:
            await _step(made, scenario, clock, moment, offset)
        except (stage.Violation, AssertionError) as violation:
            return cases.Outcome(title, violation=str(violation))
    return cases.Outcome(title)


async def _step(made: stage.FaultNode, scenario: scenarios.Scenario, clock: Path, moment: str, offset: str) -> None:
    made.start()
    await made.settle()
    async with cases.traffic(made, scenario) as seen:
        operation_id = scenario.order(made)
        await made.until(lambda: made.status(operation_id)["step"] == moment)
        clock.write_text(offset)  # noqa: ASYNC240  # a few bytes, and nothing else runs here
        await made.until_state(operation_id, scenario.ends)
        await made.settle()
    await cases.judge(made, scenario, seen, is_lossy=False)
