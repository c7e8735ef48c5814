"""Marks where only one instance of the component may run, and an agent that hangs."""

import asyncio
import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest

from agent import processes
from agent.keeper import fields, instances, listeners, lives, loop, marks, places
from tests.agent.keeper import node
from tests.agent.keeper.test_instances import refused
from tests.agent.keeper.test_plain import kept, plain

LONG = timedelta(minutes=5)
ENDS_SLOWLY = """
import os, signal, sys, time
os.mkdir(os.environ["LOCK"])
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), os.rmdir(os.environ["LOCK"]), sys.exit(0)))
print("alone", flush=True)
time.sleep(600)
"""


def alone(made: node.Node, version: str, source: str = ENDS_SLOWLY) -> processes.InstanceSpec:
    """Make a release of a program of which only one may run."""
    environment = {"LOCK": str(made.state / "lock")}
    return plain(made, version, source, is_exclusive=True, sockets=[], environment=environment)


async def runs(made: node.Node, instance_id: str, lives_count: int = 1) -> None:
    """Wait until a program has said in so many lives that it is alone."""

    async def has_said() -> bool:
        return (made.run / f"{instance_id}.log").read_text() == "alone\n" * lives_count

    await node.until(has_said)


async def marked(made: node.Node, keeper: processes.Keeper, deadline: timedelta) -> tuple[str, str]:
    """Put the mark, park the old instance and start the new one."""
    old = await kept(keeper, alone(made, "1.0.0"))
    await runs(made, old.id)
    spec = alone(made, "1.1.0")
    await keeper.mark("op-1", spec.id, old.id, deadline)
    await keeper.say(old.id, processes.Word.PARK, node.WORD_TIMEOUT)
    await keeper.start(dataclasses.replace(spec, operation_id="op-1"))
    await runs(made, spec.id)
    return spec.id, old.id


async def is_back(made: node.Node, keeper: processes.Keeper, old_id: str) -> None:
    """Wait until the old instance runs and the mark is gone; it would have crashed had it not been alone."""

    async def is_served() -> bool:
        inspection = await keeper.inspect()
        return not inspection.marks and (await node.find(keeper, old_id)).state is processes.InstanceState.ACTIVE

    await node.until(is_served)
    await runs(made, old_id, 2)
    assert (await node.find(keeper, old_id)).restarts == 0


async def test_past_the_deadline_the_new_one_has_ended_before_the_old_one_is_launched(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    watcher = await a_node.client()
    new_id, old_id = await marked(a_node, keeper, timedelta(seconds=2))
    await keeper.close()
    await is_back(a_node, watcher, old_id)
    assert new_id not in {each.id for each in (await watcher.inspect()).instances}
    (outcome,) = (await watcher.inspect()).outcomes
    assert (outcome.decision, outcome.cause) == (processes.Decision.ROLLED_BACK, processes.Cause.AGENT_AWAY)


async def test_a_new_one_that_dies_gives_way_to_the_old_one(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    new_id, old_id = await marked(a_node, keeper, LONG)
    new = await node.find(keeper, new_id)
    (a_node.state / "lock").rmdir()  # as the program would have
    node.kill(new.pid)
    await is_back(a_node, keeper, old_id)
    assert (await node.find(keeper, new_id)).signal == 9
    assert (await keeper.commit("op-1", new_id)).cause is processes.Cause.INSTANCE_DIED
    with refused("mark_conflict"):
        await keeper.start(dataclasses.replace(alone(a_node, "1.1.0"), operation_id="op-1"))


async def test_a_new_one_that_was_never_started_gives_way_at_the_deadline(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    watcher = await a_node.client()
    old = await kept(keeper, alone(a_node, "1.0.0"))
    await runs(a_node, old.id)
    await keeper.mark("op-1", "web-new", old.id, timedelta(seconds=2))
    await keeper.say(old.id, processes.Word.PARK, node.WORD_TIMEOUT)
    await keeper.close()
    await is_back(a_node, watcher, old.id)


async def test_a_killed_keeper_leaves_the_going_back_to_the_next_one(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    new_id, old_id = await marked(a_node, keeper, timedelta(seconds=2))
    a_node.kill()
    a_node.start()
    watcher = await a_node.client()
    assert (await node.find(watcher, new_id)).state is processes.InstanceState.ACTIVE
    await is_back(a_node, watcher, old_id)


async def test_committed_the_parked_one_is_gone_once_it_is_stopped(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    new_id, old_id = await marked(a_node, keeper, LONG)
    assert (await keeper.commit("op-1", new_id)).decision is processes.Decision.COMMITTED
    await keeper.keep("web", new_id)
    await keeper.stop(old_id, timedelta(seconds=1))
    (left,) = (await keeper.inspect()).instances
    assert (left.id, left.is_kept, left.state) == (new_id, True, processes.InstanceState.ACTIVE)


@pytest.mark.parametrize(("silence_seconds", "is_decided"), [(0.0, False), (marks.SILENCE_MAX_SECONDS, True)])
async def test_past_the_deadline_an_attached_agent_that_says_nothing_counts_as_away(
    tmp_path: Path, silence_seconds: float, *, is_decided: bool
) -> None:
    on = loop.Loop()
    where = places.Places(tmp_path, tmp_path)
    held = listeners.Listeners(lambda _: False, _ignore)
    live = instances.Instances(on, where, held, lives.Listening(_ignore, _ignore, _ignore))
    marked_by = marks.Marks(on, where, live, lambda: silence_seconds)
    marked_by.put("op-1", "web-new", None, 0.0)
    on.call_later(0.2, on.stop)
    await asyncio.to_thread(on.run)
    standing, outcomes = marked_by.bodies()
    decided: list[fields.Body] = outcomes
    assert (bool(decided), bool(standing)) == (is_decided, not is_decided)


def _ignore(*_: object) -> None:
    """Nobody listens."""
