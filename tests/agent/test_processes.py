"""The client against a real keeper; what the verbs do is tested with the keeper."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from agent import processes
from agent.processes import line
from tests.agent.keeper import node
from tests.agent.keeper.conftest import a_node
from tests.agent.keeper.test_instances import refused

__all__ = ["a_node"]


async def test_a_lost_keeper_fails_what_waits_and_whatever_is_asked_after_it(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    spec = a_node.release("1.0.0", source="import time\ntime.sleep(600)")
    await keeper.start(spec)
    waiting = asyncio.ensure_future(keeper.say(spec.id, processes.Word.STATUS, node.WORD_TIMEOUT))
    await keeper.hello()
    a_node.kill()
    with refused("keeper_gone"):
        await waiting
    await keeper.closed.wait()
    with refused("keeper_gone"):
        await keeper.hello()


async def test_a_keeper_that_is_not_there_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    with refused("keeper_gone"):
        await processes.Keeper.connect(tmp_path / "none", within=timedelta(seconds=0.1))


async def test_facts_name_the_life_of_the_keeper(a_node: node.Node) -> None:
    first = await (await a_node.client()).hello()
    assert first == await (await a_node.client()).hello()
    a_node.kill()
    a_node.start()
    second = await (await a_node.client()).hello()
    assert first.instance_token != second.instance_token
    assert first.boot_id == second.boot_id


async def test_events_past_the_bound_push_out_the_oldest(a_node: node.Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "EVENTS_MAX", 1)
    keeper = await a_node.attached()
    made = await a_node.serving(keeper, "1.0.0")
    event = await keeper.events.get()
    assert (event.instance.id, event.instance.state, event.was) == (
        made.id,
        processes.InstanceState.ACTIVE,
        processes.InstanceState.PREPARED,
    )


ECHOES = """
import json, os, socket
listener = socket.socket(fileno=int(os.environ["INSTAR_CONTROL_FD"]))
listener.listen()
while True:
    connected, _ = listener.accept()
    while datagram := connected.recv(16384):
        asked = json.loads(datagram)
        said = {"word": asked["word"], **asked.get("body", {})}
        answer = {"id": asked["id"], "ok": asked["word"] != "module.fail", "error": "as asked", "body": said}
        connected.send(json.dumps({**answer, "state": "prepared", "protocol": 1}).encode())
"""


async def test_words_for_modules_are_passed_on_with_their_body_and_so_is_the_answer(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    spec = a_node.release("1.0.0", source=ECHOES)
    await node.prepared(keeper, spec)
    answer = await keeper.say(spec.id, "module.load", node.WORD_TIMEOUT, {"state": {"count": 3}})
    assert answer.body == {"word": "module.load", "state": {"count": 3}}
    assert (await keeper.say(spec.id, processes.Word.STATUS, node.WORD_TIMEOUT)).body == {"word": "status"}
    with refused("instance_refused"):
        await keeper.say(spec.id, "module.fail", node.WORD_TIMEOUT)
    with refused("invalid_request"):
        await keeper.say(spec.id, "load", node.WORD_TIMEOUT)
    with refused("invalid_request"):
        await keeper.say(spec.id, "module.load", node.WORD_TIMEOUT, {"state": "x" * (13 << 10)})
