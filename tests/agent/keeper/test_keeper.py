import contextlib
import json
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

import agent
from agent import processes
from tests.agent.keeper import node
from tests.agent.keeper.test_instances import refused

RESIDENT_MAX_KIB = 16 * 1024  # a guarantee of the product
AGENT = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(600)"


def resident_kib(pid: int) -> int:
    """Read how much memory a process holds."""
    (line,) = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS:")]
    return int(line.split()[1])


def pids(path: Path) -> list[int]:
    """Read who has started, in order."""
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_it_stays_within_its_memory_with_two_components(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    old = await a_node.serving(keeper, "1.0.0")
    await node.prepared(keeper, a_node.release("1.1.0"))
    for _ in range(100):
        await keeper.inspect()
        await keeper.say(old.id, processes.Word.STATUS, node.WORD_TIMEOUT)
    assert resident_kib((await keeper.hello()).pid) <= RESIDENT_MAX_KIB


async def test_a_second_keeper_of_one_run_directory_refuses_to_run(a_node: node.Node) -> None:
    first = await a_node.client()
    a_node_second = subprocess.run(
        [sys.executable, "-S", "-P", "-m", "agent.keeper", "--state", str(a_node.state), "--run", str(a_node.run)],
        env={"PYTHONPATH": str(Path(agent.__file__).parents[1])},
        capture_output=True,
        check=False,
        timeout=node.PATIENCE_SECONDS,
    )
    assert (a_node_second.returncode, a_node_second.stderr[:20]) == (1, b"cannot run a keeper ")
    await first.hello()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "r"], b"usage: "),
        (["--state", "s", "--run", "r", "agent"], b"usage: "),
        (["--state", "s", "--run", f"/tmp/{'r' * 100}"], b"cannot run a keeper in /tmp/"),  # noqa: S108  # never made
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_made(arguments: list[str], words: bytes) -> None:
    argv = [sys.executable, "-S", "-P", "-m", "agent.keeper", *arguments]
    environment = {"PYTHONPATH": str(Path(agent.__file__).parents[1])}
    ended = subprocess.run(argv, env=environment, capture_output=True, check=False, timeout=node.PATIENCE_SECONDS)
    assert (ended.returncode, ended.stderr[: len(words)]) == (2, words)


async def test_it_watches_the_agent_and_sigterm_ends_both_but_no_component(a_node: node.Node) -> None:
    a_node.kill()
    told = a_node.state / "agents"
    a_node.start(sys.executable, "-c", AGENT, str(told))
    keeper = await a_node.attached()
    component = await a_node.serving(keeper, "1.0.0")

    async def first_started() -> bool:
        return len(pids(told)) == 1

    async def second_started() -> bool:
        return len(pids(told)) == 2

    await node.until(first_started)
    node.kill(pids(told)[0])
    await node.until(second_started)
    assert a_node.process is not None
    a_node.process.send_signal(signal.SIGTERM)
    assert a_node.process.wait(node.PATIENCE_SECONDS) == 0
    assert node.is_over(pids(told)[1])
    a_node.start()
    adopted = await node.find(await a_node.client(), component.id)
    assert (adopted.pid, adopted.state) == (component.pid, processes.InstanceState.ACTIVE)


