"""Several workers that are one instance for the keeper."""

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from agent import processes
from tests.agent.keeper import node
from tests.instar_handover import http_load, swaps

COUNT = 3


def of(a_node: node.Node, **environment: str) -> swaps.Make:
    environment = {"WORKERS": str(COUNT), **environment}
    return swaps.maker(a_node, "stream_service.py", ("python", "stream_service.py"), environment=environment)


def workers_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def ask(address: tuple[str, int], path: str = "/") -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None
        return await reader.readexactly(int(length[1]))
    finally:
        writer.close()


async def replacement_of(pid: int, before: list[int]) -> int:
    """Wait for a worker that was not there before."""

    async def is_there() -> bool:
        return len(set(workers_of(pid)) - set(before)) == 1

    await node.until(is_there)
    return (set(workers_of(pid)) - set(before)).pop()


async def test_workers_are_swapped_together_and_their_sum_is_told(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    make = of(a_node)
    old = await swaps.serving(keeper, make(swaps.OLD))
    pids = workers_of(old.pid)
    assert len(pids) == COUNT
    async with http_load.on(a_node.address, [http_load.PLAIN] * 4) as seen:
        await seen.until_served(swaps.OLD, 100)
        new = await swaps.switched(keeper, make(swaps.NEW), old)
        await seen.until_served(swaps.NEW, 50)
        ended = await swaps.committed(keeper, new, old)
        await seen.until_served(swaps.NEW, 20)
    assert seen.failures == []
    assert (ended.exit_code, ended.in_flight, ended.accepted) == (0, 0, 0)
    assert ended.served == seen.by_version[swaps.OLD]
    assert all(node.is_over(pid) for pid in pids)


async def test_an_aborted_swap_of_workers_fails_no_request(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    make = of(a_node)
    old = await swaps.serving(keeper, make(swaps.OLD))
    async with http_load.on(a_node.address, [http_load.PLAIN] * 4) as seen:
        new = await swaps.switched(keeper, make(swaps.NEW), old)
        await seen.until_served(swaps.NEW, 50)
        await swaps.aborted(keeper, new, old)
        await seen.until_served(swaps.OLD, 50)
    assert seen.failures == []


async def test_a_worker_that_dies_is_replaced_and_serves_and_what_it_served_is_not_forgotten(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    old = await swaps.serving(keeper, of(a_node)(swaps.OLD))
    before = workers_of(old.pid)
    for _ in range(10):
        await ask(a_node.address)
    await keeper.say(old.id, processes.Word.STATUS, node.WORD_TIMEOUT)
    assert (await node.find(keeper, old.id)).served == 10
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await ask(a_node.address, "/die")
    replacement = await replacement_of(old.pid, before)

    async def has_served() -> bool:
        return str(replacement).encode() in await ask(a_node.address)

    await node.until(has_served)
    await keeper.say(old.id, processes.Word.STATUS, node.WORD_TIMEOUT)
    shown = await node.find(keeper, old.id)
    assert shown.served > 10
    assert (shown.restarts, shown.worker_deaths) == (0, 1)


async def test_a_worker_that_dies_while_preparing_fails_the_preparation(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    spec = of(a_node, FAILS_AS=str(a_node.run / "failed"))(swaps.OLD)
    await keeper.start(spec)
    ended = await node.reaches(keeper, spec.id, processes.InstanceState.EXITED)
    assert ended.exit_code == 1


async def test_an_instance_whose_workers_all_die_ends(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    made = await node.prepared(keeper, of(a_node)(swaps.OLD))
    for pid in workers_of(made.pid):
        os.kill(pid, signal.SIGKILL)
    assert (await node.reaches(keeper, made.id, processes.InstanceState.EXITED)).exit_code == 1


async def test_workers_whose_parent_is_killed_end_though_there_is_no_keeper(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    old = await swaps.serving(keeper, of(a_node)(swaps.OLD))
    pids = workers_of(old.pid)
    a_node.kill()
    os.kill(old.pid, signal.SIGKILL)
    assert all(node.is_over(pid) for pid in pids)


async def test_a_worker_that_dies_while_paused_does_not_keep_the_instance_from_resuming(a_node: node.Node) -> None:
    keeper = await a_node.attached()
    old = await swaps.serving(keeper, of(a_node)(swaps.OLD))
    await keeper.say(old.id, processes.Word.PAUSE, node.WORD_TIMEOUT)
    victim, *others = workers_of(old.pid)
    os.kill(victim, signal.SIGKILL)
    assert node.is_over(victim)
    await keeper.say(old.id, processes.Word.RESUME, node.WORD_TIMEOUT)
    replacement = await replacement_of(old.pid, [victim, *others])

    async def has_served() -> bool:
        return str(replacement).encode() in await ask(a_node.address)

    await node.until(has_served)
