"""Sockets that the keeper holds are open for as long as the component shall run, and no longer."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent import drivers
from agent.drivers import conformance, instances
from agent.drivers import held as held_driver
from agent.drivers.conformance import stage
from tests.drivers import handover, held, programs, reload

Fixtures = tuple[conformance.FixtureModule, programs.Web]


def a_held(tmp_path: Path) -> Fixtures:
    [found] = held.conformance_fixtures(tmp_path)
    assert isinstance(found, programs.Web)
    return held, found


def a_handover(tmp_path: Path) -> Fixtures:
    found = handover.conformance_fixtures(tmp_path)[0]
    assert isinstance(found, programs.Web)
    return handover, found


def a_reload(_tmp_path: Path) -> Fixtures:
    return reload, reload.gunicorn()


KINDS = pytest.mark.parametrize("kind", [a_held, a_handover, a_reload])
Kind = Callable[[Path], Fixtures]


async def is_refused(address: tuple[str, int]) -> bool:
    try:
        _, writer = await asyncio.open_connection(*address)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@KINDS
async def test_a_component_that_stops_refuses_who_connects_until_it_is_started(tmp_path: Path, kind: Kind) -> None:
    module, fixture = kind(tmp_path)
    async with stage.on(module, fixture) as on:
        launch = await on.installed("1.0.0")
        for _ in range(2):
            await on.driver.gc("web", ())
            assert await is_refused(fixture.address)
        await on.driver.bring_up("web", replace(launch, instance_id="web-again"))
        await on.serves("1.0.0")
        await on.call("drain", on.change(None, launch))
        assert await is_refused(fixture.address)


@KINDS
async def test_an_aborted_installation_leaves_no_socket_and_can_be_tried_again(tmp_path: Path, kind: Kind) -> None:
    module, fixture = kind(tmp_path)
    async with stage.on(module, fixture) as on:
        change = on.change(on.launch("1.0.0"), None)
        await on.switch(change)
        for _ in range(2):
            await on.call("abort", change)
            assert await is_refused(fixture.address)
        await on.installed("1.0.0")


async def test_sockets_stay_open_for_an_instance_that_is_to_come_and_after_an_abort_that_goes_back(
    tmp_path: Path,
) -> None:
    module, fixture = a_held(tmp_path)
    async with stage.on(module, fixture) as on:
        old = await on.installed("1.0.0")
        change = on.change(on.launch("1.1.0"), old)
        await on.switch(change)
        await on.call("abort", change)
        await on.serves("1.0.0")
        await on.driver.gc("web", {"web-to-come"})
        assert await on.look("web") == ()
        assert not await is_refused(fixture.address)


async def test_a_socket_that_the_new_version_does_not_have_is_closed_once_the_old_one_has_drained(
    tmp_path: Path,
) -> None:
    module, fixture = a_held(tmp_path)
    admin = ("127.0.0.1", programs.free_port())
    async with stage.on(module, fixture) as on:
        old = on.launch("1.0.0")
        sockets = (*old.manifest.sockets, replace(old.manifest.sockets[0], name="admin"))
        addresses = {**old.addresses, "admin": f"{admin[0]}:{admin[1]}"}
        old = replace(old, manifest=replace(old.manifest, sockets=sockets), addresses=addresses)
        first = on.change(old, None)
        await on.switch(first)
        await on.committed(first)
        await on.call("drain", first)
        assert not await is_refused(admin)
        change = on.change(on.launch("1.1.0"), old)
        await on.switch(change)
        await on.committed(change)
        assert not await is_refused(admin)
        assert (await on.call("drain", change))["closed"] == "web.admin"
        assert await is_refused(admin)
        await on.serves("1.1.0")


async def test_the_sockets_of_a_component_with_a_longer_name_are_left_alone(tmp_path: Path) -> None:
    module, fixture = a_held(tmp_path)
    async with stage.on(module, fixture) as on:
        launch = await on.installed("1.0.0")
        await on.keeper.listen("web.a.http", "127.0.0.1:0")
        other = replace(launch, instance_id="other", addresses={})
        await on.keeper.start(instances.specification("web.a", other, held_driver.STYLE))
        evidence: drivers.Evidence = await on.driver.gc("web", ())
        assert evidence["closed"] == "web.http"
        assert (await on.keeper.inspect()).listeners == ("web.a.http",)
