import os
import signal
from datetime import timedelta

import pytest

from agent import processes
from tests.agent.keeper import node
from tests.agent.keeper.test_instances import refused

LONG = timedelta(minutes=5)


async def test_a_commit_is_answered_the_same_however_often_it_is_asked(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    new = await node.prepared(keeper, a_node.release("1.0.0"))
    await keeper.mark("op-1", new.id, None, LONG)
    first = await keeper.commit("op-1", new.id)
    assert first == await keeper.commit("op-1", new.id)
    assert first.decision is processes.Decision.COMMITTED
    assert (await keeper.inspect()).marks == ()


async def test_a_commit_of_a_dead_instance_is_a_roll_back_even_before_its_death_was_noticed(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    new = await node.prepared(keeper, a_node.release("1.0.0"))
    await keeper.mark("op-1", new.id, None, LONG)
    node.kill(new.pid)
    assert node.is_over(new.pid)
    outcome = await keeper.commit("op-1", new.id)
    assert (outcome.decision, outcome.cause) == (processes.Decision.ROLLED_BACK, processes.Cause.INSTANCE_DIED)


async def test_an_install_that_the_agent_leaves_alone_is_stopped_at_the_deadline(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    watcher = await a_node.client()
    new = await node.prepared(keeper, a_node.release("1.0.0"))
    await keeper.mark("op-1", new.id, None, timedelta(seconds=0.1))
    await keeper.close()
    await node.is_gone(watcher, new.id)
    assert (await watcher.commit("op-1", new.id)).decision is processes.Decision.ROLLED_BACK


async def test_the_new_instance_goes_on_serving_when_the_old_one_cannot_come_back(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    watcher = await a_node.client()
    old = await node.prepared(keeper, a_node.release("1.0.0"))
    new = await node.prepared(keeper, a_node.release("1.1.0"))
    await keeper.say(new.id, processes.Word.ACTIVATE, node.WORD_TIMEOUT)
    await keeper.mark("op-1", new.id, old.id, timedelta(seconds=0.1))
    node.kill(old.pid)
    await node.reaches(keeper, old.id, processes.InstanceState.EXITED)
    await keeper.close()

    async def is_decided() -> bool:
        inspection = await watcher.inspect()
        return bool(inspection.outcomes) and not inspection.marks

    await node.until(is_decided)
    assert (await watcher.say(new.id, processes.Word.STATUS, node.WORD_TIMEOUT)).state is processes.InstanceState.ACTIVE


async def test_an_old_instance_that_dies_too_is_started_again_before_the_new_one_is_retired(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    watcher = await a_node.client()
    old = await a_node.serving(keeper, "1.0.0")
    new = await node.prepared(keeper, a_node.release("1.1.0"))
    await keeper.mark("op-1", new.id, old.id, timedelta(seconds=0.1))
    await keeper.say(new.id, processes.Word.ACTIVATE, node.WORD_TIMEOUT)
    await keeper.say(old.id, processes.Word.PAUSE, node.WORD_TIMEOUT)
    node.kill(old.pid)
    await keeper.close()
    await node.is_gone(watcher, new.id)
    assert (await node.find(watcher, old.id)).state is processes.InstanceState.ACTIVE


async def test_marks_that_contradict_each_other_are_refused(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    new = await node.prepared(keeper, a_node.release("1.0.0"))
    other = await node.prepared(keeper, a_node.release("1.1.0"))
    await keeper.mark("op-1", new.id, None, LONG)
    await keeper.mark("op-1", new.id, None, LONG)
    with refused("mark_conflict"):
        await keeper.mark("op-1", other.id, None, LONG)
    with refused("invalid_request"):
        await keeper.commit("op-1", other.id)
    with refused("unknown_instance"):
        await keeper.mark("op-2", new.id, "nobody", LONG)
    with refused("mark_unknown"):
        await keeper.commit("op-3", new.id)
    await keeper.commit("op-1", new.id)
    with refused("mark_conflict"):
        await keeper.mark("op-1", new.id, None, LONG)


@pytest.mark.parametrize("is_marked", [True, False])
async def test_unmark_forgets_and_forbids_a_later_commit(a_node: node.Node, *, is_marked: bool) -> None:
    keeper = await a_node.attached()
    new = await node.prepared(keeper, a_node.release("1.0.0"))
    if is_marked:
        await keeper.mark("op-1", new.id, None, LONG)
    await keeper.unmark("op-1")
    if is_marked:
        assert (await keeper.commit("op-1", new.id)).decision is processes.Decision.ROLLED_BACK
    else:
        with refused("mark_unknown"):
            await keeper.commit("op-1", new.id)


async def test_the_new_instance_serves_on_until_the_old_one_has_said_that_it_resumed(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    watcher = await a_node.client()
    old = await a_node.serving(keeper, "1.0.0")
    new = await node.prepared(keeper, a_node.release("1.1.0"))
    await keeper.mark("op-1", new.id, old.id, timedelta(seconds=0.1))
    await keeper.say(new.id, processes.Word.ACTIVATE, node.WORD_TIMEOUT)
    await keeper.say(old.id, processes.Word.PAUSE, node.WORD_TIMEOUT)
    os.kill(old.pid, signal.SIGSTOP)  # it cannot answer
    try:
        await keeper.close()

        async def is_rolling_back() -> bool:
            return any(mark.is_rolling_back for mark in (await watcher.inspect()).marks)

        await node.until(is_rolling_back)
        told = await watcher.say(new.id, processes.Word.STATUS, node.WORD_TIMEOUT)
    finally:
        os.kill(old.pid, signal.SIGCONT)
    assert told.state is processes.InstanceState.ACTIVE
    await node.is_gone(watcher, new.id)
    assert (await node.find(watcher, old.id)).state is processes.InstanceState.ACTIVE
