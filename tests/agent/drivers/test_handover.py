"""The hand-over of shared sockets, with real servers under load; the conformance suite tries the verbs one by one."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from agent import drivers, processes
from agent.core import model
from agent.drivers import conformance, handover, instances
from agent.drivers.conformance import stage
from tests.agent.keeper import load
from tests.drivers import handover as fixtures
from tests.drivers import load as under_load
from tests.drivers import programs, reload, sources

Behaviour = conformance.Behaviour


def gated() -> programs.Web:
    return fixtures.web("gated", model.Method.HOT_SWAP, sources.SDK_SERVICE)


def plain(source: str = sources.LISTEN_FDS_SERVICE) -> programs.Web:
    return fixtures.web("listen_fds", model.Method.HOT_SWAP, source, fixtures.PLAIN)


def gunicorn() -> programs.Web:
    """gunicorn as any program that knows LISTEN_FDS."""
    return replace(reload.gunicorn(), driver=handover.NAME, options=fixtures.PLAIN)


@pytest.mark.parametrize("fixture", [gated(), gunicorn()], ids=["protocol", "gunicorn_by_listen_fds"])
async def test_a_swap_and_an_abort_under_load_lose_no_request(fixture: programs.Web) -> None:
    total, failures = await under_load.swapped(fixtures, fixture)
    assert (total > under_load.REQUESTS, failures) == (True, [])


async def test_a_prepared_instance_does_not_accept() -> None:
    async with stage.on(fixtures, fixture := gated()) as on:
        old = await on.installed("1.0.0")
        async with load.on(fixture.address) as seen:
            await on.call("prepare", on.change(on.launch("1.1.0"), old))
            await seen.until_served("1.0.0", 50)
    assert (seen.by_version["1.1.0"], seen.failures) == (0, [])


async def test_a_release_that_was_tampered_with_is_not_started_and_that_is_not_the_versions_fault() -> None:
    async with stage.on(fixtures, gated()) as on:
        change = on.change(launch := on.launch("1.0.0"), None)
        (launch.release_dir / "app.py").write_text("print('evil')")
        with pytest.raises(drivers.DriverError, match="cannot") as caught:
            await on.call("prepare", change)
    assert (caught.value.fault, caught.value.reason) == (model.Fault.INFRASTRUCTURE, "start_failed")


async def test_observe_tells_what_a_service_has_served() -> None:
    async with stage.on(fixtures, fixture := gated()) as on:
        change = on.change(on.launch("1.0.0"), None)
        await on.switch(change)
        async with load.on(fixture.address) as seen:
            await seen.until_served("1.0.0", 20)
        observed = (await on.driver.observe(change)).instance
    assert observed is not None
    assert (observed.state, observed.served >= 20) == (model.InstanceState.ACTIVE, True)


@pytest.mark.parametrize("behaviour", [Behaviour.CRASHES_AT_START, Behaviour.NEVER_READY])
async def test_a_version_that_fails_its_rehearsal_never_sees_a_request(behaviour: Behaviour) -> None:
    async with stage.on(fixtures, fixture := plain()) as on:
        old = await on.installed("1.0.0")
        async with load.on(fixture.address) as seen:
            launch = on.launch("1.1.0", behaviour)
            brisk = replace(launch, manifest=replace(launch.manifest, prepare_timeout=timedelta(seconds=2)))
            change = on.change(brisk, old)
            with pytest.raises(drivers.DriverError, match="cannot") as caught:
                await on.call("prepare", change)
            await on.call("abort", change)
            await seen.until_served("1.0.0", 20)
    assert (caught.value.fault, seen.by_version["1.1.0"], seen.failures) == (model.Fault.VERSION, 0, [])


async def test_a_rehearsal_leaves_no_process_and_no_socket() -> None:
    async with stage.on(fixtures, plain()) as on:
        change = on.change(launch := on.launch("1.0.0"), None)
        evidence = await on.call("prepare", change)
        left = await on.driver.inspect(change.component)
        assert (float(evidence["rehearsal_seconds"]) > 0, left) == (True, ())
        with pytest.raises(processes.KeeperError, match="cannot find socket"):
            await on.keeper.start(_on_private_socket(change, launch))


def _on_private_socket(change: drivers.Change, launch: drivers.Launch) -> processes.InstanceSpec:
    return replace(instances.specification(change.component, launch, handover.PLAIN), sockets=["web.http~trial"])


async def test_the_real_instance_must_live_for_as_long_as_its_rehearsal_took() -> None:
    """It gets ready after a second in the rehearsal, and dies within that second on the shared socket."""
    slow = (
        "import os, time\ntime.sleep(1)\nif 'trial' not in os.environ['INSTAR_INSTANCE_ID']:\n    raise SystemExit(4)\n"
    )
    async with stage.on(fixtures, plain()) as on:
        old = await on.installed("1.0.0")
        launch = on.launch("1.1.0")
        bad = conformance.Bundle(launch.manifest, {"app.py": (slow + sources.LISTEN_FDS_SERVICE).encode()})
        release = stage.unpack(bad, launch.release_dir.parent)
        change = on.change(replace(launch, release_dir=release, digest=f"sha256:{release.name}"), old)
        await on.call("prepare", change)
        with pytest.raises(drivers.DriverError, match="cannot") as caught:
            await on.call("activate", change)
        await on.call("abort", change)
        await on.serves("1.0.0")
    assert (caught.value.fault, caught.value.reason) == (model.Fault.VERSION, "crashed_at_start")


async def test_requests_wait_while_one_at_a_time_is_restarted() -> None:
    async with stage.on(fixtures, fixture := fixtures.web("r", model.Method.RESTART, sources.SDK_SERVICE)) as on:
        old = await on.installed("1.0.0")
        change = on.change(on.launch("1.1.0"), old)
        waiting = asyncio.Event()

        async def migrate() -> drivers.Evidence:
            waiting.set()
            await asyncio.sleep(0.2)  # the time that a migration takes
            return {}

        async def ask() -> str:
            await waiting.wait()
            return await programs.answer(fixture.address, within_seconds=20)

        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask()) for _ in range(20)]
            await on.switch(replace(change, before_new=migrate))
        assert {each.result() for each in asked} == {"1.1.0"}


async def test_an_abort_ends_a_rehearsal_that_was_left_in_the_middle() -> None:
    async with stage.on(fixtures, plain()) as on:
        change = on.change(launch := on.launch("1.0.0", Behaviour.NEVER_READY), None)

        async def rehearse() -> None:
            with pytest.raises(drivers.DriverError):
                await on.driver.prepare(change)

        async def is_rehearsing() -> bool:
            return bool(await on.look("web"))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(rehearse())
            assert await stage.until(is_rehearsing)
            await on.keeper.close()  # as an agent that is killed does
        on.connected.append(await stage.connect(on.root))
        assert [each.id for each in await on.look("web")] == [f"{launch.instance_id}.trial"]
        await on.call("abort", change)
        assert await on.look("web") == ()
        with pytest.raises(processes.KeeperError, match="cannot find socket"):
            await on.keeper.start(_on_private_socket(change, launch))
