"""nginx and gunicorn themselves, as the process table shows them; `python -m tests.drivers` puts load on them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent import drivers
from agent.core import model
from agent.drivers import conformance, process_table, reload
from agent.drivers.conformance import stage
from tests.drivers import load as under_load
from tests.drivers import reload as fixtures

NGINX = reload.PROGRAMS[model.ReloadProgram.NGINX]


async def the_master(on: stage.Stage, version: str) -> tuple[int, tuple[process_table.Process, ...]]:
    """The master of a version and its workers that accept."""
    digest = on.launch(version).digest
    [seen] = [each for each in await on.driver.inspect("web") if each.digest == digest and each.pid]
    return seen.pid, reload.accepting(NGINX, seen.pid)


async def test_a_new_nginx_master_that_fails_leaves_the_old_one_and_its_workers_alone(tmp_path: Path) -> None:
    async with stage.on(fixtures, fixtures.nginx(tmp_path)) as on:
        old = await on.installed("1.0.0")
        before = await the_master(on, "1.0.0")
        change = on.change(on.launch("1.1.0", conformance.Behaviour.CRASHES_AT_START), old)
        await on.call("prepare", change)
        with pytest.raises(drivers.DriverError, match="ended with exit code 1") as caught:
            await on.call("activate", change)
        await on.call("abort", change)
        assert await the_master(on, "1.0.0") == before
        await on.serves("1.0.0")
    assert (caught.value.fault, len(before[1])) == (model.Fault.VERSION, 2)


async def test_a_new_nginx_master_that_has_failed_before_it_could_be_marked_is_told_by_its_end(tmp_path: Path) -> None:
    async with stage.on(fixtures, fixtures.nginx(tmp_path)) as on:
        old, new = await on.installed("1.0.0"), on.launch("1.1.0", conformance.Behaviour.CRASHES_AT_START)
        change, driver = on.change(new, old), on.driver
        await on.call("prepare", change)
        assert isinstance(driver, reload.Reload)
        way = driver._way(new.manifest, change.method)
        assert isinstance(way, reload.Masters)
        await way._on.start(change, way._style)

        async def has_ended() -> bool:
            seen = await way._on.find(new.instance_id)
            return seen is not None and seen.exit_code == 1

        assert await stage.until(has_ended)
        with pytest.raises(drivers.DriverError, match="ended with exit code 1") as caught:
            await way._on.mark(change, None)
        assert (caught.value.fault, caught.value.reason) == (model.Fault.VERSION, "crashed_at_start")


async def test_a_paused_nginx_master_has_no_workers_and_gets_new_ones_when_it_is_resumed(tmp_path: Path) -> None:
    async with stage.on(fixtures, fixtures.nginx(tmp_path)) as on:
        old = await on.installed("1.0.0")
        pid, workers = await the_master(on, "1.0.0")
        change = on.change(on.launch("1.1.0"), old)
        await on.switch(change)
        assert await the_master(on, "1.0.0") == (pid, ())
        await on.serves("1.1.0")
        await on.call("resume_old", change)
        same_pid, again = await the_master(on, "1.0.0")
        assert (same_pid, len(again), set(again) & set(workers)) == (pid, 2, set())
        await on.serves("1.0.0", "1.1.0")


async def test_a_signal_that_changes_nothing_proves_nothing(tmp_path: Path) -> None:
    """A stopped worker of nginx does not leave, however often its master is told to pause."""
    async with stage.on(fixtures, fixtures.nginx(tmp_path)) as on:
        old = await on.installed("1.0.0")
        _, workers = await the_master(on, "1.0.0")
        change = on.change(on.launch("1.1.0"), old)
        for verb in ("prepare", "activate"):
            await on.call(verb, change)
        os.kill(workers[0].pid, signal.SIGSTOP)
        try:
            with pytest.raises(drivers.DriverError, match="still accept") as caught:
                await on.call("pause_old", change)
        finally:
            os.kill(workers[0].pid, signal.SIGCONT)
        await on.call("abort", change)
        await on.serves("1.0.0")
    assert (caught.value.fault, caught.value.reason) == (model.Fault.INFRASTRUCTURE, "not_proved")


@pytest.mark.parametrize("name", ["nginx", "gunicorn"])
async def test_a_swap_and_an_abort_under_load_lose_no_request(name: str, tmp_path: Path) -> None:
    fixture = fixtures.nginx(tmp_path) if name == "nginx" else fixtures.gunicorn()
    total, failures = await under_load.swapped(fixtures, fixture)
    assert (total > under_load.REQUESTS, failures) == (True, [])


async def test_the_variables_of_a_new_gunicorn_are_those_of_its_own_release() -> None:
    async with stage.on(fixtures, fixtures.gunicorn()) as on:
        old = await on.installed("1.0.0")
        change = on.change(new := on.launch("1.1.0"), old)
        await on.switch(change)
        [seen] = [each for each in await on.driver.inspect("web") if each.digest == new.digest]
        workers = reload.accepting(reload.PROGRAMS[model.ReloadProgram.GUNICORN], seen.pid)
        assert [has_variable(each.pid, b"INSTAR_VERSION=1.1.0") for each in workers] == [True, True]


def test_the_process_table_knows_parents_and_forgets_the_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        [found] = [each for each in process_table.children(os.getpid()) if each.pid == child.pid]
        assert (found.parent_pid, found.start_ticks > 0, "time.sleep" in found.command) == (os.getpid(), True, True)
    finally:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has buried it
        assert process_table.read(child.pid) is None
        child.wait()
    assert child.pid not in {each.pid for each in process_table.children(os.getpid())}


def has_variable(pid: int, variable: bytes) -> bool:
    return variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
