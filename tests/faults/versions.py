"""Versions that go wrong in every way that a version can: the node goes back by itself, or stops at its bounds.

Rules kept here: the old version serves in the end, no request to it fails, and the version is blamed (G8, G9); what is
in flight inside a version that dies goes with it (G2), and a client that asks once at a time has one such request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent.core import model
from tests.agent import live_node
from tests.faults import cases, scenarios, stage

LOG_BOUND_BYTES = 64 << 20  # two parts of 8 MiB, and what a second of the flood brings until a busy keeper looks
FLOOD_SECONDS = 4.0  # in which it would have written four times that
FLOOD = b"""
import threading, time
def flood():
    while True:
        print("x" * 65536)
        time.sleep(0.0005)
threading.Thread(target=flood, daemon=True).start()
"""
DIES_AFTER = b"""
import os, threading
threading.Timer(%s, lambda: os._exit(3)).start()
"""
NEVER_READY = b"""
import time
time.sleep(3600)
"""
NEVER_DRAINS = b"""
from instar_handover import service as _service
_service.Service._sweep = lambda self: None
_service.Service._on_end = lambda self: None
"""


@dataclass(frozen=True, slots=True)
class Version:
    """A version and what becomes of the change to it.

    Args:
        code: Put before the service's own.
        ends: State of the operation in the end.
        fault: Whose fault the operation says it is.
        changed: Fields of the assignment that differ.
        dies_serving: It takes traffic and then dies.
    """

    name: str
    code: bytes
    ends: str
    fault: model.Fault | None
    changed: Mapping[str, Any]
    check: Callable[[stage.FaultNode], Awaitable[None]] | None = None
    dies_serving: bool = False


async def _log_is_bounded(node: stage.FaultNode) -> None:
    until = time.monotonic() + FLOOD_SECONDS
    while time.monotonic() < until:
        sizes = {path.name: path.stat().st_size for path in node.keeper.run.glob("*.log*")}
        too_large = {name: size for name, size in sizes.items() if size > LOG_BOUND_BYTES}
        if too_large:
            raise stage.Violation(f"logs have {too_large} bytes")
        await asyncio.sleep(stage.POLL_SECONDS)


SOAKS = {"soak_duration": timedelta(seconds=3)}
BAKES = {"soak_duration": timedelta(seconds=0.2), "min_healthy_duration": timedelta(seconds=5)}
VERSIONS = (
    Version("crashes at once", b"raise SystemExit(1)\n", "ABORTED", model.Fault.VERSION, {}),
    Version("crashes in the middle of its start", DIES_AFTER % b"0.05", "ABORTED", model.Fault.VERSION, SOAKS),
    Version("crashes in soak", DIES_AFTER % b"1.5", "ABORTED", model.Fault.VERSION, SOAKS, dies_serving=True),
    Version("crashes in bake", DIES_AFTER % b"2.5", "COMMITTED", model.Fault.VERSION, BAKES),
    Version("never gets ready", NEVER_READY, "ABORTED", model.Fault.VERSION, {}),
    Version("fails its probe in soak", b"", "ABORTED", model.Fault.VERSION, {"soak_duration": timedelta(seconds=9)}),
    Version("never drains", NEVER_DRAINS, "PERMANENT", None, {}),
    Version("floods its log", FLOOD, "PERMANENT", None, {}, _log_is_bounded),
)


async def play(version: Version, saved: Path) -> cases.Outcome:
    """Upgrade to the version, and judge what becomes of it."""
    title = f"version that {version.name}"
    async with stage.node() as made:
        made.load(saved)
        made.start()
        await made.settle()
        try:
            await _upgrade(made, version)
        except (stage.Violation, AssertionError) as violation:
            return cases.Outcome(title, violation=str(violation))
    return cases.Outcome(title)


async def _upgrade(made: stage.FaultNode, version: Version) -> None:
    service = version.code + live_node.SERVICE
    unwell = scenarios.UNWELL if version.name == "fails its probe in soak" else None
    old, new = made.bundle("1.0.0"), made.bundle("1.1.0", unwell, service, prepare_timeout="3s")
    changed = {**scenarios.QUICK, **version.changed}
    async with cases.traffic(made, scenarios.SCENARIOS[scenarios.BASE]) as seen:
        operation_id = made.assign("1.1.0", new, old, **changed)
        ended = await made.until_state(operation_id, version.ends)
        fault = version.fault.value if version.fault else None
        await made.until(lambda: made.status(operation_id)["fault"] == fault)
        await made.settle()
    made.check_disk()
    if version.check is not None:
        await version.check(made)
    in_flight = 1 if version.dies_serving else 0
    if seen.failed > in_flight and version.ends != "COMMITTED":
        raise stage.Violation(f"{seen.failed} of {seen.total} requests failed; ended in {ended}")
    if version.ends == "PERMANENT":
        await _leaves(made, new)
    await made.check_leftovers()


async def _leaves(made: stage.FaultNode, new: str) -> None:
    """Go back from what never drains: it is ended by force, and nothing of it is left."""
    async with cases.traffic(made, scenarios.SCENARIOS[scenarios.BASE]):
        operation_id = made.assign("1.0.0", made.bundle("1.0.0"), new, **scenarios.QUICK)
        await made.until_state(operation_id, "PERMANENT")
        await made.settle()
