import asyncio
import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest

from agent import processes
from tests.agent.keeper import load, node

STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    print(os.getpgid(0), flush=True)
while True:
    time.sleep(60)
"""
ENVIRONMENT = """
import os
for name in sorted(os.environ):
    print(name, os.environ[name])
print("FDS", sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1], os.getcwd(), os.getsid(0) == os.getpid())
"""


def refused(code: str) -> "pytest.RaisesExc[processes.KeeperError]":
    """Expect a refusal with this code."""
    return pytest.RaisesExc(processes.KeeperError, check=lambda error: error.code == code)


def group_of(pid: int) -> list[int]:
    """List the living processes of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == pid and state != "Z":
                found.append(int(entry.name))
    return found


async def test_starting_the_same_again_is_success_and_another_under_its_id_is_not(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    spec = a_node.release("1.0.0")
    first, second = await asyncio.gather(keeper.start(spec), keeper.start(spec))
    assert first.pid == second.pid
    with refused("instance_conflict"):
        await keeper.start(dataclasses.replace(spec, version="2.0.0"))


async def test_a_program_gets_its_sockets_and_its_environment_and_nothing_else(
    a_node: node.Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "1")
    a_node.kill()
    a_node.start()
    keeper = await a_node.attached()
    spec = dataclasses.replace(
        a_node.release("1.0.0", source=ENVIRONMENT), environment={"COLOUR": "blue", "LISTEN_FDS": "9"}
    )
    started = await keeper.start(spec)
    ended = await node.reaches(keeper, spec.id, processes.InstanceState.EXITED)
    lines = (a_node.run / f"{spec.id}.log").read_text().splitlines()
    told = dict(line.split(" ", 1) for line in lines)
    assert ended.exit_code == 0
    assert told["FDS"] == f"[0, 1, 2, 3, 4, 5] {spec.release_dir} True"
    assert (told["LISTEN_FDS"], told["LISTEN_FDNAMES"], told["LISTEN_PID"]) == (
        "2",
        "http:instar-probe",
        str(started.pid),
    )
    assert (told["INSTAR_CONTROL_FD"], told["INSTAR_VERSION"], told["COLOUR"]) == ("5", "1.0.0", "blue")
    assert "SECRET_OF_THE_HOST" not in told


async def test_only_what_lies_in_a_release_with_its_digest_is_started(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    good = a_node.release("1.0.0")
    elsewhere = a_node.state / "elsewhere"
    elsewhere.mkdir()
    with refused("release_outside"):
        await keeper.start(dataclasses.replace(good, release_dir=elsewhere))
    with refused("command_outside"):
        await keeper.start(dataclasses.replace(good, command=["/bin/sh", "-c", "true"]))
    with refused("command_outside"):
        await keeper.start(dataclasses.replace(good, command=["../../../bin/sh"]))
    with refused("unknown_socket"):
        await keeper.start(dataclasses.replace(good, sockets=["web.other"]))
    (good.release_dir / "app.py").write_text("print('not what was checked')")
    with refused("digest_mismatch"):
        await keeper.start(good)
    assert (await keeper.inspect()).instances == ()
    assert list(a_node.run.glob("web-*")) == []


async def test_a_program_that_cannot_be_executed_is_refused_with_the_reason(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    with refused("start_failed"):
        await keeper.start(dataclasses.replace(a_node.release("1.0.0"), command=["app.py"]))


async def test_the_kept_instance_is_started_again_and_activated_and_serves_what_waited(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    first = await a_node.serving(keeper, "1.0.0")
    node.kill(first.pid)
    async with load.on(a_node.address) as seen:
        await seen.until_served("1.0.0", 20)
    again = await node.find(keeper, first.id)
    assert again.pid != first.pid
    assert (again.state, again.restarts, again.is_kept) == (processes.InstanceState.ACTIVE, 1, True)
    assert seen.failures == []  # they waited in the socket that the keeper holds
    states = [keeper.events.get_nowait().instance.state for _ in range(keeper.events.qsize())]
    assert processes.InstanceState.EXITED in states


async def test_an_instance_that_nobody_keeps_stays_dead_and_tells_how_it_died(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    made = await node.prepared(keeper, a_node.release("1.0.0"))
    node.kill(made.pid)
    ended = await node.reaches(keeper, made.id, processes.InstanceState.EXITED)
    assert (ended.signal, ended.exit_code, ended.restarts) == (9, None, 0)
    with refused("instance_gone"):
        await keeper.say(made.id, processes.Word.STATUS, node.WORD_TIMEOUT)


async def test_stop_ends_the_whole_group_of_a_program_that_ignores_sigterm(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    spec = a_node.release("1.0.0", source=STUBBORN)
    started = await keeper.start(spec)
    log = a_node.run / f"{spec.id}.log"

    async def has_forked() -> bool:
        return log.read_text().strip() == str(started.pid)

    await node.until(has_forked)
    assert len(group_of(started.pid)) == 2
    await asyncio.gather(keeper.stop(spec.id, timedelta(seconds=0.2)), keeper.stop(spec.id, timedelta(seconds=0.2)))
    assert group_of(started.pid) == []
    assert (await keeper.inspect()).instances == ()
    assert list(a_node.run.glob("web-*")) == []
    await keeper.stop(spec.id, timedelta(0))


async def test_what_a_dead_program_leaves_in_its_group_is_ended_with_it(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    spec = a_node.release("1.0.0", source="import os, time\nif not os.fork():\n    time.sleep(600)")
    started = await keeper.start(spec)
    await node.reaches(keeper, spec.id, processes.InstanceState.EXITED)

    async def is_empty() -> bool:
        return group_of(started.pid) == []

    await node.until(is_empty)


async def test_a_program_that_never_answers_is_given_up_on_in_time(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    spec = a_node.release("1.0.0", source=STUBBORN)
    await keeper.start(spec)
    with refused("instance_timeout"):
        await keeper.say(spec.id, processes.Word.STATUS, timedelta(seconds=0.1))
    assert (await node.find(keeper, spec.id)).state is processes.InstanceState.STARTING
    await keeper.stop(spec.id, timedelta(0))


async def test_a_word_that_the_state_forbids_is_refused_and_changes_nothing(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    made = await node.prepared(keeper, a_node.release("1.0.0"))
    with refused("instance_refused"):
        await keeper.say(made.id, processes.Word.PAUSE, node.WORD_TIMEOUT)
    assert (
        await keeper.say(made.id, processes.Word.STATUS, node.WORD_TIMEOUT)
    ).state is processes.InstanceState.PREPARED


async def test_the_private_probe_listener_answers_by_http_from_prepared_on(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    made = await node.prepared(keeper, a_node.release("1.0.0"))
    reader, writer = await asyncio.open_unix_connection(a_node.run / f"{made.id}.probe")
    writer.write(load.REQUEST)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
