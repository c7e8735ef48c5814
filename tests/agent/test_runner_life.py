"""The life of a component on a real node: stopped, started, restarted, gone back to, moved by hand, on a bad disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from agent import processes
from agent.core import model
from tests.agent import live_node
from tests.agent.keeper import load

SHORT = timedelta(seconds=0.2)
UPKEEP_SECONDS = 2.5  # one look of the node at everything, and a little more: for what must not happen
Kind = model.ChangeKind


@pytest.fixture
async def a_node() -> AsyncIterator[live_node.LiveNode]:
    async with live_node.running() as made:
        yield made


@contextlib.asynccontextmanager
async def a_stuck_client(a_node: live_node.LiveNode) -> AsyncIterator[None]:
    """Hold a connection whose request never comes to its end, so that a drain lasts."""
    _, writer = await asyncio.open_connection(*a_node.address)
    writer.write(b"GET /slow HTTP/1.1\r\n")
    await writer.drain()
    try:
        yield
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def stays(a_node: live_node.LiveNode, pids: list[int]) -> None:
    """See that the node leaves everything as it is for as long as it takes it to look at everything."""
    async with asyncio.timeout(live_node.PATIENCE_SECONDS):
        until = asyncio.get_running_loop().time() + UPKEEP_SECONDS
        while asyncio.get_running_loop().time() < until:
            assert [each.pid for each in await a_node.instances()] == pids
            await asyncio.sleep(0.1)


async def test_a_stopped_component_stays_stopped_over_a_power_cut_until_it_is_started(
    a_node: live_node.LiveNode,
) -> None:
    digest = await a_node.installed("1.0.0")
    for _ in range(2):  # again is success
        await a_node.until_state(a_node.assign("1.0.0", "", digest, kind=Kind.STOP), "PERMANENT")
    assert (a_node.component()["is_stopped"], await a_node.instances()) == (True, ())
    refused = await a_node.until_state(a_node.assign("1.0.0", digest, digest, kind=Kind.RESTART), "REFUSED")
    assert refused["reason"] == "component_stopped"
    a_node.keeper.kill()
    killed = a_node.told()["pid"]
    with contextlib.suppress(ProcessLookupError):
        os.kill(killed, signal.SIGKILL)
    a_node.start()
    await a_node.agent_is_back(killed)
    await stays(a_node, [])
    for _ in range(2):
        await a_node.until_state(a_node.assign("1.0.0", "", digest, kind=Kind.START), "PERMANENT")
    [serving] = await a_node.instances()
    assert (serving.digest, serving.is_kept, a_node.component()["is_stopped"]) == (digest, True, False)


async def test_a_start_that_fails_leaves_the_component_stopped_and_shows_what_it_wrote(
    a_node: live_node.LiveNode,
) -> None:
    marker = a_node.root / "die"
    service = b"import os\nif os.path.exists(os.environ['DIE']): raise SystemExit('no oil')\n" + live_node.SERVICE
    digest = await a_node.installed("1.0.0", environment={"DIE": str(marker)}, service=service)
    await a_node.until_state(a_node.assign("1.0.0", "", digest, kind=Kind.STOP), "PERMANENT")
    marker.touch()
    operation_id = a_node.assign("1.0.0", "", digest, kind=Kind.START)
    ended = await a_node.until_state(operation_id, "ABORTED")
    assert (ended["fault"], ended["reason"]) == ("VERSION", "crashed_at_start")
    assert a_node.component()["is_stopped"]
    assert await a_node.instances() == ()
    steps = [each for each in a_node.told()["report"]["steps"] if each["operation_id"] == operation_id]
    assert "no oil" in steps[-1]["evidence"]["log_tail"]


@pytest.mark.parametrize("method", model.Method)
async def test_a_restart_brings_the_same_version_up_in_another_process(
    a_node: live_node.LiveNode, method: model.Method
) -> None:
    digest = await a_node.installed("1.0.0")
    [before] = await a_node.instances()
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 50)
        operation_id = a_node.assign("1.0.0", digest, digest, kind=Kind.RESTART, method=method)
        await a_node.until_state(operation_id, "PERMANENT")
        await seen.until_served("1.0.0", 50)
    [after] = await a_node.instances()
    assert (after.digest, after.is_kept) == (digest, True)
    assert after.pid != before.pid
    assert seen.failures == []


async def test_a_restart_whose_new_process_dies_keeps_the_old_one(a_node: live_node.LiveNode) -> None:
    digest = await a_node.installed("1.0.0")
    [before] = await a_node.instances()
    async with load.on(a_node.address) as seen:
        operation_id = a_node.assign("1.0.0", digest, digest, kind=Kind.RESTART, soak_duration=timedelta(seconds=20))
        await a_node.until(lambda: a_node.status(operation_id)["step"] == "SOAK")
        [fresh] = [each for each in await a_node.instances() if each.pid != before.pid]
        os.kill(fresh.pid, signal.SIGKILL)
        ended = await a_node.until_state(operation_id, "ABORTED")
        await seen.until_served("1.0.0", 50)
    assert (ended["fault"], ended["reason"]) == ("VERSION", "instance_died")
    assert [each.pid for each in await a_node.instances()] == [before.pid]


async def test_going_back_to_what_still_drains_lets_that_process_serve_again(a_node: live_node.LiveNode) -> None:
    old = await a_node.installed("1.0.0", drain_timeout="60s")
    new = a_node.bundle("1.1.0")
    [before] = await a_node.instances()
    async with a_stuck_client(a_node), load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 20)
        forward = a_node.assign("1.1.0", new, old, soak_duration=SHORT)
        await a_node.until_state(forward, "COMMITTED")
        await seen.until_served("1.1.0", 20)
        back = a_node.assign("1.0.0", old, new, soak_duration=SHORT)
        await a_node.until_state(back, "PERMANENT")
        await seen.until_served("1.0.0", 20)
        assert [each.pid for each in await a_node.instances()] == [before.pid]
    assert seen.failures == []
    assert a_node.component()["digest"] == old


async def test_a_third_version_ends_the_oldest_by_force_before_it_begins(a_node: live_node.LiveNode) -> None:
    old = await a_node.installed("1.0.0", drain_timeout="60s")
    new = a_node.bundle("1.1.0", drain_timeout="1s")
    third = a_node.bundle("1.2.0", drain_timeout="1s")
    async with a_stuck_client(a_node), load.on(a_node.address) as seen:
        await a_node.until_state(a_node.assign("1.1.0", new, old, soak_duration=SHORT), "COMMITTED")
        operation_id = a_node.assign("1.2.0", third, new, soak_duration=SHORT)
        most = 0
        while a_node.status(operation_id)["state"] not in {"COMMITTED", "PERMANENT", "ABORTED"}:
            most = max(most, len(await a_node.instances()))
        await a_node.until_state(operation_id, "PERMANENT")
        await seen.until_served("1.2.0", 20)
    assert most == 2
    assert seen.failures == []
    assert [each.version for each in await a_node.instances()] == ["1.2.0"]


async def test_the_end_of_a_log_is_read_from_the_instance_that_serves(a_node: live_node.LiveNode) -> None:
    assert "no instance" in (await a_node.log())["error"]
    service = b"print('first line', flush=True)\nprint('last line', flush=True)\n" + live_node.SERVICE
    await a_node.installed("1.0.0", service=service)
    [serving] = await a_node.instances()
    whole, end = await a_node.log(), await a_node.log(max_bytes=12)
    assert (whole["instance_id"], whole["error"]) == (serving.id, "")
    assert whole["text"].splitlines()[:2] == ["first line", "last line"]
    assert "first line" not in end["text"]


async def test_a_journal_that_fails_ends_no_service_and_begins_nothing_until_the_next_life(
    a_node: live_node.LiveNode,
) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    agent: int = a_node.told()["pid"]
    async with load.on(a_node.address) as seen:
        held = a_node.assign("1.1.0", new, old, hold_before=model.Step.COMMIT)
        await a_node.until_state(held, "HELD")
        with _failing_flushes(agent, a_node.root / "strace"):
            a_node.command("proceed", model.Proceed(held, 2, model.Step.COMMIT, None))
            await a_node.until(lambda: "journal_failed" in a_node.conditions())
        ended = await a_node.until_state(a_node.assign("1.1.0", new, old), "REFUSED")
        assert (ended["fault"], ended["reason"]) == ("INFRASTRUCTURE", "journal_failed")
        await seen.until_served("1.1.0", 20)
        assert (a_node.told()["pid"], a_node.status(held)["state"]) == (agent, "HELD")
        a_node.kill_agent()
        await a_node.agent_is_back(agent)
        await a_node.until_state(held, "PERMANENT")  # the record of its COMMIT was written, though never flushed
    assert a_node.conditions() == set()
    assert seen.failures == []


@contextlib.contextmanager
def _failing_flushes(pid: int, log: Path) -> Iterator[None]:
    """Let every fdatasync of a process fail, as a broken disk does."""
    command = ["strace", "-f", "-q", "-o", str(log), "-e", "inject=fdatasync:error=EIO", "-p", str(pid)]
    tracer = subprocess.Popen([*command, "-e", "trace=fdatasync"], stderr=subprocess.DEVNULL)
    try:
        while not _is_traced(pid):
            assert tracer.poll() is None
        yield
    finally:
        tracer.terminate()
        tracer.wait()


def _is_traced(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("TracerPid:")).split()[1] != "0"


async def test_a_pointer_that_somebody_moved_is_told_and_what_serves_is_left_alone(a_node: live_node.LiveNode) -> None:
    old = await a_node.installed("1.0.0")
    new = a_node.bundle("1.1.0")
    await a_node.until_state(a_node.assign("1.1.0", new, old, soak_duration=SHORT), "PERMANENT")
    [serving] = await a_node.instances()
    current = a_node.keeper.state / "components" / "web" / "current"
    committed = current.readlink()
    _point(current, committed.with_name(old.removeprefix("sha256:")))
    await a_node.until(lambda: "drift" in a_node.conditions())
    await stays(a_node, [serving.pid])
    _point(current, committed)
    await a_node.until(lambda: a_node.conditions() == set())
    assert [each.pid for each in await a_node.instances()] == [serving.pid]


def _point(pointer: Path, target: Path) -> None:
    fresh = pointer.with_name(".by-hand")
    fresh.symlink_to(target)
    fresh.rename(pointer)


async def test_a_version_that_is_not_current_is_brought_back_to_it(a_node: live_node.LiveNode) -> None:
    digest = await a_node.installed("1.0.0")
    [serving] = await a_node.instances()
    keeper = await a_node.keeper.client()
    await keeper.stop(serving.id, timedelta(seconds=5))  # by hand: nothing of it is left
    await keeper.close()
    await a_node.until(lambda: serving.pid not in {each["pid"] for each in a_node.component()["instances"]})
    await a_node.until(lambda: a_node.component()["health"] == "HEALTHY" and bool(a_node.component()["instances"]))
    [again] = await a_node.instances()
    assert (again.digest, again.is_kept) == (digest, True)


async def test_what_is_now_well_now_not_too_often_is_not_well(a_node: live_node.LiveNode) -> None:
    marker = a_node.root / "unwell"
    await a_node.installed("1.0.0", environment={"UNWELL_IF_EXISTS": str(marker)})
    for _ in range(2):
        marker.touch()
        await a_node.until(lambda: a_node.component()["health"] == "UNHEALTHY")
        marker.unlink()
        await a_node.until(lambda: a_node.component()["health"] == "HEALTHY")
    marker.touch()
    await a_node.until(lambda: a_node.component()["health"] == "UNHEALTHY")
    marker.unlink()
    await stays(a_node, [each.pid for each in await a_node.instances()])
    told = a_node.component()
    assert (told["health"], told["healthy_for"]) == ("UNHEALTHY", 0)
    [serving] = await a_node.instances()
    assert serving.state is processes.InstanceState.ACTIVE
