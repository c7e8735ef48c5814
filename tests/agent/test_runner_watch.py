"""What a real node tells of what it runs, and what its own people do with it where nobody else leads it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from agent.core import model
from tests.agent import live_node
from tests.agent.keeper import node as keeper_node

LOCAL_CHANGES = 100  # about six times what the journal has room for while nobody acknowledges anything
SELDOM_SECONDS = 6.0  # three times what lies between two looks at everything
Kind = model.ChangeKind
PLAIN = """\
name = "web"
version = "1.0.0"
driver = "process"
command = ["python", "main.py"]
[process]
settle_duration = "0.1s"
"""
LOOKED_AT = """\
name = "web"
version = "1.0.0"
driver = "exec"
[exec]
hot_swap = true
inspect = ["python", "look.py"]
"""
LOOK = """\
import os, pathlib
line = f"{{os.environ['INSTAR_INSTANCE_ID']}} sha256:{{pathlib.Path(__file__).parent.name}} {{os.getppid()}} active"
with open("{looks}", "a") as file:
    print(line, file=file)
print(line)
"""
WAITS = b"import signal\nsignal.pause()\n"


@pytest.fixture
async def a_node() -> AsyncIterator[live_node.LiveNode]:
    async with live_node.running() as made:
        yield made


def found(a_node: live_node.LiveNode, code: str) -> list[dict[str, Any]]:
    """Conditions of one kind that the agent last told."""
    return [each for each in a_node.told()["report"]["conditions"] if each["code"] == code]


def healthy_for(a_node: live_node.LiveNode) -> timedelta:
    """Time for which the agent last told the component to be healthy."""
    return timedelta(microseconds=a_node.component()["healthy_for"])


async def asked(a_node: live_node.LiveNode, **request: str) -> dict[str, Any]:
    """Ask the agent as the node's own people do, once there is one."""
    reader, writer = await _connection(a_node.keeper.run / "agent.sock")
    writer.write(json.dumps(request).encode() + b"\n")
    answer = json.loads(await reader.read())
    writer.close()
    assert "ok" in answer, answer
    return cast("dict[str, Any]", answer["ok"])


