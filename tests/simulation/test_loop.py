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


def test_a_process_stands_still_while_others_go_on_and_then_does_what_was_due() -> None:
    loop = loops.VirtualLoop(1)
    order: list[str] = []

    async def tick(name: str) -> None:
        loops.process.set(name)
        for _ in range(3):
            await asyncio.sleep(1)
            order.append(name)

    async def everything() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(tick("still"))
            group.create_task(tick("other"))
            await asyncio.sleep(0.5)
            loop.stand_still("still")
            await asyncio.sleep(5)
            assert order == ["other"] * 3
            loop.go_on("still")

    loop.run_until_complete(everything())
    loop.close()
    assert order == ["other"] * 3 + ["still"] * 3


def test_a_process_is_stopped_at_the_very_step_that_was_named() -> None:
    loop = loops.VirtualLoop(1)
    steps: list[int] = []

    async def walk() -> None:
        loops.process.set("walker")
        for number in range(10):
            await asyncio.sleep(1)
            steps.append(number)

    async def everything() -> None:
        walking = asyncio.get_running_loop().create_task(walk())
        await asyncio.sleep(0.5)
        # Each second has two steps: the timer, and what it wakes.
        loop.stop_within("walker", 6, lambda: steps.append(-1))
        await asyncio.sleep(20)
        walking.cancel()
        loop.go_on("walker")

    loop.run_until_complete(everything())
    loop.close()
    assert steps == [0, 1, 2, -1]
