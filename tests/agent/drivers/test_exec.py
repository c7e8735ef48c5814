"""The user's own commands, run by a real keeper from real releases; each writes down what it was told."""

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent import drivers, processes
from agent.config import manifest
from agent.core import model
from agent.drivers import exec, exec_notes  # noqa: A004  # the driver's name
from tests.agent.drivers import releases
from tests.agent.keeper import node

TELL = """
import json, os, sys
with open(os.environ["TOLD"], "a") as file:
    file.write(json.dumps(dict(os.environ)) + "\\n")
print("told", sys.argv[1:])
"""
ALL = {
    verb: ("python", "tell.py", verb) for verb in ("prepare", "activate", "pause_old", "resume_old", "drain", "abort")
}
COMPONENT = "vendor.app"


class Bench:
    """A keeper, the driver, and what the commands wrote down."""

    def __init__(self, a_node: node.Node, keeper: processes.Keeper) -> None:
        self.node = a_node
        self.rooms = drivers.Rooms(keeper=keeper, run_dir=a_node.run, state_dir=a_node.state)
        self.told = a_node.state / "told"

    @property
    def driver(self) -> drivers.Driver:
        """One that knows nothing."""
        return exec.make(self.rooms)

    def launch(
        self, version: str, commands: Mapping[str, Sequence[str]] = ALL, *, is_hot: bool = True
    ) -> drivers.Launch:
        text = "\n".join(
            (
                f'name = "{COMPONENT}"\nversion = "{version}"\ndriver = "exec"',
                f'environment = {{ TOLD = "{self.told}" }}\nsockets = [{{ name = "http" }}]',
                f'[exec]\ntimeout = "2s"\nhot_swap = {str(is_hot).lower()}',
                *(f"{verb} = {json.dumps(list(words))}" for verb, words in commands.items()),
            )
        )
        release, digest = releases.lay_out(self.node.state, {"tell.py": TELL, "instar.toml": text})
        addresses = {"http": "127.0.0.1:8080"}
        read = manifest.parse_toml(text)
        return drivers.Launch(f"app-{version}", digest, release, read, addresses, traceparent=f"trace-{version}")

    def change(
        self,
        new: drivers.Launch | None,
        old: drivers.Launch | None = None,
        method: model.Method = model.Method.HOT_SWAP,
    ) -> drivers.Change:
        return drivers.Change(f"op-{new.instance_id if new else ''}", COMPONENT, method, new, old, timedelta(minutes=1))

    async def switched(self, change: drivers.Change) -> None:
        for verb in ("plan", "stage", "prepare", "activate", "pause_old"):
            await getattr(self.driver, verb)(change)

    async def installed(self, launch: drivers.Launch) -> drivers.Launch:
        await self.switched(change := self.change(launch))
        assert (await self.driver.commit(change)).outcome is drivers.Outcome.COMMITTED
        await self.driver.drain(change)
        return launch

    async def states(self) -> dict[str, tuple[str, bool]]:
        return {each.id: (each.state.value, each.is_kept) for each in await self.driver.inspect(COMPONENT)}

    def heard(self) -> list[dict[str, str]]:
        """What was told since the last time."""
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        self.told.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def verbs(self) -> list[str]:
        return [f"{each['INSTAR_VERB']} {each['INSTAR_INSTANCE_ID']}" for each in self.heard()]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    root = Path(tempfile.mkdtemp(prefix="ie-"))  # tmp_path is too long for socket paths
    try:
        async with node.running(root) as a_node:
            keeper = await a_node.client()
            await keeper.attach()
            yield Bench(a_node, keeper)
            await keeper.close()
    finally:
        shutil.rmtree(root)


async def test_a_hot_swap_runs_the_command_of_each_verb_in_order(bench: Bench) -> None:
    old = await bench.installed(bench.launch("1.0.0"))
    assert bench.verbs() == ["prepare app-1.0.0", "activate app-1.0.0"]
    change = bench.change(bench.launch("1.1.0"), old)
    await bench.switched(change)
    assert await bench.states() == {"app-1.0.0": ("PAUSED", True), "app-1.1.0": ("ACTIVE", False)}
    for _ in range(2):
        assert (await bench.driver.commit(change)).outcome is drivers.Outcome.COMMITTED
        await bench.driver.drain(change)
    assert bench.verbs() == ["prepare app-1.1.0", "activate app-1.1.0", "pause_old app-1.0.0", "drain app-1.0.0"]
    assert await bench.states() == {"app-1.1.0": ("ACTIVE", True)}


