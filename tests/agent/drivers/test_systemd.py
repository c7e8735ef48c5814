"""Instances as units of a real systemd, the first process of namespaces of its own; without root these are skipped."""

import json
import pwd
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent import drivers, processes
from agent.core import model
from agent.drivers import systemd
from agent.drivers.systemd import systemctl
from tests.agent.drivers import releases
from tests.agent.keeper import load, node
from tests.drivers import programs, sources, systemd_container

WHY_NOT = systemd_container.missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
COMPONENT = "web"
NOTIFYING = """
import json, os, socket, sys, time
with open(os.environ["TOLD"], "w") as file:
    json.dump({"argv": sys.argv[1:], "environment": dict(os.environ)}, file)
if "--silent" not in sys.argv:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        caller.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(60)
"""


class Bench:
    """A systemd, a keeper for commands, and the driver."""

    def __init__(self, a_node: node.Node, keeper: processes.Keeper, edge: systemctl.Systemctl) -> None:
        self.node = a_node
        self.edge = edge
        self.rooms = drivers.Rooms(keeper=keeper, run_dir=a_node.run, state_dir=a_node.state)
        self.address = ("127.0.0.1", programs.free_port())

    @property
    def driver(self) -> drivers.Driver:
        """One that knows nothing."""
        return systemd.Systemd(self.rooms, self.edge)

    def launch(self, version: str, behaviour: str = "good") -> drivers.Launch:
        manifest = programs.manifest(version, systemd.NAME, ("python", "app.py"), model.SystemdOptions())
        manifest = replace(manifest, environment={"BEHAVIOUR": behaviour})
        return self.lay_out(manifest, {"app.py": sources.LISTEN_FDS_SERVICE})

    def of_system(self, version: str) -> drivers.Launch:
        """One that runs with the Python of the system, which every user may use."""
        manifest = programs.manifest(version, systemd.NAME, ("app.py",), model.SystemdOptions())
        manifest = replace(manifest, environment={"BEHAVIOUR": "good"})
        source = f"#!/usr/bin/python3\n{sources.LISTEN_FDS_SERVICE}"
        return self.lay_out(manifest, {"app.py": source}, mode=0o755)

    def notifying(self, *words: str, **variables: str) -> drivers.Launch:
        manifest = programs.manifest(
            "1.0.0", systemd.NAME, ("python", "app.py", *words), model.SystemdOptions(is_notifying=True)
        )
        told = {"TOLD": str(self.node.state / "told"), **variables}
        return self.lay_out(replace(manifest, sockets=(), readiness=None, environment=told), {"app.py": NOTIFYING})

    def lay_out(self, manifest: model.Manifest, files: dict[str, str], mode: int = 0o644) -> drivers.Launch:
        release, digest = releases.lay_out(self.node.state, {**files, "VERSION": manifest.version}, mode)
        addresses = {"http": "{}:{}".format(*self.address)}
        return drivers.Launch(f"web-{release.name[:6]}", digest, release, manifest, addresses)

    def change(
        self,
        new: drivers.Launch | None,
        old: drivers.Launch | None = None,
        method: model.Method = model.Method.HOT_SWAP,
    ) -> drivers.Change:
        operation_id = f"op-{new.instance_id if new else ''}"
        return drivers.Change(operation_id, COMPONENT, method, new, old, timedelta(minutes=1))

    async def switched(self, change: drivers.Change) -> None:
        for verb in ("plan", "stage", "prepare", "activate", "pause_old"):
            await getattr(self.driver, verb)(change)

    async def installed(self, launch: drivers.Launch) -> drivers.Launch:
        await self.switched(change := self.change(launch))
        assert (await self.driver.commit(change)).outcome is drivers.Outcome.COMMITTED
        await self.driver.drain(change)
        return launch

    async def seen(self) -> dict[str, model.Instance]:
        return {each.id: each for each in await self.driver.inspect(COMPONENT)}


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    root = Path(tempfile.mkdtemp(prefix="iy-"))  # tmp_path is too long for socket paths
    try:
        async with systemd_container.booted() as edge, node.running(root) as a_node:
            keeper = await a_node.client()
            await keeper.attach()
            yield Bench(a_node, keeper, edge)
            await keeper.close()
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("method", list(model.Method))
async def test_a_change_there_and_back_fails_no_request(bench: Bench, method: model.Method) -> None:
    old = await bench.installed(bench.launch("1.0.0"))
    new = bench.launch("1.1.0")
    async with load.on(bench.address) as seen:
        await seen.until_served("1.0.0", 20)
        await bench.switched(aborted := bench.change(new, old, method))
        await seen.until_served("1.1.0", 20)
        await bench.driver.abort(aborted)
        await seen.until_served("1.0.0", 20)
        await bench.switched(change := bench.change(new, old, method))
        assert (await bench.driver.commit(change)).outcome is drivers.Outcome.COMMITTED
        assert await bench.driver.drain(change) == {old.instance_id: "drained"}
        await seen.until_served("1.1.0", 20)
    assert seen.failures == []
    assert list(await bench.seen()) == [new.instance_id]


