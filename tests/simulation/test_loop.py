from __future__ import annotations

import asyncio
import time

import pytest

from tests.simulation import loop as loops


def run_with(seed: int) -> tuple[str, list[int]]:
    loop = loops.VirtualLoop(seed)
    order: list[int] = []

    async def worker(number: int) -> None:
        for _ in range(3):
            await asyncio.sleep(loop.random.uniform(0, 10))
            order.append(number)
            loop.record(f"worker {number}")

    async def everything() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(worker(number))

    try:
        loop.run_until_complete(everything())
    finally:
        loop.close()
    return loop.trace_hash, order


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    assert run_with(1) == run_with(1)
    assert run_with(1) != run_with(2)


def test_an_hour_passes_without_an_hour_of_waiting() -> None:
    loop = loops.VirtualLoop(1)
    began = time.monotonic()
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() >= 3600
    assert time.monotonic() - began < 60
    loop.close()


def test_waiting_for_what_never_comes_is_an_error_at_once() -> None:
    loop = loops.VirtualLoop(1)
    waiting = loop.create_future()
    with pytest.raises(loops.DeadlockError):
        loop.run_until_complete(waiting)
    loop.close()