async def test_a_restart_ends_the_old_version_first_and_only_once(bench: Bench) -> None:
    old = await bench.installed(bench.launch("1.0.0"))
    bench.heard()
    between: list[str] = []

    async def migrate() -> drivers.Evidence:
        between.extend(bench.verbs())
        return {"migrated": "yes"}

    change = replace(bench.change(bench.launch("1.1.0"), old, model.Method.RESTART), before_new=migrate)
    await bench.driver.prepare(change)
    assert (await bench.driver.activate(change))["migrated"] == "yes"
    await bench.driver.pause_old(change)
    assert between == ["prepare app-1.1.0", "pause_old app-1.0.0"]
    assert bench.verbs() == ["activate app-1.1.0"]


@pytest.mark.parametrize("method", list(model.Method))
async def test_an_abort_resumes_the_old_version_and_ends_the_new_one(bench: Bench, method: model.Method) -> None:
    old = await bench.installed(bench.launch("1.0.0"))
    change = bench.change(bench.launch("1.1.0"), old, method)
    await bench.switched(change)
    bench.heard()
    for _ in range(2):
        await bench.driver.abort(change)
    order = ["resume_old app-1.0.0", "abort app-1.1.0"]
    assert bench.verbs() == (order if method is model.Method.HOT_SWAP else order[::-1])
    assert await bench.states() == {"app-1.0.0": ("ACTIVE", True)}
    assert (await bench.driver.commit(change)).outcome is drivers.Outcome.ROLLED_BACK


async def test_a_command_is_told_which_change_it_is_part_of(bench: Bench) -> None:
    old = await bench.installed(bench.launch("1.0.0"))
    bench.heard()
    new = replace(bench.launch("1.1.0"), state_dir=bench.node.state / "data")
    await bench.switched(bench.change(new, old))
    told = bench.heard()[1]
    assert {name: told[name] for name in told if name.startswith(("INSTAR_", "STATE", "TRACE")) and told[name]} == {
        "INSTAR_VERB": "activate",
        "INSTAR_METHOD": "HOT_SWAP",
        "INSTAR_OPERATION_ID": "op-app-1.1.0",
        "INSTAR_COMPONENT": COMPONENT,
        "INSTAR_INSTANCE_ID": "app-1.1.0",
        "INSTAR_VERSION": "1.1.0",
        "INSTAR_DIGEST": new.digest,
        "INSTAR_OLD_INSTANCE_ID": "app-1.0.0",
        "INSTAR_OLD_DIR": str(old.release_dir),
        "INSTAR_OLD_VERSION": "1.0.0",
        "INSTAR_OLD_DIGEST": old.digest,
        "INSTAR_NEW_INSTANCE_ID": "app-1.1.0",
        "INSTAR_NEW_DIR": str(new.release_dir),
        "INSTAR_NEW_VERSION": "1.1.0",
        "INSTAR_NEW_DIGEST": new.digest,
        "INSTAR_ADDRESS_HTTP": "127.0.0.1:8080",
        "STATE_DIRECTORY": str(bench.node.state / "data"),
        "TRACEPARENT": "trace-1.1.0",
        "INSTAR_OWNER": told["INSTAR_OWNER"],  # the keeper's own
    }


@pytest.mark.parametrize(
    ("verb", "command", "reason", "fault"),
    [
        (
            "prepare",
            ("python", "-c", "print('out of luck'); raise SystemExit(3)"),
            "prepare_failed",
            model.Fault.VERSION,
        ),
        ("activate", ("python", "-c", "import time; time.sleep(60)"), "activate_timed_out", model.Fault.VERSION),
        ("activate", ("no-such-program",), "command_outside", model.Fault.VERSION),
    ],
)
async def test_a_command_that_fails_is_an_error_with_the_end_of_its_output(
    bench: Bench, verb: str, command: Sequence[str], reason: str, fault: model.Fault
) -> None:
    change = bench.change(bench.launch("1.0.0", {**ALL, verb: command}))
    with pytest.raises(drivers.DriverError, match=r"^cannot") as caught:
        await bench.switched(change)
    assert (caught.value.reason, caught.value.fault) == (reason, fault)
    assert ("out of luck" in str(caught.value)) is (verb == "prepare")
    bench.heard()
    await bench.driver.abort(change)
    assert (bench.verbs(), await bench.states()) == (["abort app-1.0.0"], {})