async def test_systemd_itself_goes_back_when_the_new_instance_fails_before_it_is_committed(bench: Bench) -> None:
    old = await bench.installed(bench.launch("1.0.0"))
    change = bench.change(new := bench.launch("1.1.0"), old)
    await bench.switched(change)
    node.kill((await bench.seen())[new.instance_id].pid)

    async def is_back() -> bool:
        return (await bench.seen())[old.instance_id].state is model.InstanceState.ACTIVE

    await node.until(is_back)
    assert await programs.answer(bench.address) == "1.0.0"
    observed = await bench.driver.observe(change)
    assert (observed.instance, "it ended with signal" in observed.message) == (None, True)
    verdict = await bench.driver.commit(change)
    assert (verdict.outcome, verdict.fault) == (drivers.Outcome.ROLLED_BACK, model.Fault.VERSION)


async def test_a_committed_instance_that_dies_is_started_again_and_one_that_is_not_kept_is_not(bench: Bench) -> None:
    launch = await bench.installed(bench.launch("1.0.0"))
    before = (await bench.seen())[launch.instance_id]
    node.kill(before.pid)

    async def is_again() -> bool:
        now = (await bench.seen())[launch.instance_id]
        return now.pid not in (0, before.pid) and now.restarts == 1

    await node.until(is_again)
    assert await programs.answer(bench.address) == "1.0.0"


@pytest.mark.parametrize("behaviour", ["crashes_at_start", "never_ready"])
async def test_a_bad_version_is_found_in_its_rehearsal_and_meets_no_request(bench: Bench, behaviour: str) -> None:
    old = await bench.installed(bench.launch("1.0.0"))
    launch = bench.launch("1.1.0", behaviour)
    launch = replace(launch, manifest=replace(launch.manifest, prepare_timeout=timedelta(seconds=2)))
    async with load.on(bench.address) as seen:
        with pytest.raises(drivers.DriverError, match=r"^cannot") as caught:
            await bench.driver.prepare(bench.change(launch, old))
        await seen.until_served("1.0.0", 20)
    reason = "never_ready" if behaviour == "never_ready" else "crashed_at_start"
    assert (caught.value.fault, caught.value.reason) == (model.Fault.VERSION, reason)
    assert (seen.failures, set(seen.by_version)) == ([], {"1.0.0"})
    assert [name for name in bench.edge.units("instar-") if "trial" in name] == [], "a rehearsal leaves nothing behind"


async def test_words_and_variables_reach_the_program_as_they_stand(bench: Bench) -> None:
    odd = ['a "quoted" word', "50%", "$HOME ${HOME}", "back\\slash", "two\nlines", "'single'", "; semicolon", ""]
    launch = bench.notifying(*odd, ODD="\n".join(odd))
    await bench.installed(replace(launch, traceparent="00-1", state_dir=bench.node.state / "data"))
    told = json.loads((bench.node.state / "told").read_text())
    assert told["argv"] == odd
    assert told["environment"]["ODD"] == "\n".join(odd)
    assert told["environment"]["TRACEPARENT"] == "00-1"
    assert told["environment"]["STATE_DIRECTORY"] == str(bench.node.state / "data")


async def test_a_program_that_never_says_that_it_is_ready_is_blamed(bench: Bench) -> None:
    launch = bench.notifying("--silent")
    launch = replace(launch, manifest=replace(launch.manifest, prepare_timeout=timedelta(seconds=1)))
    change = bench.change(launch)
    await bench.driver.prepare(change)
    with pytest.raises(drivers.DriverError, match=r"^cannot start .*timeout") as caught:
        await bench.driver.activate(change)
    assert caught.value.fault is model.Fault.VERSION
    await bench.driver.abort(change)
    assert await bench.seen() == {}


