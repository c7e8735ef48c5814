"""What a child has between fork and exec, and what that says of it."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
from pathlib import Path

import pytest

from agent.keeper import __main__ as keeper_main
from agent.keeper import errors, places, spawn
from agent.keeper import processes as kernel
from tests.agent.keeper import node
from tests.agent.keeper.test_instances import refused
from tests.agent.keeper.test_plain import plain
from tests.agent.keeper.test_tasks import configured


def ended(spawned: spawn.Spawned) -> spawn.Report:
    """Wait for a child, and read what it reported."""
    os.waitid(os.P_PIDFD, spawned.pidfd, os.WEXITED)
    os.close(spawned.pidfd)
    return spawn.take_report(spawned.report)


def sockets_of(pid: int) -> set[str]:
    """Sockets that a process has, by inode."""
    links = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    return {link for link in links if link.startswith("socket:")}


@pytest.mark.parametrize("number", [100, 300])
def test_while_it_checks_a_child_has_no_descriptor_but_its_own(tmp_path: Path, number: int) -> None:
    foreign = tmp_path / "foreign"
    foreign.touch()
    reader, writer = os.pipe()
    with foreign.open() as file:
        held = fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, number)

    def tell() -> dict[str, str]:
        for path in list(Path("/proc/self/fd").iterdir()):
            with contextlib.suppress(FileNotFoundError):  # by which they were listed
                os.write(spawn.FIRST_DESCRIPTOR, f"{path.readlink()}\n".encode())
        return {}

    report = ended(spawn.spawn(spawn.Program((), {}, tmp_path, descriptors=(writer,), check=tell)))
    os.close(writer)
    os.close(held)
    with os.fdopen(reader) as told:
        assert str(foreign) not in told.read().splitlines()
    assert report == spawn.Report(has_passed=True, refusal=None)


@pytest.mark.parametrize(
    ("raised", "code"),
    [(None, "start_failed"), (errors.RequestError("digest_mismatch", "cannot"), "digest_mismatch")],
)
def test_a_report_tells_what_failed_and_whether_the_check_had_passed(
    tmp_path: Path,
    raised: Exception | None,
    code: str,
) -> None:
    def check() -> dict[str, str]:
        if raised is not None:
            raise raised
        return {}

    report = ended(spawn.spawn(spawn.Program(("/nowhere",), {}, tmp_path, check=check)))
    assert report.has_passed is (raised is None)
    assert report.refusal is not None
    assert report.refusal.code == code


def test_a_child_that_is_killed_in_its_check_has_not_passed(tmp_path: Path) -> None:
    def check() -> dict[str, str]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    report = ended(spawn.spawn(spawn.Program(("/bin/true",), {}, tmp_path, check=check)))
    assert report == spawn.Report(has_passed=False, refusal=None)


def test_the_lock_of_a_run_directory_is_never_a_childs(tmp_path: Path) -> None:
    where = places.Places(tmp_path, tmp_path)
    here, there = socket.socketpair()
    keeper = os.fork()
    if keeper == 0:
        keeper_main._first_life(where, ())
        if os.fork() == 0:
            signal.pause()  # has all that its parent had
        there.send(b"locked")
        signal.pause()
    assert here.recv(6) == b"locked"
    (child,) = [pid for pid, row in kernel.table().items() if row.parent == keeper]
    try:
        assert keeper_main._first_life(where, ()) is None
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        life = keeper_main._first_life(where, ())
        assert life is not None
        os.close(life.lock)
    finally:
        os.kill(child, signal.SIGKILL)
        here.close()
        there.close()


async def test_a_keeper_that_is_killed_while_a_child_checks_leaves_none_of_its_sockets_behind(
    a_node: node.Node,
) -> None:
    secret = a_node.state / "secret"
    os.mkfifo(secret)  # the child waits here, before it runs
    configured(a_node, f'[secrets.web]\nkey = "{secret}"\n')
    keeper = await a_node.attached()
    spec = plain(a_node, "1.0.0", secrets=["key"])
    starting = asyncio.ensure_future(keeper.start(spec))
    folder = a_node.run / f"{spec.id}.cred"

    async def checks() -> bool:
        return await asyncio.to_thread(folder.exists)

    await node.until(checks)
    child = (await node.find(keeper, spec.id)).pid
    assert a_node.process is not None
    assert len(sockets_of(child)) == 1 < len(sockets_of(a_node.process.pid))
    a_node.kill()
    with refused("keeper_gone"):
        await starting
    a_node.start(config=a_node.state / "agent.toml")
    assert (await node.find(await a_node.client(), spec.id)).pid == child