async def test_an_old_version_that_cannot_be_paused_is_not_the_new_ones_fault(bench: Bench) -> None:
    failing = {**ALL, "pause_old": ("python", "-c", "raise SystemExit(1)")}
    old = await bench.installed(bench.launch("1.0.0", failing))
    with pytest.raises(drivers.DriverError, match=r"^cannot pause_old") as caught:
        await bench.switched(bench.change(bench.launch("1.1.0"), old))
    assert caught.value.fault is model.Fault.INFRASTRUCTURE
    bench.heard()
    await bench.driver.abort(bench.change(bench.launch("1.1.0"), old))
    assert "resume_old app-1.0.0" in bench.verbs(), "nobody knows how far the pause went"


async def test_verbs_without_a_command_do_nothing_and_succeed(bench: Bench) -> None:
    old = await bench.installed(bench.launch("1.0.0", {}))
    await bench.installed(replace(bench.launch("1.1.0", {}), instance_id="app-1.1.0"))
    assert bench.verbs() == []
    assert await bench.states() == {"app-1.1.0": ("ACTIVE", True)}
    await bench.driver.gc(COMPONENT, ())
    assert (await bench.states(), old.digest != "") == ({}, True)


async def test_what_inspect_prints_is_what_there_is(bench: Bench) -> None:
    show = "import sys; print('app-1.0.0 sha256:1 41 active\\n\\nstranger sha256:2 42 DRAINING')"
    launch = await bench.installed(bench.launch("1.0.0", {**ALL, "inspect": ("python", "-c", show)}))
    seen = {each.id: each for each in await bench.driver.inspect(COMPONENT)}
    assert (seen["app-1.0.0"].pid, seen["app-1.0.0"].is_kept) == (41, True)
    assert (seen["stranger"].digest, seen["stranger"].is_kept) == ("sha256:2", False)
    assert await bench.driver.blockers(COMPONENT) == ("stranger drains",)
    assert (await bench.driver.observe(bench.change(launch))).instance == seen["app-1.0.0"]
    gone = await bench.driver.observe(bench.change(replace(launch, instance_id="app-2")))
    assert (gone.instance, "app-2" in gone.message) == (None, True)


@pytest.mark.parametrize(
    "line", ["app", "app sha256:1 x ACTIVE", "app sha256:1 1 dancing", "app sha256:1 1 ACTIVE more"]
)
async def test_a_line_of_inspect_that_cannot_be_read_is_the_versions_fault(bench: Bench, line: str) -> None:
    launch = bench.launch("1.0.0", {**ALL, "inspect": ("python", "-c", f"print({line!r})")})
    await bench.driver.prepare(bench.change(launch))
    with pytest.raises(drivers.DriverError, match=r"^cannot read .* of exec\.inspect") as caught:
        await bench.driver.inspect(COMPONENT)
    assert (caught.value.reason, caught.value.fault) == ("inspect_unreadable", model.Fault.VERSION)


async def test_what_another_run_of_the_kernel_noted_is_brought_up_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await bench.installed(bench.launch("1.0.0"))
    boot_id = bench.node.state / "boot_id"
    boot_id.write_text("another\n")
    monkeypatch.setattr(exec_notes, "BOOT_ID", boot_id)
    assert await bench.states() == {"app-1.0.0": ("EXITED", True)}
    bench.heard()
    again = replace(old, instance_id="app-again")
    for _ in range(2):
        await bench.driver.bring_up(COMPONENT, again)
    assert bench.verbs() == ["drain app-1.0.0", "prepare app-again", "activate app-again"]
    assert await bench.states() == {"app-again": ("ACTIVE", True)}


async def test_a_hot_swap_that_the_manifest_does_not_allow_is_refused(bench: Bench) -> None:
    launch = bench.launch("1.0.0", is_hot=False)
    with pytest.raises(drivers.DriverError, match=r"exec\.hot_swap") as caught:
        await bench.driver.plan(bench.change(launch))
    assert (caught.value.reason, caught.value.fault) == ("method_not_supported", model.Fault.COMMAND)
    await bench.driver.plan(bench.change(launch, method=model.Method.RESTART))
    with pytest.raises(drivers.DriverError, match=r"sockets\.vendor\.app\.http"):
        await bench.driver.plan(bench.change(replace(launch, addresses={}), method=model.Method.RESTART))