async def test_what_ends_leaves_no_unit_and_no_listener(bench: Bench) -> None:
    await bench.installed(bench.launch("1.0.0"))
    for _ in range(2):
        await bench.driver.gc(COMPONENT, ())
    assert bench.edge.units("instar-") == {}
    assert await programs.answer(bench.address) == ""


async def test_an_aborted_installation_leaves_no_unit_and_no_listener(bench: Bench) -> None:
    change = bench.change(bench.launch("1.0.0"))
    await bench.switched(change)
    for _ in range(2):
        await bench.driver.abort(change)
        assert bench.edge.units("instar-") == {}
    with socket.create_server(bench.address):
        pass


async def test_a_unit_runs_as_the_user_whom_the_configuration_names(bench: Bench) -> None:
    for folder in (bench.node.state.parent, bench.node.state, bench.node.state / "releases"):
        folder.chmod(0o711)
    nobody = pwd.getpwnam("nobody").pw_uid
    launch = replace(bench.of_system("1.0.0"), user="nobody")
    await bench.switched(change := bench.change(launch))
    await bench.driver.commit(change)
    before = (await bench.seen())[launch.instance_id].pid
    assert user_of(before) == nobody
    node.kill(before)

    async def is_again() -> bool:
        return (await bench.seen())[launch.instance_id].pid not in (0, before)

    await node.until(is_again)
    after = (await bench.seen())[launch.instance_id].pid
    assert user_of(after) == nobody


async def test_a_host_that_keeps_the_user_out_of_the_release_is_to_blame_and_not_the_version(bench: Bench) -> None:
    launch = replace(bench.of_system("1.0.0"), user="nobody")
    bench.node.state.parent.chmod(0o700)
    with pytest.raises(drivers.DriverError, match=r"^cannot start .* status 200") as caught:
        await bench.switched(bench.change(launch))
    assert (caught.value.fault, caught.value.reason) == (model.Fault.INFRASTRUCTURE, "start_failed")


async def test_a_program_that_cannot_be_run_is_the_version_s_fault(bench: Bench) -> None:
    manifest = programs.manifest("1.0.0", systemd.NAME, ("app.py",), model.SystemdOptions())
    launch = bench.lay_out(manifest, {"app.py": "#!/no-such-interpreter\n"}, mode=0o755)
    with pytest.raises(drivers.DriverError, match=r"^cannot start .* status 203") as caught:
        await bench.switched(bench.change(launch))
    assert (caught.value.fault, caught.value.reason) == (model.Fault.VERSION, "crashed_at_start")


async def test_a_user_whom_the_host_does_not_know_is_refused(bench: Bench) -> None:
    launch = replace(bench.launch("1.0.0"), user="no-such-user")
    with pytest.raises(drivers.DriverError, match=r"^cannot run web: users\.web names no-such-user") as caught:
        await bench.driver.plan(bench.change(launch))
    assert (caught.value.fault, caught.value.reason) == (model.Fault.INFRASTRUCTURE, "user_unknown")


async def test_what_this_driver_cannot_do_is_refused_before_anything_happens(bench: Bench) -> None:
    launch = bench.launch("1.0.0")
    secret = replace(launch, manifest=replace(launch.manifest, secrets=("token",)))
    outside = replace(launch, manifest=replace(launch.manifest, command=("/bin/sh",)))
    (tampered := bench.launch("1.1.0")).release_dir.joinpath("app.py").write_text("evil = True")
    for wrong, reason, fault in (
        (secret, "secrets_not_supported", model.Fault.COMMAND),
        (replace(launch, addresses={}), "socket_address_missing", model.Fault.COMMAND),
        (outside, "command_outside", model.Fault.VERSION),
        (tampered, "release_damaged", model.Fault.INFRASTRUCTURE),
    ):
        with pytest.raises(drivers.DriverError, match=r"^cannot") as caught:
            await bench.switched(bench.change(wrong))
        assert (caught.value.reason, caught.value.fault) == (reason, fault)
    assert await bench.seen() == {}


async def test_a_host_without_systemd_is_told_apart(bench: Bench) -> None:
    edge = systemctl.Systemctl(("no-such-systemctl",), bench.node.state)
    driver = systemd.Systemd(bench.rooms, edge)
    with pytest.raises(drivers.DriverError, match=r"^cannot run no-such-systemctl") as caught:
        await driver.prepare(bench.change(bench.launch("1.0.0")))
    assert caught.value.fault is model.Fault.INFRASTRUCTURE


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid
