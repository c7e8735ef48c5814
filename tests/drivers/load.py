"""nginx and gunicorn reloaded under load: clients that never retry, and every failure counted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from agent.drivers import conformance
from agent.drivers.conformance import stage
from tests.agent.keeper import load
from tests.drivers import programs, reload

REQUESTS = 60  # answered by a version before anything moves on; half a second of load


async def run_all(tell: Callable[[str], None]) -> list[dict[str, object]]:
    """Swap and abort each program under load; one entry for each."""
    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="idl-") as folder:
        for module, fixture in (
            (reload, reload.nginx(Path(folder))),
            (reload, reload.gunicorn()),
        ):
            total, failures = await swapped(module, fixture)
            found.append({"program": fixture.name, "total": total, "failed": len(failures)})
            tell(f"{fixture.name}: {len(failures)} of {total} requests failed {failures[:3]}")
    return found


async def swapped(module: conformance.FixtureModule, fixture: programs.Web) -> tuple[int, list[load.Failure]]:
    """Abort one swap and do another, under load; how many requests there were, and those that failed."""
    async with stage.on(module, fixture) as on:
        old = await on.installed("1.0.0")
        async with load.on(fixture.address) as seen:
            await seen.until_served("1.0.0", REQUESTS)
            aborted = on.change(on.launch("1.1.0"), old)
            await on.switch(aborted)
            await seen.until_served("1.1.0", REQUESTS // 2)
            await on.call("abort", aborted)
            await seen.until_served("1.0.0", REQUESTS)
            change = on.change(on.launch("1.2.0"), old)
            await on.switch(change)
            await seen.until_served("1.2.0", REQUESTS // 2)
            await on.committed(change)
            await on.call("drain", change)
            await seen.until_served("1.2.0", REQUESTS)
        return seen.total, seen.failures
