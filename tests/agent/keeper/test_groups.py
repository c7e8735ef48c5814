"""What belongs to an instance ends with it, and nothing else does; with a cgroup of its own and without."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from agent import processes
from agent.keeper import cgroups, groups, loop, orphans, places
from agent.keeper import processes as kernel
from tests.agent.keeper import node
from tests.agent.keeper.test_plain import SERVER, kept, plain

WITHOUT_CGROUPS = ("unshare", "-m", "sh", "-c", 'umount -a -t cgroup2 && exec "$@"', "sh")
DAEMONS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
reading, writing = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        os.setsid()
        print(os.getpid(), flush=True)
        os.write(writing, b"!")
        time.sleep(600)
    os._exit(0)
os.wait()
os.read(reading, 1)  # else the main process might end before the daemon has said who it is
time.sleep(600)
"""

HAS_CGROUPS = kernel.cgroup_mount() is not None and os.geteuid() == 0
NO_CGROUPS = "this host has no cgroups of version 2 for us"
with_cgroups = pytest.mark.skipif(not HAS_CGROUPS, reason=NO_CGROUPS)


@contextlib.contextmanager
def sleeper(variable: str) -> Iterator[int]:
    """A process of somebody else, in a session of its own, with a variable as it stands."""
    name, _, value = variable.partition("=")
    environment = {name: value} if name else {}
    with subprocess.Popen(["/bin/sleep", "600"], env=environment, start_new_session=True) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.fixture(params=["cgroup", "no cgroup"])
async def either(request: pytest.FixtureRequest, a_node: node.Node) -> AsyncIterator[node.Node]:
    """A node that has cgroups, and one that has not."""
    if request.param == "no cgroup":
        a_node.kill()
        a_node.start(within=WITHOUT_CGROUPS)
    elif not HAS_CGROUPS:
        pytest.skip(NO_CGROUPS)
    yield a_node
    with contextlib.suppress(OSError):
        a_node.kill()
        a_node.start()  # ends what a failed test has left, and can see cgroups while it does


async def lines(path: Path, count: int) -> list[str]:
    """Wait for lines of a log."""
    found: list[str] = []

    async def are_there() -> bool:
        found[:] = (await asyncio.to_thread(path.read_text)).splitlines()
        return len(found) >= count

    await node.until(are_there)
    return found


async def test_a_daemon_that_ignores_sigterm_is_gone_after_the_stop(either: node.Node) -> None:
    keeper = await either.attached()
    other = await either.serving(keeper, "1.0.0")
    spec = plain(either, "2.0.0", DAEMONS)
    started = await keeper.start(spec)
    (daemon,) = await lines(either.run / f"{spec.id}.log", 1)
    assert os.getsid(int(daemon)) == int(daemon) != started.pid
    await keeper.stop(spec.id, timedelta(seconds=0.2))
    assert node.is_over(started.pid)

    async def is_reaped() -> bool:
        return int(daemon) not in kernel.table()

    await node.until(is_reaped)
    assert (await node.find(keeper, other.id)).pid == other.pid
    assert (
        await keeper.say(other.id, processes.Word.STATUS, node.WORD_TIMEOUT)
    ).state is processes.InstanceState.ACTIVE


async def test_a_daemon_ends_with_a_main_process_that_ends_by_itself(either: node.Node) -> None:
    keeper = await either.attached()
    spec = plain(either, "2.0.0", DAEMONS.replace("\ntime.sleep(600)\n", "\n"))
    await keeper.start(spec)
    (daemon,) = await lines(either.run / f"{spec.id}.log", 1)
    await node.is_gone(keeper, spec.id)
    assert node.is_over(int(daemon))


async def test_instances_that_share_nothing_end_apart(either: node.Node) -> None:
    keeper = await either.attached()
    first = await kept(keeper, plain(either, "1.0.0", SERVER))
    second = await keeper.start(plain(either, "1.1.0", SERVER))
    await asyncio.gather(
        keeper.say(first.id, processes.Word.PARK, node.WORD_TIMEOUT), keeper.stop(second.id, timedelta(seconds=5))
    )
    assert node.is_over(first.pid)
    await keeper.say(first.id, processes.Word.RESUME, node.WORD_TIMEOUT)
    assert (await node.find(keeper, first.id)).state is processes.InstanceState.ACTIVE


@pytest.mark.parametrize(("pid", "owner"), [(0, "x"), (-1, "x"), (1, "x"), (None, "x"), (1 << 21, "")])
def test_a_group_that_would_match_what_the_keeper_did_not_start_is_none(pid: int | None, owner: str) -> None:
    with pytest.raises(ValueError, match="cannot take process"):
        groups.Group(os.getpid() if pid is None else pid, 1, owner, "")


@pytest.mark.parametrize("variable", ["", "=", "INSTAR_OWNER", "INSTAR_OWNER=", "=x"])
def test_an_empty_mark_fits_no_process(variable: str) -> None:
    with sleeper(variable) as pid:
        assert not kernel.has_variable(pid, variable)


