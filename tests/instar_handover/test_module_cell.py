"""Calls of threads and tasks through a cell while its module is flipped to another version."""

import asyncio
import contextvars
import functools
import gc
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from instar_handover import module_cell, module_host
from tests.instar_handover import module_releases as releases

PATIENCE_SECONDS = 20.0
SWAPS = 8
TWO_PARTS = """
def first():
    return VERSION

def both(cell, on_inside):
    on_inside()
    return VERSION, cell.call("first")
"""


@pytest.fixture
async def host() -> module_host.ModuleHost:
    return module_host.ModuleHost()


async def test_no_call_of_four_busy_threads_is_lost_or_sees_two_versions(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    cell = host.cell("billing.rules")
    await releases.installed(host, releases.write(tmp_path, "1.0.0", more=TWO_PARTS))
    seen: list[list[tuple[str, str]]] = [[] for _ in range(4)]
    is_over = threading.Event()

    def work(results: list[tuple[str, str]]) -> None:
        while not is_over.is_set():
            results.append(cell.call("both", cell, lambda: None))

    threads = [threading.Thread(target=work, args=(results,)) for results in seen]
    for thread in threads:
        thread.start()
    for number in range(1, SWAPS + 1):
        await releases.installed(host, releases.write(tmp_path, f"1.0.{number}", more=TWO_PARTS))
        await _until(functools.partial(_has_grown, seen[0], len(seen[0])))
    is_over.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    pairs = [pair for results in seen for pair in results]
    assert [pair for pair in pairs if pair[0] != pair[1]] == []
    for results in seen:
        numbers = [int(version.rpartition(".")[2]) for version, _ in results]
        assert numbers == sorted(numbers), "a call went back to an old version"
    assert {version for version, _ in pairs} > {"1.0.1", f"1.0.{SWAPS}"}


async def test_a_swap_waits_for_the_call_inside_and_a_new_call_waits_for_the_swap(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    cell = host.cell("billing.rules")
    await releases.installed(host, releases.write(tmp_path, "1.0.0", more=TWO_PARTS))
    is_inside, may_end = threading.Event(), threading.Event()
    pairs: list[tuple[str, str]] = []

    def on_inside() -> None:
        is_inside.set()
        assert may_end.wait(PATIENCE_SECONDS)

    inside = threading.Thread(target=lambda: pairs.append(cell.call("both", cell, on_inside)), name="caller")
    inside.start()
    assert await asyncio.to_thread(is_inside.wait, PATIENCE_SECONDS)
    swap = asyncio.ensure_future(releases.swapped(host, releases.write(tmp_path, "1.1.0", more=TWO_PARTS)))
    await _until(lambda: cell.state.value == "swapping")
    assert (await releases.say(host, "status"))["blockers"] == ["both"]
    late = asyncio.ensure_future(asyncio.to_thread(cell.call, "first"))

    async def stay() -> str:
        async with cell.enter() as module:
            return str(module.first())

    task = asyncio.ensure_future(stay())
    await asyncio.sleep(0)
    assert not late.done()
    assert not task.done()
    may_end.set()
    await swap
    assert (await late, await task) == ("1.1.0", "1.1.0")
    inside.join(PATIENCE_SECONDS)
    assert pairs == [("1.0.0", "1.0.0")], "the call inside was let into its own cell, on its own version"


async def test_a_call_that_does_not_end_is_named_and_everything_goes_on_as_before(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    cell = host.cell("billing.rules")
    await releases.installed(host, releases.write(tmp_path, "1.0.0"))
    release = releases.write(tmp_path, "1.1.0")
    await releases.say(host, "stage", **release)
    async with cell.enter():
        answer = await host.answer(
            "module.swap", {"component": cell.name, "instance": release["instance"], "within_seconds": 0.05}
        )
        assert answer["refused"] == "calls_in_the_way"
        assert "billing.rules in MainThread in Task-" in answer["message"]
        assert await asyncio.to_thread(cell.call, "price", 1) == ("1.0.0", 1)
    await releases.say(host, "swap", instance=release["instance"])
    assert cell.call("price", 1) == ("1.1.0", 1)


async def test_a_task_that_outlives_the_call_that_made_it_sees_the_new_version(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    cell = host.cell("billing.rules")
    await releases.installed(host, releases.write(tmp_path, "1.0.0"))
    may_go = asyncio.Event()

    async def later() -> object:
        await may_go.wait()
        return cell.call("price", 1)

    async with cell.enter(), asyncio.TaskGroup() as tasks:
        made = tasks.create_task(_handing_over(later))
    left = made.result()
    await releases.swapped(host, releases.write(tmp_path, "1.1.0"))
    may_go.set()
    assert await left == ("1.1.0", 1)


async def test_a_waiting_task_that_is_cancelled_leaves_nothing_behind(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    cell = host.cell("billing.rules")
    await releases.installed(host, releases.write(tmp_path, "1.0.0"))
    await releases.say(host, "stage", **releases.write(tmp_path, "1.1.0"))

    async def stay() -> None:
        async with cell.enter():
            pass

    async with cell.enter():
        swap = asyncio.ensure_future(releases.say(host, "swap", instance="rules-1.1.0"))
        await _until(lambda: cell.state.value == "swapping")
        waiting = asyncio.ensure_future(_outside(stay))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await swap
    await stay()
    assert cell.blockers() == ()


async def test_what_would_run_on_after_the_call_is_refused(host: module_host.ModuleHost, tmp_path: Path) -> None:
    cell = host.cell("billing.rules")
    more = "async def slowly():\n    pass\ndef one_by_one():\n    yield 1\n"
    await releases.installed(host, releases.write(tmp_path, "1.0.0", more=more))
    for function in ("slowly", "one_by_one"):
        with pytest.raises(TypeError, match=f"^cannot call billing.rules.{function}"):
            cell.call(function)


async def test_an_error_of_the_module_reaches_the_caller_and_leaves_the_cell(
    host: module_host.ModuleHost, tmp_path: Path
) -> None:
    cell = host.cell("billing.rules")
    with pytest.raises(module_cell.ModuleMissingError, match=r"^cannot enter billing\.rules"):
        cell.call("price", 1)
    await releases.installed(host, releases.write(tmp_path, "1.0.0", more="def fail():\n    raise KeyError(1)\n"))
    with pytest.raises(KeyError):
        cell.call("fail")
    assert cell.blockers() == ()


async def test_a_swap_leaves_the_interpreter_as_it_was(host: module_host.ModuleHost, tmp_path: Path) -> None:
    before = sys.getswitchinterval(), gc.isenabled()
    await releases.installed(host, releases.write(tmp_path, "1.0.0"))
    inside = "import gc, sys\nSEEN = []\ndef self_note():\n    SEEN.append((sys.getswitchinterval(), gc.isenabled()))\n"
    release = releases.write(tmp_path, "1.1.0", more=inside, change="self_note() or state")
    await releases.swapped(host, release)
    with host.cell("billing.rules").enter() as module:
        [(turn_seconds, is_collecting)] = module.SEEN
    assert (turn_seconds < before[0], is_collecting) == (True, False)
    assert (sys.getswitchinterval(), gc.isenabled()) == before


def _has_grown(results: list[tuple[str, str]], count: int) -> bool:
    return len(results) > count


async def _handing_over(work: Callable[[], Coroutine[Any, Any, object]]) -> asyncio.Future[object]:
    return asyncio.ensure_future(work())


async def _outside(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something in a context that is in no call."""
    await asyncio.get_running_loop().create_task(work(), context=contextvars.Context())


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110  # another thread makes it true
            await asyncio.sleep(0.001)
