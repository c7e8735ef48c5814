"""Instances without a control socket, spoken to by signals and processes."""

import asyncio
import dataclasses
import os
import signal
from datetime import timedelta

import pytest

from agent import processes
from tests.agent.keeper import node
from tests.agent.keeper.test_instances import ENVIRONMENT, refused

SERVER = """
import os, signal, socket
listener = socket.socket(fileno=3)
told = []
for name in ("SIGUSR1", "SIGWINCH", "SIGHUP"):
    signal.signal(getattr(signal, name), lambda number, _: told.append(signal.Signals(number).name))
while True:
    try:
        connected, _ = listener.accept()
    except OSError:
        continue
    connected.sendall(f"{os.environ['INSTAR_VERSION']} {os.getpid()} {','.join(told)}".encode())
    connected.close()
"""


def plain(made: node.Node, version: str, source: str = SERVER, **more: object) -> processes.InstanceSpec:
    """Make a release of a plain program."""
    spec = made.release(version, source=source)
    return dataclasses.replace(spec, protocol=processes.Protocol.PLAIN, **more)  # type: ignore[arg-type]  # names of fields


async def ask(made: node.Node) -> list[str]:
    """Ask the program who it is."""
    reader, writer = await asyncio.open_connection(*made.address)
    try:
        return (await reader.read()).decode().split(" ")
    finally:
        writer.close()
        await writer.wait_closed()


async def kept(keeper: processes.Keeper, spec: processes.InstanceSpec) -> processes.Instance:
    """Start a plain instance as the committed one."""
    await keeper.start(spec)
    await keeper.keep("web", spec.id)
    return await node.find(keeper, spec.id)


