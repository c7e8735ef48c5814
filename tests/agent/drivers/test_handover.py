"""The gated hand-off over a real keeper and real processes: each verb, twice, and in the wrong moment."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent import drivers, processes
from agent.core import model
from agent.drivers import handover
from tests.agent import live_node
from tests.agent.keeper import load, node

PROBE = model.Probe(model.HttpCheck("/healthz"), timedelta(seconds=0.1), timedelta(seconds=1), 2)
MANIFEST = model.Manifest(
    name="web",
    version="1.0.0",
    driver="handover",
    command=("python", "app.py"),
    environment={},
    sockets=(model.Socket("http", 128),),
    readiness=PROBE,
    health=None,
    metrics=None,
    prepare_timeout=timedelta(seconds=10),
    drain_timeout=timedelta(seconds=5),
    stop_timeout=timedelta(seconds=5),
)


class Bench:
    """A keeper, the driver over it, and changes for it."""

    def __init__(self, a_node: node.Node, keeper: processes.Keeper) -> None:
        self.node = a_node
        self.keeper = keeper
        self.driver = handover.Handover(keeper, a_node.run)

    def change(
        self, version: str, *, old: bool = False, source: str | None = None, manifest: model.Manifest = MANIFEST
    ) -> drivers.Change:
        spec = self.node.release(version, source=source or live_node.SERVICE.decode())
        launch = drivers.Launch(
            instance_id=f"web-{version}",
            digest=spec.digest,
            release_dir=spec.release_dir,
            manifest=replace(manifest, version=version),
            addresses={"http": "{}:{}".format(*self.node.address)},
        )
        return drivers.Change(f"op-{version}", "web", launch, MANIFEST if old else None, timedelta(minutes=1))

    async def switched(self, change: drivers.Change) -> None:
        await self.driver.prepare(change)
        await self.driver.activate(change)
        await self.driver.pause_old(change)

    async def installed(self, version: str) -> drivers.Change:
        change = self.change(version)
        await self.switched(change)
        await self.driver.commit(change)
        return change

    async def states(self) -> dict[str, model.InstanceState]:
        return {each.id: each.state for each in await self.driver.inspect("web")}


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    root = Path(tempfile.mkdtemp(prefix="ih-"))  # tmp_path is too long for socket paths
    try:
        async with node.running(root) as a_node:
            keeper = await a_node.client()
            await keeper.attach()
            yield Bench(a_node, keeper)
            await keeper.close()
    finally:
        shutil.rmtree(root)


async def test_every_verb_repeated_is_success_and_no_request_fails(bench: Bench) -> None:
    await bench.installed("1.0.0")
    change = bench.change("1.1.0", old=True)
    async with load.on(bench.node.address) as seen:
        await seen.until_served("1.0.0", 20)
        for verb in (bench.driver.plan, bench.driver.stage, bench.driver.prepare, bench.driver.activate):
            assert await verb(change) == await verb(change)
        for verb in (bench.driver.pause_old, bench.driver.pause_old):
            assert (await verb(change))["paused"] == "web-1.0.0"
        await seen.until_served("1.1.0", 20)
        for _ in range(2):
            assert (await bench.driver.commit(change)).outcome is drivers.Outcome.COMMITTED
        for _ in range(2):
            await bench.driver.drain(change)
        await seen.until_served("1.1.0", 20)
    assert seen.failures == []
    assert await bench.states() == {"web-1.1.0": model.InstanceState.ACTIVE}


async def test_an_abort_resumes_the_old_instance_ends_the_new_one_and_can_be_repeated(bench: Bench) -> None:
    await bench.installed("1.0.0")
    change = bench.change("1.1.0", old=True)
    async with load.on(bench.node.address) as seen:
        await bench.switched(change)
        await seen.until_served("1.1.0", 20)
        for _ in range(2):
            assert (await bench.driver.abort(change))["resumed"] == "web-1.0.0"
        await seen.until_served("1.0.0", 20)
    assert seen.failures == []
    assert await bench.states() == {"web-1.0.0": model.InstanceState.ACTIVE}
    verdict = await bench.driver.commit(change)
    assert verdict.outcome is drivers.Outcome.ROLLED_BACK


async def test_a_prepared_instance_does_not_accept(bench: Bench) -> None:
    await bench.installed("1.0.0")
    async with load.on(bench.node.address) as seen:
        await bench.driver.prepare(bench.change("1.1.0", old=True))
        await seen.until_served("1.0.0", 50)
    assert seen.by_version["1.1.0"] == 0


@pytest.mark.parametrize(
    ("source", "readiness", "reason"),
    [
        ("raise SystemExit(3)", PROBE, "crashed_at_start"),
        ("import time; time.sleep(60)", PROBE, "never_prepared"),
        (None, replace(PROBE, check=model.TcpCheck()), ""),
        (live_node.SERVICE.decode().replace('"200 OK" if is_well', '"503 Unwell" if is_well'), PROBE, "never_prepared"),
    ],
)
async def test_prepare_ends_only_when_the_instance_is_prepared_and_ready(
    bench: Bench, source: str | None, readiness: model.Probe, reason: str
) -> None:
    manifest = replace(MANIFEST, readiness=readiness, prepare_timeout=timedelta(seconds=1.5 if reason else 10))
    change = bench.change("1.0.0", source=source, manifest=manifest)
    if not reason:
        assert "pid" in await bench.driver.prepare(change)
        return
    with pytest.raises(drivers.DriverError, match="cannot") as caught:
        await bench.driver.prepare(change)
    assert (caught.value.fault, caught.value.reason) == (model.Fault.VERSION, reason)
    await bench.driver.abort(change)
    assert await bench.states() == {}


async def test_a_release_that_was_tampered_with_is_not_started_and_that_is_not_the_versions_fault(
    bench: Bench,
) -> None:
    change = bench.change("1.0.0")
    assert change.new is not None
    (change.new.release_dir / "app.py").write_text("print('evil')")
    with pytest.raises(drivers.DriverError, match="cannot") as caught:
        await bench.driver.prepare(change)
    assert (caught.value.fault, caught.value.reason) == (model.Fault.INFRASTRUCTURE, "start_failed")


async def test_a_socket_without_an_address_is_the_commands_fault(bench: Bench) -> None:
    change = bench.change("1.0.0")
    assert change.new is not None
    with pytest.raises(drivers.DriverError, match=r"sockets\.web\.http") as caught:
        await bench.driver.plan(replace(change, new=replace(change.new, addresses={})))
    assert caught.value.fault is model.Fault.COMMAND


async def test_observe_tells_what_serves_and_what_died(bench: Bench) -> None:
    change = await bench.installed("1.0.0")
    async with load.on(bench.node.address) as seen:
        await seen.until_served("1.0.0", 20)
    observed = await bench.driver.observe(change)
    assert observed.instance is not None
    assert (observed.instance.state, observed.instance.served >= 20) == (model.InstanceState.ACTIVE, True)
    fresh = bench.change("1.1.0", old=True)
    await bench.driver.prepare(fresh)
    [pid] = [each.pid for each in await bench.driver.inspect("web") if each.id == "web-1.1.0"]
    node.kill(pid)
    await node.is_gone(bench.keeper, "web-1.1.0")
    gone = await bench.driver.observe(fresh)
    assert (gone.instance, "signal 9" in gone.message) == (None, True)


async def test_what_will_not_drain_in_time_is_named_and_ended_by_force(bench: Bench) -> None:
    stuck = live_node.SERVICE.decode().replace("WORK_SECONDS = 0.003", "WORK_SECONDS = 60")
    old = bench.change("1.0.0", source=stuck)
    await bench.switched(old)
    await bench.driver.commit(old)
    async with load.on(bench.node.address):  # requests that will not be answered
        await bench.switched(change := bench.change("1.1.0", old=True))
        await bench.driver.commit(change)
        brisk = replace(change, old=replace(MANIFEST, drain_timeout=timedelta(seconds=0.3)))
        drained = await bench.driver.drain(brisk)
    assert drained["web-1.0.0"].startswith("forced: web-1.0.0 has ")
    assert await bench.states() == {"web-1.1.0": model.InstanceState.ACTIVE}
