"""Swaps of a real service under a load that forgives nothing, with everything killed that can be killed."""

import time
from datetime import timedelta

from agent import processes
from tests.agent.keeper import load, node

LONG = timedelta(minutes=5)
KILL_FLIGHT_SECONDS = 0.1  # a request that began this long after a kill cannot have been in the killed process
OLD = "1.0.0"
NEW = "1.1.0"


async def switched(
    keeper: processes.Keeper, a_node: node.Node, old: processes.Instance, deadline: timedelta = LONG
) -> processes.Instance:
    """Start the new version, mark it, activate it and pause the old one."""
    new = await node.prepared(keeper, a_node.release(NEW))
    await keeper.mark("op-1", new.id, old.id, deadline)
    await keeper.say(new.id, processes.Word.ACTIVATE, node.WORD_TIMEOUT)
    await keeper.say(old.id, processes.Word.PAUSE, node.WORD_TIMEOUT)
    return await node.find(keeper, new.id)


async def test_a_swap_fails_no_request_and_the_old_instance_ends_by_itself(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    old = await a_node.serving(keeper, OLD)
    async with load.on(a_node.address) as seen:
        await seen.until_served(OLD, 50)
        new = await switched(keeper, a_node, old)
        await seen.until_served(NEW, 50)
        outcome = await keeper.commit("op-1", new.id)
        await keeper.keep("web", new.id)
        await keeper.say(old.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
        ended = await node.reaches(keeper, old.id, processes.InstanceState.EXITED)
        await seen.until_served(NEW, 50)
    assert outcome.decision is processes.Decision.COMMITTED
    assert (ended.exit_code, ended.restarts) == (0, 0)
    assert seen.failures == []


async def test_an_aborted_swap_fails_no_request(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    old = await a_node.serving(keeper, OLD)
    async with load.on(a_node.address) as seen:
        new = await switched(keeper, a_node, old)
        await seen.until_served(NEW, 50)
        await keeper.say(old.id, processes.Word.RESUME, node.WORD_TIMEOUT)
        await keeper.say(new.id, processes.Word.PAUSE, node.WORD_TIMEOUT)
        await keeper.say(new.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
        await node.is_gone(keeper, new.id)
        await keeper.unmark("op-1")
        await keeper.stop(new.id, timedelta(seconds=5))
        await seen.until_served(OLD, 50)
    assert seen.failures == []
    assert (await keeper.commit("op-1", new.id)).decision is processes.Decision.ROLLED_BACK


async def test_a_new_instance_that_is_killed_before_the_commit_loses_only_what_was_in_flight_in_it(
    a_node: node.Node,
) -> None:
    keeper = await a_node.attached()
    old = await a_node.serving(keeper, OLD)
    async with load.on(a_node.address) as seen:
        new = await switched(keeper, a_node, old)
        await seen.until_served(NEW, 50)
        killed_at = time.monotonic()
        node.kill(new.pid)
        await seen.until_served(OLD, 50)
        outcome = await keeper.commit("op-1", new.id)
    assert outcome.decision is processes.Decision.ROLLED_BACK
    assert (await node.find(keeper, old.id)).state is processes.InstanceState.ACTIVE
    assert (await keeper.inspect()).marks == ()
    assert [each for each in seen.failures if each.began_at > killed_at + KILL_FLIGHT_SECONDS] == []


async def test_an_agent_that_stays_away_past_the_deadline_loses_the_swap_and_no_request(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    old = await a_node.serving(keeper, OLD)
    watcher = await a_node.client()
    async with load.on(a_node.address) as seen:
        new = await switched(keeper, a_node, old, deadline=timedelta(seconds=0.5))
        await seen.until_served(NEW, 20)
        await keeper.close()
        await node.is_gone(watcher, new.id)
        await seen.until_served(OLD, 50)
    inspection = await watcher.inspect()
    (outcome,) = inspection.outcomes
    assert (outcome.decision, outcome.cause) == (processes.Decision.ROLLED_BACK, processes.Cause.AGENT_AWAY)
    assert (await node.find(watcher, old.id)).state is processes.InstanceState.ACTIVE
    assert seen.failures == []


async def test_an_attached_agent_may_take_longer_than_the_deadline(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    old = await a_node.serving(keeper, OLD)
    new = await switched(keeper, a_node, old, deadline=timedelta(0))

    async def is_late() -> bool:
        return (await keeper.inspect()).marks[0].remaining < timedelta(seconds=-0.1)

    await node.until(is_late)
    assert (await keeper.commit("op-1", new.id)).decision is processes.Decision.COMMITTED


async def test_a_killed_keeper_is_followed_by_one_that_adopts_and_swaps_without_a_failed_request(
    a_node: node.Node,
) -> None:
    first = await a_node.attached()
    old = await a_node.serving(first, OLD)
    async with load.on(a_node.address) as seen:
        await seen.until_served(OLD, 20)
        a_node.kill()
        await first.closed.wait()
        await seen.until_served(OLD, 50)
        a_node.start()
        keeper = await a_node.attached()  # listens for the same name at the same address: it has the listener
        adopted = await node.find(keeper, old.id)
        new = await switched(keeper, a_node, old)
        await seen.until_served(NEW, 50)
        await keeper.commit("op-1", new.id)
        await keeper.keep("web", new.id)
        await keeper.say(old.id, processes.Word.DRAIN, node.WORD_TIMEOUT)
        ended = await node.reaches(keeper, old.id, processes.InstanceState.EXITED)
        await seen.until_served(NEW, 50)
    assert (adopted.pid, adopted.state, adopted.is_kept) == (old.pid, processes.InstanceState.ACTIVE, True)
    assert (ended.exit_code, ended.signal) == (None, None)  # not the keeper's child: nobody can know
    assert seen.failures == []


async def test_a_new_instance_that_dies_while_there_is_no_keeper_is_rolled_back_by_the_next_keeper(
    a_node: node.Node,
) -> None:
    first = await a_node.attached()
    old = await a_node.serving(first, OLD)
    new = await switched(first, a_node, old)
    a_node.kill()
    node.kill(new.pid)
    a_node.start()
    keeper = await a_node.client()
    await node.reaches(keeper, old.id, processes.InstanceState.ACTIVE)
    outcome = await keeper.commit("op-1", new.id)
    assert (outcome.decision, outcome.cause) == (processes.Decision.ROLLED_BACK, processes.Cause.INSTANCE_DIED)


async def test_what_kills_every_instance_and_the_keeper_is_nobodys_fault(a_node: node.Node) -> None:
    first = await a_node.attached()
    old = await a_node.serving(first, OLD)
    new = await switched(first, a_node, old)
    a_node.kill()
    node.kill(new.pid)
    node.kill(old.pid)
    a_node.start()
    outcome = await (await a_node.client()).commit("op-1", new.id)
    assert (outcome.decision, outcome.cause) == (processes.Decision.ROLLED_BACK, processes.Cause.ALL_DIED)


async def test_a_committed_swap_stays_committed_for_the_next_keeper(a_node: node.Node) -> None:
    first = await a_node.attached()
    old = await a_node.serving(first, OLD)
    new = await switched(first, a_node, old)
    await first.commit("op-1", new.id)
    a_node.kill()
    a_node.start()
    keeper = await a_node.client()
    inspection = await keeper.inspect()
    assert inspection.marks == ()
    assert [each.decision for each in inspection.outcomes] == [processes.Decision.COMMITTED]
    assert (await keeper.commit("op-1", new.id)).decision is processes.Decision.COMMITTED
    assert (await node.find(keeper, old.id)).state is processes.InstanceState.PAUSED
