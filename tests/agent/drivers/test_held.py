"""One instance at a time on a held socket: who comes meanwhile waits, and is not kept waiting for ever."""

import asyncio
import os
import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from agent import drivers
from agent.core import model
from agent.drivers.conformance import stage
from tests.agent.keeper import load
from tests.drivers import held as fixtures
from tests.drivers import programs

REQUESTS = 60


def a_fixture(tmp_path: Path) -> programs.Web:
    [found] = fixtures.conformance_fixtures(tmp_path)
    assert isinstance(found, programs.Web)
    return found


async def test_a_restart_and_an_aborted_one_under_load_refuse_nobody(tmp_path: Path) -> None:
    async with stage.on(fixtures, fixture := a_fixture(tmp_path)) as on:
        old = await on.installed("1.0.0")
        async with load.on(fixture.address) as seen:
            await seen.until_served("1.0.0", REQUESTS)
            aborted = on.change(on.launch("1.1.0"), old)
            await on.switch(aborted)
            await seen.until_served("1.1.0", REQUESTS)
            await on.call("abort", aborted)
            await seen.until_served("1.0.0", REQUESTS)
            change = on.change(on.launch("1.2.0"), old)
            await on.switch(change)
            await on.committed(change)
            await on.call("drain", change)
            await seen.until_served("1.2.0", REQUESTS)
    assert seen.failures == []


async def test_who_waits_for_longer_than_the_hold_timeout_is_sent_away(tmp_path: Path) -> None:
    fixture = replace(a_fixture(tmp_path), options=model.HeldOptions(hold_timeout=timedelta(seconds=0.5)))
    sent_away = asyncio.Event()

    async def stand_still() -> drivers.Evidence:
        """Be a migration that takes until a client was sent away."""
        reader, writer = await asyncio.open_connection(*fixture.address)
        async with asyncio.timeout(stage.PATIENCE_SECONDS):
            assert await reader.read() == b""
        writer.close()
        sent_away.set()
        return {}

    async with stage.on(fixtures, fixture) as on:
        old = await on.installed("1.0.0")
        await on.switch(replace(on.change(on.launch("1.1.0"), old), before_new=stand_still))
        await on.serves("1.1.0")
    assert sent_away.is_set()


async def test_the_keeper_alone_goes_back_to_the_old_version_when_the_new_one_dies(tmp_path: Path) -> None:
    async with stage.on(fixtures, a_fixture(tmp_path)) as on:
        old = await on.installed("1.0.0")
        change = on.change(on.launch("1.1.0"), old)
        await on.switch(change)
        [new] = [each for each in await on.look("web") if each.pid]
        os.kill(new.pid, signal.SIGKILL)
        await on.serves("1.0.0")
        verdict = await on.driver.commit(change)
    assert (verdict.outcome, verdict.fault) == (drivers.Outcome.ROLLED_BACK, model.Fault.VERSION)


async def test_only_an_abort_goes_back_behind_a_migration(tmp_path: Path) -> None:
    """The keeper cannot undo a migration, so it must not start the old version on what the new one left."""
    seen: list[str] = []

    async def note(what: str) -> drivers.Evidence:
        seen.append(what)
        return {}

    async with stage.on(fixtures, a_fixture(tmp_path)) as on:
        old = await on.installed("1.0.0")
        change = replace(
            on.change(on.launch("1.1.0"), old), before_new=lambda: note("migrated"), before_old=lambda: note("restored")
        )
        await on.switch(change)
        [new] = [each for each in await on.look("web") if each.pid]
        os.kill(new.pid, signal.SIGKILL)
        await on.serves()
        await on.call("abort", change)
        await on.serves("1.0.0")
    assert seen == ["migrated", "restored"]


async def test_an_old_version_that_keeps_dying_is_not_started_beside_the_new_one(tmp_path: Path) -> None:
    """The keeper would start what it keeps again at any moment; so it is forgotten before the new one starts."""
    async with stage.on(fixtures, a_fixture(tmp_path)) as on:
        old = await on.installed("1.0.0")
        change = on.change(on.launch("1.1.0"), old)
        await on.call("prepare", change)

        async def is_dead() -> bool:
            [seen] = await on.look("web")
            if seen.pid:
                os.kill(seen.pid, signal.SIGKILL)
            return seen.restarts >= 3 and not seen.pid  # the pause before the next start is long now

        assert await stage.until(is_dead)
        await on.call("activate", change)
        assert [each.digest for each in await on.look("web")] == [change.new.digest if change.new else ""]
        await on.serves("1.1.0")