@pytest.mark.parametrize("given", [0, 1, -1, None])
def test_numbers_that_stand_for_many_groups_or_our_own_are_not_signalled(given: int | None) -> None:
    number = os.getpgrp() if given is None else given
    told: list[int] = []
    before = signal.signal(signal.SIGURG, lambda got, _: told.append(got))  # ignored by everybody else
    try:
        kernel.signal_group(number, signal.SIGURG)
        kernel.signal_exactly(number, kernel.start_time(number), signal.SIGURG)
    finally:
        signal.signal(signal.SIGURG, before)
    assert told == []


def test_a_number_that_is_anothers_by_now_is_not_touched_and_neither_is_its_session() -> None:
    with sleeper("INSTAR_OWNER=another") as pid:
        known = groups.Groups(loop.Loop())
        for owner in ("mine", "anothe"):
            stale = groups.Group(pid, kernel.start_time(pid) - 1, owner, "")
            known.signal(stale, signal.SIGTERM)
            known.kill(stale)
            assert known.is_empty(stale)
        kernel.signal_exactly(pid, kernel.start_time(pid) + 1, signal.SIGKILL)
        assert not kernel.table()[pid].is_zombie
        own = groups.Group(pid, kernel.start_time(pid), "another", "")
        assert not known.is_empty(own)
        known.kill(own)
        assert node.is_over(pid)


def test_a_process_that_has_ended_keeps_its_number_until_its_exit_is_taken() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    pidfd = os.pidfd_open(pid)
    assert node.is_over(pid)
    reaper = orphans.Orphans(loop.Loop(), lambda number: number == pid)
    for _ in range(2):
        reaper._sweep()
        assert kernel.exit_of(pidfd) == kernel.Exit(3, None)
        assert kernel.table()[pid].is_zombie
    assert kernel.reap(pidfd) == kernel.Exit(3, None)
    assert pid not in kernel.table()
    os.close(pidfd)


async def test_marks_that_are_empty_or_of_another_node_are_not_those_of_an_instance(either: node.Node) -> None:
    keeper = await either.attached()
    started = await keeper.start(plain(either, "1.0.0", SERVER))
    owner = json.loads((either.run / f"{started.id}.json").read_text())["owner"]
    assert len(owner) == 2 * groups.OWNER_BYTES
    assert kernel.has_variable(started.pid, f"INSTAR_OWNER={owner}")
    with sleeper("INSTAR_OWNER=") as empty, sleeper(f"INSTAR_OWNER={either.run / started.id}") as another:
        await keeper.stop(started.id, timedelta(seconds=1))
        assert node.is_over(started.pid)
        assert not any(kernel.table()[pid].is_zombie for pid in (empty, another))


def test_run_directories_that_look_alike_have_cgroups_of_their_own() -> None:
    paths = ("/a/b-c", "/a-b/c", "/a/b/c", "/a\\x2db/c")
    assert len({cgroups._name(places.Places(Path(each), Path(each))) for each in paths}) == len(paths)


@with_cgroups
async def test_a_cgroup_that_this_node_has_not_made_is_never_killed_and_only_empty_ones_are_removed(
    a_node: node.Node,
) -> None:
    keeper = await a_node.attached()
    started = await keeper.start(plain(a_node, "1.0.0", SERVER))
    record = a_node.run / f"{started.id}.json"
    own = Path(json.loads(record.read_text())["cgroup"])
    left, populated = (own.parent.parent / f"instar-{a_node.run.parent.name}{kind}" / "x" for kind in ("left", "kept"))
    empty = populated.parent / "y"  # of a live one, who may be about to enter it
    for folder in (left, populated, empty):
        folder.mkdir(parents=True)
    try:
        with sleeper("INSTAR_OWNER=another") as foreign:
            (populated / "cgroup.procs").write_text(str(foreign))
            a_node.kill()
            record.write_text(json.dumps({**json.loads(record.read_text()), "cgroup": str(populated)}))
            a_node.start()
            keeper = await a_node.attached()
            folders = (left.parent, populated, empty, own)
            assert [cgroups.is_there(str(each)) for each in folders] == [False, True, True, True]
            await keeper.stop(started.id, timedelta(seconds=1))
            assert node.is_over(started.pid)
            cgroups.kill("")
            assert not kernel.table()[foreign].is_zombie
    finally:
        for folder in (left, populated):
            cgroups.remove(str(folder.parent))


@with_cgroups
async def test_a_cgroup_that_was_removed_while_it_was_empty_is_made_again(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    first = await keeper.start(plain(a_node, "1.0.0", SERVER))
    folder = json.loads((a_node.run / f"{first.id}.json").read_text())["cgroup"]
    await keeper.stop(first.id, timedelta(seconds=1))
    Path(folder).parent.rmdir()
    second = await keeper.start(plain(a_node, "1.1.0", SERVER))
    assert cgroups.pids(json.loads((a_node.run / f"{second.id}.json").read_text())["cgroup"]) == [second.pid]