async def test_it_is_active_once_it_runs_and_gets_its_sockets_alone(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    spec = plain(a_node, "1.0.0", f"{ENVIRONMENT}\nimport sys, time\nsys.stdout.flush()\ntime.sleep(600)")
    started = await keeper.start(spec)
    assert (started.state, started.is_plain) == (processes.InstanceState.ACTIVE, True)
    log = a_node.run / f"{spec.id}.log"

    async def has_told() -> bool:
        return "\nFDS" in log.read_text()

    await node.until(has_told)
    told = dict(line.split(" ", 1) for line in log.read_text().splitlines())
    assert (told["LISTEN_FDS"], told["LISTEN_FDNAMES"], "INSTAR_CONTROL_FD" in told) == ("1", "http", False)
    assert not (a_node.run / f"{spec.id}.ctl").exists()
    answer = await keeper.say(spec.id, processes.Word.ACTIVATE, node.WORD_TIMEOUT)
    assert (answer.state, answer.served) == (processes.InstanceState.ACTIVE, 0)


async def test_paused_it_has_no_process_and_resumed_it_is_the_same_release_again(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    started = await kept(keeper, plain(a_node, "1.0.0"))
    assert (await ask(a_node))[:2] == ["1.0.0", str(started.pid)]
    paused = await keeper.say(started.id, processes.Word.PAUSE, node.WORD_TIMEOUT)
    assert paused == await keeper.say(started.id, processes.Word.PAUSE, node.WORD_TIMEOUT)
    assert paused.state is processes.InstanceState.PAUSED
    assert node.is_over(started.pid)
    parked = await node.find(keeper, started.id)
    assert (parked.pid, parked.is_kept, parked.restarts) == (0, True, 0)
    asked = asyncio.ensure_future(ask(a_node))  # waits in the keeper's socket
    resumed = await keeper.say(started.id, processes.Word.RESUME, node.WORD_TIMEOUT)
    again = await node.find(keeper, started.id)
    assert resumed.state is again.state is processes.InstanceState.ACTIVE
    assert (await asked)[:2] == ["1.0.0", str(again.pid)]
    assert again.pid != started.pid


async def test_a_parked_instance_outlives_the_keeper_as_a_record(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    started = await kept(keeper, plain(a_node, "1.0.0"))
    await keeper.say(started.id, processes.Word.PARK, node.WORD_TIMEOUT)
    a_node.kill()
    a_node.start()
    keeper = await a_node.attached()
    parked = await node.find(keeper, started.id)
    assert (parked.state, parked.pid, parked.is_kept) == (processes.InstanceState.PAUSED, 0, True)
    await keeper.say(started.id, processes.Word.RESUME, node.WORD_TIMEOUT)
    assert (await ask(a_node))[0] == "1.0.0"


async def test_a_handover_instance_is_parked_too_and_serves_when_it_is_resumed(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    started = await a_node.serving(keeper, "1.0.0")
    parked = await keeper.say(started.id, processes.Word.PARK, node.WORD_TIMEOUT)
    assert parked.state is processes.InstanceState.PAUSED
    assert node.is_over(started.pid)
    resumed = await keeper.say(started.id, processes.Word.RESUME, node.WORD_TIMEOUT)
    assert resumed.state is processes.InstanceState.ACTIVE


async def test_words_that_have_signals_are_those_signals_to_the_main_process(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    signals = {"pause": "SIGWINCH", "resume": "SIGHUP", "drain": "SIGUSR1"}
    started = await kept(keeper, plain(a_node, "1.0.0", signals=signals))
    await ask(a_node)  # by now it listens to signals
    for word, state in (
        (processes.Word.PAUSE, processes.InstanceState.PAUSED),
        (processes.Word.RESUME, processes.InstanceState.ACTIVE),
        (processes.Word.DRAIN, processes.InstanceState.DRAINING),
    ):
        assert (await keeper.say(started.id, word, node.WORD_TIMEOUT)).state is state
        await keeper.say(started.id, word, node.WORD_TIMEOUT)

    async def were_told() -> bool:
        return sorted((await ask(a_node))[2].split(",")) == ["SIGHUP", "SIGUSR1", "SIGWINCH"]  # each once

    await node.until(were_told)


async def test_drained_without_a_signal_of_its_own_it_ends_and_is_not_started_again(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    started = await kept(keeper, plain(a_node, "1.0.0"))
    answer = await keeper.say(started.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
    assert answer.state is processes.InstanceState.DRAINING
    await node.is_gone(keeper, started.id)
    ended = await node.find(keeper, started.id)
    assert (ended.signal, ended.restarts) == (signal.SIGTERM, 0)
    with refused("instance_gone"):
        await keeper.say(started.id, processes.Word.RESUME, node.WORD_TIMEOUT)


async def test_kept_it_is_started_again_and_serves_what_waited(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    started = await kept(keeper, plain(a_node, "1.0.0"))
    node.kill(started.pid)
    assert (await ask(a_node))[1] != str(started.pid)
    assert (await node.find(keeper, started.id)).restarts == 1


async def test_a_new_keeper_takes_the_listener_from_a_living_one(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    started = await kept(keeper, plain(a_node, "1.0.0"))
    a_node.kill()
    assert (await ask(a_node))[1] == str(started.pid)
    a_node.start()
    keeper = await a_node.attached()  # listens: success only if the keeper has the very socket
    adopted = await node.find(keeper, started.id)
    assert (adopted.pid, adopted.state) == (started.pid, processes.InstanceState.ACTIVE)
    os.kill(started.pid, signal.SIGSTOP)
    asked = asyncio.ensure_future(ask(a_node))  # in the backlog of a process that is about to die
    node.kill(started.pid)
    assert (await asked)[1] != str(started.pid)


async def test_a_trial_on_a_private_socket_gets_it_under_its_own_name(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    address = await keeper.listen("web.http~trial", "127.0.0.1:0")
    assert address == await keeper.listen("web.http~trial", "127.0.0.1:0")
    assert not address.endswith(":0")
    spec = plain(a_node, "2.0.0", sockets=["web.http~trial"])
    await keeper.start(spec)
    with refused("socket_in_use"):
        await keeper.unlisten("web.http~trial")
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    assert (await reader.read()).startswith(b"2.0.0")
    writer.close()
    await writer.wait_closed()
    await keeper.stop(spec.id, timedelta(seconds=5))
    await keeper.unlisten("web.http~trial")
    await keeper.unlisten("web.http~trial")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))