async def _connection(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(live_node.PATIENCE_SECONDS):
        while True:
            try:
                return await asyncio.open_unix_connection(path)
            except OSError:
                await asyncio.sleep(0.01)


async def test_a_node_says_what_its_drivers_can_do(a_node: live_node.LiveNode) -> None:
    await a_node.until(lambda: bool(a_node.told()["pid"]))
    said = set(a_node.told()["hello"]["capabilities"])
    assert {"driver.handover", "driver.handover.HOT_SWAP", "driver.handover.RESTART", "driver.held.RESTART"} < said
    assert "driver.held.HOT_SWAP" not in said


async def test_what_dies_again_and_again_is_told_until_it_is_revived_and_lives(a_node: live_node.LiveNode) -> None:
    marker = a_node.root / "die"
    await a_node.installed("1.0.0", environment={"DIE_IF_EXISTS": str(marker)})
    [serving] = await a_node.instances()
    marker.touch()
    os.kill(serving.pid, signal.SIGKILL)
    await a_node.until(lambda: bool(found(a_node, "crash_loop")))
    [told] = found(a_node, "crash_loop")
    assert (told["component"], serving.id in told["message"]) == ("web", True)
    assert a_node.component()["health"] == "UNHEALTHY"
    marker.unlink()
    keeper = await a_node.keeper.client()
    await keeper.revive(serving.id)
    await a_node.until(lambda: not found(a_node, "crash_loop"))
    await a_node.until(lambda: a_node.component()["health"] == "HEALTHY")


async def test_a_disk_that_is_nearly_full_is_told_until_it_is_not(a_node: live_node.LiveNode) -> None:
    told = a_node.root / "free_bytes"
    told.write_text("1048576")
    await a_node.until(lambda: bool(found(a_node, "disk_low")))
    assert found(a_node, "disk_low")[0]["component"] == ""
    told.unlink()
    await a_node.until(lambda: a_node.conditions() == set())


async def test_a_pointer_moved_by_hand_is_told_with_the_name_of_its_component(a_node: live_node.LiveNode) -> None:
    await a_node.installed("1.0.0")
    current = a_node.keeper.state / "components" / "web" / "current"
    committed = current.readlink()
    fresh = current.with_name(".by-hand")
    other = committed.with_name("0" * 64)
    shutil.copytree(current.resolve(), current.parent / other)
    fresh.symlink_to(other)
    fresh.rename(current)
    await a_node.until(lambda: bool(found(a_node, "drift")))
    assert [each["component"] for each in found(a_node, "drift")] == ["web"]


@pytest.mark.parametrize("kind", [Kind.RESTART, Kind.START])
async def test_health_begins_anew_with_another_instance_of_the_same_version(
    a_node: live_node.LiveNode, kind: model.ChangeKind
) -> None:
    digest = await a_node.installed("1.0.0")
    long = timedelta(seconds=6)
    await a_node.until(lambda: healthy_for(a_node) > long)
    if kind is Kind.START:
        stopped = a_node.assign("1.0.0", "", digest, kind=Kind.STOP)
        told = await _first_told(a_node, stopped, "PERMANENT")
        assert (told["is_stopped"], told["instances"], told["health"]) == (True, [], "UNKNOWN")
    began = a_node.assign("1.0.0", "", digest, kind=kind, min_healthy_duration=timedelta(seconds=1))
    told = await _first_told(a_node, began, "COMMITTED")
    assert timedelta(microseconds=told["healthy_for"]) < long
    await a_node.until_state(began, "PERMANENT")
    assert healthy_for(a_node) >= timedelta(seconds=1)


async def _first_told(a_node: live_node.LiveNode, operation_id: str, state: str) -> dict[str, Any]:
    """What was told of the component in the very report that first told a state of an operation."""
    seen: dict[str, Any] = {}

    def is_there() -> bool:
        seen.update(a_node.told()["report"])
        statuses = {each["operation_id"]: each["state"] for each in seen["operations"]}
        return statuses.get(operation_id) == state

    await a_node.until(is_there)
    return cast("dict[str, Any]", seen["components"][0])


async def test_a_component_without_a_probe_is_well_while_it_serves(a_node: live_node.LiveNode) -> None:
    digest = a_node.publish(PLAIN, {"main.py": WAITS})
    begun = a_node.assign("1.0.0", digest, method=model.Method.RESTART, soak_duration=timedelta(seconds=0.2))
    await a_node.until_state(begun, "PERMANENT")
    assert a_node.component()["health"] == "HEALTHY"
    [serving] = await a_node.instances()
    os.kill(serving.pid, signal.SIGKILL)
    await a_node.until(lambda: [each["pid"] for each in a_node.component()["instances"]] not in ([], [serving.pid]))
    await a_node.until(lambda: a_node.component()["health"] == "HEALTHY")


async def test_a_controller_begins_nothing_under_a_name_of_the_nodes_own_people(a_node: live_node.LiveNode) -> None:
    digest = await a_node.installed("1.0.0")
    told = a_node.assign("1.0.0", "", digest, kind=Kind.STOP, operation_id="local/20260101/web")
    refused = await a_node.until_state(told, "REFUSED")
    assert (refused["fault"], refused["reason"]) == ("COMMAND", "operation_id_reserved")
    assert not a_node.component()["is_stopped"]


async def test_the_agent_itself_is_not_stopped_as_a_component(a_node: live_node.LiveNode) -> None:
    told = a_node.assign("", "", "sha256:" + "0" * 64, kind=Kind.STOP, component="instar-agent")
    refused = await a_node.until_state(told, "REFUSED")
    assert (refused["fault"], refused["reason"]) == ("COMMAND", "cannot_stop_agent")


async def test_what_was_changed_by_hand_is_forgotten_once_the_controller_has_heard_it(
    a_node: live_node.LiveNode,
) -> None:
    await a_node.installed("1.0.0")
    begun = (await asked(a_node, verb="change", component="web", kind="STOP"))["operation_id"]
    await a_node.until_state(begun, "PERMANENT")
    (a_node.root / "deaf").unlink()
    await a_node.until(lambda: not a_node.told()["report"]["operations"])
    assert (await asked(a_node, verb="operation", operation_id=begun))["state"] == "PERMANENT"


@pytest.mark.parametrize(("declared", "is_left"), [("STOP", False), ("KEEP", True)])
async def test_stop_of_agent_and_keeper_does_to_a_component_what_its_manifest_says(
    a_node: live_node.LiveNode, declared: str, *, is_left: bool
) -> None:
    await a_node.installed("1.0.0", extra=f'on_agent_stop = "ON_AGENT_STOP_{declared}"\n')
    [serving] = await a_node.instances()
    command = [sys.executable, "-m", "agent.cli", "stop", "--config", str(a_node.config)]
    stopping = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    assert await stopping.wait() == 0
    if is_left:
        os.kill(serving.pid, 0)  # it is there
    else:
        assert keeper_node.is_over(serving.pid)
    assert keeper_node.is_over(a_node.told()["pid"])


async def test_a_node_that_nobody_leads_is_changed_by_hand_as_often_as_its_people_like(
    a_node: live_node.LiveNode,
) -> None:
    await a_node.installed("1.0.0")
    (a_node.root / "alone").touch()
    assert keeper_node.is_over(a_node.kill_agent())
    async with asyncio.timeout(live_node.PATIENCE_SECONDS * 4):
        for _ in range(LOCAL_CHANGES):
            told = await asked(a_node, verb="change", component="web", kind="STOP")
            while told["state"] not in {"PERMANENT", "REFUSED", "ABORTED"}:
                told = await asked(a_node, verb="operation", operation_id=told["operation_id"])
            assert (told["state"], told["reason"]) == ("PERMANENT", "")
    remembered = (await asked(a_node, verb="status"))["operations"]
    assert not [each for each in remembered if each["operation_id"].startswith("local/")]


async def test_a_component_whose_looks_start_a_program_is_looked_at_seldom_while_all_is_well(
    a_node: live_node.LiveNode,
) -> None:
    looks = a_node.root / "looks"
    digest = a_node.publish(LOOKED_AT, {"look.py": LOOK.format(looks=looks).encode()})
    await a_node.until_state(a_node.assign("1.0.0", digest), "PERMANENT")
    await a_node.until(lambda: time.time() - looks.stat().st_mtime > SELDOM_SECONDS)  # noqa: TID251  # as files are stamped
    seen = len(looks.read_text().splitlines())
    await a_node.until(lambda: len(looks.read_text().splitlines()) > seen)
