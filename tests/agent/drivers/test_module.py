"""Modules swapped in a real host process, by way of a real keeper, while requests and threads call them."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import drivers, processes
from agent.core import model
from agent.drivers import handover, module, module_list
from tests.agent.drivers import module_bundles, releases
from tests.agent.keeper import load, node

HOST = "web"
COMPONENT = "billing.rules"


class Bench:
    """A keeper, a host under load, and the driver."""

    def __init__(self, a_node: node.Node, keeper: processes.Keeper) -> None:
        self.node = a_node
        self.keeper = keeper
        self.rooms = drivers.Rooms(keeper=keeper, run_dir=a_node.run, state_dir=a_node.state)
        self.lists = module_list.ModuleLists(a_node.state)

    @property
    def driver(self) -> drivers.Driver:
        """One that knows nothing."""
        return module.make(self.rooms)

    async def start_host(self) -> None:
        hosts = handover.make(self.rooms)
        await hosts.bring_up(HOST, self.host_launch())

    def host_launch(self) -> drivers.Launch:
        files = {"app.py": module_bundles.HOST.read_text()}
        manifest = replace(
            module_bundles.MANIFEST,
            name=HOST,
            driver="handover",
            options=model.HandoverOptions(),
            sockets=(model.Socket("http", 128),),
        )
        return self._launch(manifest, files, "1.0.0", {"http": "{}:{}".format(*self.node.address)})

    def launch(self, version: str, text: str | None = None, **more: Any) -> drivers.Launch:  # noqa: ANN401  # of the template
        files = {"rules.py": text or module_bundles.rules(version, **more)}
        return self._launch(module_bundles.MANIFEST, files, version, {})

    def change(self, new: drivers.Launch | None, old: drivers.Launch | None = None) -> drivers.Change:
        minute = timedelta(minutes=1)
        named = new or old
        operation_id = f"op-{named.instance_id if named else ''}"
        return drivers.Change(operation_id, COMPONENT, model.Method.HOT_SWAP, new, old, minute)

    async def switched(self, change: drivers.Change) -> None:
        for verb in ("plan", "stage", "prepare", "activate", "pause_old"):
            await getattr(self.driver, verb)(change)

    async def installed(self, version: str, **more: Any) -> drivers.Launch:  # noqa: ANN401  # of the template
        launch = self.launch(version, **more)
        await self.switched(change := self.change(launch))
        assert (await self.driver.commit(change)).outcome is drivers.Outcome.COMMITTED
        await self.driver.drain(change)
        return launch

    async def states(self) -> dict[str, tuple[model.InstanceState, bool]]:
        return {each.id: (each.state, each.is_kept) for each in await self.driver.inspect(COMPONENT)}

    async def host_pid(self) -> int:
        [pid] = [each.pid for each in (await self.keeper.inspect()).instances if each.component == HOST]
        return pid

    async def host_again(self) -> None:
        """Kill the host, and wait until the keeper has started it again and it serves."""
        pid = await self.host_pid()
        node.kill(pid)

        async def is_back() -> bool:
            [seen] = [each for each in (await self.keeper.inspect()).instances if each.component == HOST]
            return seen.pid != pid and seen.state is processes.InstanceState.ACTIVE

        await node.until(is_back)

    def _launch(
        self, manifest: model.Manifest, files: dict[str, str], version: str, addresses: dict[str, str]
    ) -> drivers.Launch:
        release, found = releases.lay_out(self.node.state, files)
        named = replace(manifest, version=version)
        return drivers.Launch(f"{manifest.name[:10]}-{release.name[:6]}-1", found, release, named, addresses)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    root = Path(tempfile.mkdtemp(prefix="im-"))  # tmp_path is too long for socket paths
    try:
        async with node.running(root) as a_node:
            keeper = await a_node.client()
            await keeper.attach()
            made = Bench(a_node, keeper)
            await made.start_host()
            yield made
            await keeper.close()
    finally:
        shutil.rmtree(root)


async def test_every_verb_repeated_is_success_and_no_call_fails_or_is_mixed(bench: Bench) -> None:
    old = await bench.installed("1.0.0")
    pid = await bench.host_pid()
    change = bench.change(new := bench.launch("1.1.0"), old)
    async with load.on(bench.node.address) as seen:
        await seen.until_served("1.0.0", 20)
        for verb in ("plan", "stage", "prepare", "activate", "pause_old"):
            for _ in range(2):
                await getattr(bench.driver, verb)(change)
        assert await bench.driver.pause_old(change) == {"paused": old.instance_id}
        await seen.until_served("1.1.0", 20)
        assert await bench.states() == {
            new.instance_id: (model.InstanceState.ACTIVE, False),
            old.instance_id: (model.InstanceState.PAUSED, True),
        }
        for _ in range(2):
            assert (await bench.driver.commit(change)).outcome is drivers.Outcome.COMMITTED
        for _ in range(2):
            await bench.driver.drain(change)
        await seen.until_served("1.1.0", 20)
    assert seen.failures == []
    assert set(seen.by_version) == {"1.0.0", "1.1.0"}
    assert await bench.states() == {new.instance_id: (model.InstanceState.ACTIVE, True)}
    [only] = await bench.driver.inspect(COMPONENT)
    assert (only.pid, only.served > 0) == (pid, True)
    assert (await module_bundles.ask(bench.node.address))[2] == "0"


async def test_an_abort_brings_the_old_version_back_with_the_state_of_now(bench: Bench) -> None:
    old = await bench.installed("1.0.0", state={"totals": {"ann": 7}})
    change = bench.change(bench.launch("2.0.0", change="{'totals': {**state['totals'], 'ann': 8}}"), old)
    await bench.switched(change)
    assert (await module_bundles.ask(bench.node.address))[:2] == ["2.0.0", "8"]
    for _ in range(2):
        assert (await bench.driver.abort(change))["resumed"] == old.instance_id
    assert (await module_bundles.ask(bench.node.address))[:2] == ["1.0.0", "8"]
    assert await bench.states() == {old.instance_id: (model.InstanceState.ACTIVE, True)}
    assert (await bench.driver.commit(change)).outcome is drivers.Outcome.ROLLED_BACK


async def test_an_installation_that_is_aborted_leaves_nothing(bench: Bench) -> None:
    change = bench.change(bench.launch("1.0.0"))
    await bench.switched(change)
    for _ in range(2):
        await bench.driver.abort(change)
    assert (await bench.states(), bench.lists.hosts(COMPONENT)) == ({}, ())
    assert (await module_bundles.ask(bench.node.address)) == ["missing"]


@pytest.mark.parametrize(
    ("more", "reason", "fault"),
    [
        ({"more": "raise RuntimeError"}, "module_broken", model.Fault.VERSION),
        ({"more": "def self_test():\n    return False"}, "self_test_failed", model.Fault.VERSION),
        ({"change": "1 / 0"}, "code_change_failed", model.Fault.VERSION),
        ({"change": "__import__('time').sleep(9)"}, "code_change_timed_out", model.Fault.VERSION),
        ({"known": ">=1.0.5", "schema": {"totals": {"*": "float"}}}, "state_unknown", model.Fault.COMMAND),
    ],
)
async def test_a_version_that_cannot_take_over_changes_nothing(
    bench: Bench, more: dict[str, Any], reason: str, fault: model.Fault
) -> None:
    old = await bench.installed("1.0.0")
    change = bench.change(bench.launch("2.0.0", **more), old)
    with pytest.raises(drivers.DriverError, match=r"^cannot") as caught:
        await bench.switched(change)
    assert (caught.value.reason, caught.value.fault) == (reason, fault)
    await bench.driver.abort(change)
    assert (await module_bundles.ask(bench.node.address))[0] == "1.0.0"
    assert await bench.states() == {old.instance_id: (model.InstanceState.ACTIVE, True)}


async def test_a_host_that_dies_before_commit_comes_back_with_the_old_version_and_after_it_with_the_new(
    bench: Bench,
) -> None:
    old = await bench.installed("1.0.0")
    change = bench.change(new := bench.launch("1.1.0"), old)
    await bench.switched(change)
    await bench.host_again()
    observed = await bench.driver.observe(change)
    assert (observed.instance, "started anew" in observed.message) == (None, True)
    assert (await module_bundles.ask(bench.node.address))[0] == "1.0.0"
    verdict = await bench.driver.commit(change)
    assert (verdict.outcome, verdict.fault) == (drivers.Outcome.ROLLED_BACK, model.Fault.INFRASTRUCTURE)
    await bench.driver.abort(change)
    await bench.switched(change)
    assert (await bench.driver.observe(change)).instance is not None
    assert (await bench.driver.commit(change)).outcome is drivers.Outcome.COMMITTED
    await bench.host_again()
    assert (await module_bundles.ask(bench.node.address))[0] == "1.1.0"
    assert (await bench.driver.commit(change)).outcome is drivers.Outcome.COMMITTED
    assert await bench.states() == {new.instance_id: (model.InstanceState.ACTIVE, True)}


async def test_bring_up_makes_the_release_serve_and_leaves_what_serves_alone(bench: Bench) -> None:
    old = await bench.installed("1.0.0")
    await bench.switched(bench.change(bench.launch("1.1.0"), old))
    for _ in range(2):  # the first finds a change that nobody decided
        told = await bench.driver.bring_up(COMPONENT, replace(old, instance_id="another"))
        assert told["instance"] == old.instance_id
    assert await bench.states() == {old.instance_id: (model.InstanceState.ACTIVE, True)}
    fresh = bench.launch("1.2.0")
    await bench.driver.bring_up(COMPONENT, fresh)
    assert await bench.states() == {fresh.instance_id: (model.InstanceState.ACTIVE, True)}


async def test_a_component_can_be_brought_up_before_its_host_runs(bench: Bench) -> None:
    [seen] = (await bench.keeper.inspect()).instances
    await bench.keeper.stop(seen.id, timedelta(seconds=5))
    launch = bench.launch("1.0.0")
    with pytest.raises(drivers.DriverError, match=r"^cannot change") as caught:
        await bench.driver.plan(bench.change(launch))
    assert (caught.value.reason, caught.value.fault) == ("host_missing", model.Fault.INFRASTRUCTURE)
    assert await bench.driver.bring_up(COMPONENT, launch) == {"host": "not running"}
    await bench.start_host()
    assert await bench.states() == {launch.instance_id: (model.InstanceState.ACTIVE, True)}


async def test_gc_of_everything_lets_the_component_leave_its_host(bench: Bench) -> None:
    launch = await bench.installed("1.0.0")
    assert (await bench.driver.gc(COMPONENT, {launch.instance_id})) == {}
    for _ in range(2):
        await bench.driver.gc(COMPONENT, ())
    assert (await bench.states(), await module_bundles.ask(bench.node.address)) == ({}, ["missing"])
    await bench.host_again()
    assert await module_bundles.ask(bench.node.address) == ["missing"]


@pytest.mark.parametrize("what", ["method", "host", "options", "file", "digest"])
async def test_what_cannot_be_done_is_refused_before_anything_happens(bench: Bench, what: str) -> None:
    old, launch = await bench.installed("1.0.0"), bench.launch("1.1.0")
    options = launch.manifest.options
    assert isinstance(options, model.ModuleOptions)
    if what == "digest":
        (launch.release_dir / "rules.py").write_text("evil = True")
    other: dict[str, model.Options] = {
        "host": replace(options, host="other"),
        "options": model.HandoverOptions(),
        "file": replace(options, file="../rules.py"),
    }
    new = replace(launch, manifest=replace(launch.manifest, options=other.get(what, options)))
    change = bench.change(new, old)
    change = replace(change, method=model.Method.RESTART) if what == "method" else change
    reasons = {
        "method": "method_not_supported",
        "host": "host_differs",
        "options": "options_missing",
        "file": "module_file_missing",
        "digest": "release_damaged",
    }
    with pytest.raises(drivers.DriverError, match=r"^cannot") as caught:
        await bench.switched(change)
    assert caught.value.reason == reasons[what]
    assert (await module_bundles.ask(bench.node.address))[0] == "1.0.0"


async def test_a_host_without_cells_is_told_apart(bench: Bench) -> None:
    [seen] = (await bench.keeper.inspect()).instances
    await bench.keeper.stop(seen.id, timedelta(seconds=5))
    spec = bench.node.release("1.0.0")
    await bench.keeper.start(spec)
    await node.reaches(bench.keeper, spec.id, processes.InstanceState.PREPARED)
    await bench.keeper.keep(HOST, spec.id)
    with pytest.raises(drivers.DriverError, match=r"^cannot change a module in web") as caught:
        await bench.driver.plan(bench.change(bench.launch("1.0.0")))
    assert (caught.value.reason, caught.value.fault) == ("host_without_modules", model.Fault.COMMAND)