async def test_records_of_another_boot_and_rubbish_are_swept_away(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    component = await a_node.serving(keeper, "1.0.0")
    record = a_node.run / f"{component.id}.json"
    a_node.kill()
    node.kill(component.pid)
    record.write_text(json.dumps({**json.loads(record.read_text()), "boot_id": "another"}))
    (a_node.run / "rubbish.json").write_text("{")
    a_node.start()
    keeper = await a_node.client()
    assert (await keeper.inspect()).instances == ()
    assert [path.name for path in a_node.run.iterdir() if not path.name.startswith("keeper.")] == []


async def test_a_component_of_a_keeper_of_version_1_is_adopted_from_its_record(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    component = await a_node.serving(keeper, "1.0.0")
    path = a_node.run / f"{component.id}.json"
    a_node.kill()
    record = json.loads(path.read_text())
    for name in ("owner", "cgroup", "state", "is_parked", "early_deaths"):
        del record[name]
    for name in ("protocol", "signals", "is_exclusive", "secrets", "on_agent_stop", "environment_dir"):
        del record["instance"][name]
    for binding in record["bindings"]:
        del binding["bound"]
    path.write_text(json.dumps(record))
    a_node.start()
    keeper = await a_node.attached()
    adopted = await node.find(keeper, component.id)
    assert (adopted.pid, adopted.state, adopted.is_kept) == (component.pid, processes.InstanceState.ACTIVE, True)
    await keeper.stop(component.id, timedelta(seconds=5))
    assert node.is_over(component.pid)


async def test_a_component_that_died_with_the_keeper_is_shown_as_exited_and_not_kept(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    component = await a_node.serving(keeper, "1.0.0")
    a_node.kill()
    node.kill(component.pid)
    a_node.start()
    found = await node.find(await a_node.client(), component.id)
    assert (found.state, found.is_kept, found.exit_code) == (processes.InstanceState.EXITED, False, None)


async def test_a_name_keeps_its_address_while_it_is_used(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    unix = f"unix:{a_node.run / 'web'}"
    await keeper.listen("web.admin", unix)
    await keeper.listen("web.admin", unix)
    await keeper.listen("web.admin", f"unix:{a_node.run / 'web2'}")  # nobody uses it
    await a_node.serving(keeper, "1.0.0")
    with refused("socket_in_use"):
        await keeper.listen("web.http", unix)
    for address in ("127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999"):
        with refused("invalid_request"):
            await keeper.listen("web.third", address)
    with refused("listen_failed"):
        await keeper.listen("web.third", f"127.0.0.1:{a_node.address[1]}")


async def test_bad_requests_are_answered_by_field_and_the_connection_goes_on(a_node: node.Node) -> None:
    await a_node.client()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(node.PATIENCE_SECONDS)
        caller.connect(str(a_node.run / "keeper.sock"))
        answers = caller.makefile("rb")
        for request, code, words in (
            (b"rubbish", "invalid_request", "cannot read the request"),
            (b"[]", "invalid_request", "not an object"),
            (b'{"id": 1, "do": "jump"}', "unknown_verb", "jump"),
            (b'{"id": 2, "do": "stop", "instance_id": "../x", "timeout_seconds": 1}', "invalid_request", "instance_id"),
            (
                b'{"id": 3, "do": "stop", "instance_id": "x", "timeout_seconds": -1}',
                "invalid_request",
                "timeout_seconds",
            ),
            (b'{"id": 4, "do": "listen", "name": "x", "address": "y", "backlog": true}', "invalid_request", "backlog"),
            (b'{"id": 5, "do": "start", "instance": []}', "invalid_request", "instance"),
            (b'{"id": 6, "do": "say", "instance_id": "x", "word": "jump"}', "invalid_request", "word"),
            (b'{"id": 7, "do": "verify", "digest": "sha256:0"}', "invalid_request", "digest"),
        ):
            caller.sendall(request + b"\n")
            error = json.loads(answers.readline())["error"]
            assert error["code"] == code
            assert words in error["message"]
        # Whether the end or a reset comes first depends on what the keeper had read by then.
        with answers, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            caller.sendall(b"x" * (300 << 10))
            assert answers.readline() == b""


async def test_the_verifier_runs_as_a_child_and_its_words_come_back(a_node: node.Node) -> None:
    keeper = await a_node.client()
    verdict = await keeper.verify(f"sha256:{'0' * 64}")  # nothing of that digest was fetched
    assert verdict.exit_code not in (0, None)
    assert "error" in json.loads(verdict.output)


async def test_a_component_that_never_answers_is_adopted_all_the_same_and_its_listener_opened_again(
    a_node: node.Node,
) -> None:
    keeper = await a_node.attached()
    started = await keeper.start(a_node.release("1.0.0", source="import time\ntime.sleep(600)"))
    await keeper.keep("web", started.id)
    a_node.kill()
    a_node.start()
    keeper = await a_node.client()
    adopted = await node.find(keeper, started.id)
    assert (adopted.pid, adopted.state) == (started.pid, processes.InstanceState.STARTING)
    node.kill(started.pid)  # the last process that held the listener

    async def is_started_again() -> bool:
        found = await node.find(keeper, started.id)
        return found.restarts == 1 and found.state is processes.InstanceState.STARTING

    await node.until(is_started_again)
    await keeper.listen("web.http", f"127.0.0.1:{a_node.address[1]}")
