"""Any program: the whole of it ends with its instance, and consumers overlap where they may."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from agent.drivers import conformance, process_table
from agent.drivers.conformance import stage
from tests.drivers import process as fixtures
from tests.drivers import programs, sources

FAMILY = """
import os, signal, time

if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(os.environ["LOCKS"] + "/child.part", "w") as opened:
        opened.write(str(os.getpid()))
    os.rename(os.environ["LOCKS"] + "/child.part", os.environ["LOCKS"] + "/child")
while True:
    time.sleep(60)
"""


@dataclass
class Watch:
    """What consumers were seen."""

    seen: set[frozenset[str]]
    is_over: bool = False


def a_worker(folder: Path, source: str, *, has_overlap: bool) -> programs.Worker:
    return programs.Worker("worker", source.encode(), folder, has_overlap)


async def test_a_child_in_a_session_of_its_own_that_ignores_sigterm_does_not_outlive_its_instance(
    tmp_path: Path,
) -> None:
    fixture = a_worker(tmp_path, FAMILY, has_overlap=False)
    async with stage.on(fixtures, fixture) as on:
        change = on.change(on.launch("1.0.0"), None)
        await on.switch(change)
        assert await stage.until(lambda: has_child(tmp_path))
        child = the_child(tmp_path)
        assert process_table.read(child) is not None
        await on.driver.gc("worker", ())

        async def is_gone() -> bool:
            return process_table.read(child) is None

        assert await stage.until(is_gone)


async def test_with_overlap_there_is_a_consumer_at_each_moment(tmp_path: Path) -> None:
    fixture = a_worker(tmp_path, sources.CONSUMER, has_overlap=True)
    watch = Watch(set())
    async with stage.on(fixtures, fixture) as on:
        old = await on.installed("1.0.0")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_watch(fixture, watch))
            aborted = on.change(on.launch("1.1.0"), old)
            await on.switch(aborted)
            await on.call("abort", aborted)
            change = on.change(on.launch("1.1.0"), old)
            await on.switch(change)
            await on.committed(change)
            await on.call("drain", change)
            watch.is_over = True
    assert frozenset() not in watch.seen
    assert frozenset({"1.1.0"}) in watch.seen


async def test_without_overlap_there_are_never_two(tmp_path: Path) -> None:
    fixture = a_worker(tmp_path, sources.CONSUMER, has_overlap=False)
    watch = Watch(set())
    async with stage.on(fixtures, fixture) as on:
        old = await on.installed("1.0.0")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_watch(fixture, watch))
            change = on.change(on.launch("1.1.0"), old)
            await on.switch(change)
            await on.call("abort", change)
            await on.serves("1.0.0")
            watch.is_over = True
    assert max(len(each) for each in watch.seen) == 1
    assert {frozenset({"1.0.0"}), frozenset({"1.1.0"})} <= watch.seen


async def has_child(folder: Path) -> bool:
    return "child" in os.listdir(folder)  # noqa: PTH208  # a look at a small folder


def the_child(folder: Path) -> int:
    return int((folder / "child").read_text())


async def _watch(fixture: conformance.Fixture, watch: Watch) -> None:
    while not watch.is_over:
        watch.seen.add(await fixture.serving())
        await asyncio.sleep(0.002)
