"""Starting in order, and going back where a part of it fails; the truth about it when it is asked again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller import activation
from controller.core import errors
from controller.metrics import collector, limits
from controller.store import database, executor

PERIOD = timedelta(seconds=10)


class Clock:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


class Part:
    """Notes what is asked of it; fails where it is to."""

    def __init__(self, name: str, happened: list[str]) -> None:
        self.name = name
        self.happened = happened
        self.fails: set[str] = set()

    async def _do(self, what: str) -> None:
        self.happened.append(f"{what} {self.name}")
        await asyncio.sleep(0)
        if what in self.fails:
            raise RuntimeError(f"{self.name} will not {what}")

    @property
    def stage(self) -> activation.Stage:
        return activation.Stage(self.name, lambda: self._do("start"), lambda: self._do("stop"))


def parts(*names: str) -> tuple[list[str], list[Part], activation.Activation]:
    happened: list[str] = []
    made = [Part(name, happened) for name in names]
    return happened, made, activation.Activation(*(part.stage for part in made))


async def test_parts_start_in_order_once_and_stop_the_other_way_round_once() -> None:
    happened, _, whole = parts("a", "b")
    assert not whole.is_active
    assert await whole.activate() == ("a", "b")
    assert await whole.activate() == ()
    assert (whole.running, whole.is_active) == (("a", "b"), True)
    assert await whole.deactivate() == ("b", "a")
    assert await whole.deactivate() == ()
    assert happened == ["start a", "start b", "stop b", "stop a"]


async def test_where_a_part_fails_those_before_it_are_stopped_and_the_next_try_begins_at_the_first() -> None:
    happened, (_, _, third), whole = parts("a", "b", "c")
    third.fails.add("start")
    for _ in range(2):
        with pytest.raises(errors.UnavailableError, match="c did not start: c will not start") as caught:
            await whole.activate()
        assert (caught.value.code, caught.value.value) == ("stage_failed", "c")
        assert whole.running == ()
    assert happened == ["start a", "start b", "start c", "stop b", "stop a"] * 2
    third.fails.clear()
    assert await whole.activate() == ("a", "b", "c")


async def test_a_part_that_could_not_be_stopped_is_named_until_it_can() -> None:
    _, (first, _), whole = parts("a", "b")
    await whole.activate()
    first.fails.add("stop")
    for ask in (whole.deactivate, whole.activate, whole.deactivate):
        with pytest.raises(errors.UnavailableError, match="a was not stopped properly: a will not stop") as caught:
            await ask()
        assert (caught.value.code, caught.value.value) == ("stage_stuck", "a")
        assert not whole.is_active
    first.fails.clear()
    assert await whole.activate() == ("a", "b")


async def test_two_who_ask_at_the_same_time_start_it_once() -> None:
    happened, _, whole = parts("a", "b")
    assert sorted(await asyncio.gather(whole.activate(), whole.activate())) == [(), ("a", "b")]
    assert happened == ["start a", "start b"]


async def test_who_gives_up_in_the_middle_leaves_nothing_running() -> None:
    happened, _, whole = parts("a", "b")
    task = asyncio.get_running_loop().create_task(whole.activate())
    while "start b" not in happened:  # noqa: ASYNC110  # it sets no event
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert whole.running == ()
    assert happened[-1] == "stop a"


async def test_a_collector_whose_store_cannot_be_written_to_fails_the_activation_and_the_second_says_so_too() -> None:
    store = database.Store(None, executor.InlineExecutor())
    made = collector.Collector(store, Clock(), limits.Limits())
    happened, (before, _), _ = parts("before", "after")
    whole = activation.Activation(
        before.stage, activation.Stage("collector", lambda: made.start_collection(PERIOD), made.stop_collection)
    )
    file: Any = store._database
    file._writer.connection.driver_connection.execute("PRAGMA query_only = ON")
    for _ in range(2):
        with pytest.raises(errors.UnavailableError, match="collector did not start: cannot begin to collect") as caught:
            await whole.activate()
        assert (caught.value.code, caught.value.value) == ("stage_failed", "collector")
        assert not made.counts().is_collecting
    assert happened == ["start before", "stop before"] * 2
    file._writer.connection.driver_connection.execute("PRAGMA query_only = OFF")
    assert await whole.activate() == ("before", "collector")
    assert made.counts().is_collecting
    assert await whole.deactivate() == ("collector", "before")
    store.close()
