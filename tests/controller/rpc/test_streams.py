"""What looks after open streams, by a clock of the test's, a real register, and streams that only stand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from controller import clock
from controller.core import errors
from controller.rpc import principals, streams
from tests.controller.rpc import doors

ANN = doors.api("ann")
MOMENT = timedelta(microseconds=1)


class Clock(clock.SystemClock):
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = super().now()

    def now(self) -> datetime:
        return self.at


class House:
    """Streams that are open, and whether they may be."""

    def __init__(self, folder: Path) -> None:
        self.register = doors.enrolled(folder)
        self.register.put(ANN)
        self.clock = Clock()
        self.streams = streams.Streams(doors.known(self.register, self.clock), self.clock)
        self.asked = 0
        self.fault: errors.InstarError | None = None
        self.lasting = ANN
        self.opened: list[asyncio.Task[None]] = []
        self.live: list[streams.Live] = []

    async def open(self, principal: principals.Principal = ANN) -> asyncio.Task[None]:
        """A stream that stands until it is cut."""
        is_open = asyncio.Event()

        async def stand() -> None:
            with self.streams.open(principal, self._again) as live:
                self.live.append(live)
                is_open.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(stand())
        self.opened.append(task)
        await is_open.wait()
        return task

    def change(self) -> None:
        """Change something in the register, whatever it is."""
        self.register.put(doors.api(f"somebody-{self.register.revision}"))

    def looks(self) -> int:
        """Look; how often a right was asked for."""
        before = self.asked
        self.streams.look()
        return self.asked - before

    def _again(self) -> principals.Principal:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return self.lasting


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    made.looks()
    yield made
    for task in made.opened:
        task.cancel()
    await asyncio.gather(*made.opened, return_exceptions=True)


async def ended(task: asyncio.Task[None]) -> bool:
    """Whether it was cut: let go on what was told to."""
    await asyncio.wait([task], timeout=0)
    return task.cancelled()


async def test_a_right_is_asked_for_again_once_after_each_change_and_not_without_one(house: House) -> None:
    for _ in range(2):
        await house.open()
    assert house.looks() == 0
    for _ in range(2):
        house.change()
        assert house.looks() == len(house.opened)
        assert house.looks() == 0


async def test_a_right_is_asked_for_again_at_the_very_end_of_a_proof_and_holds_as_long_as_the_next_one(
    house: House,
) -> None:
    ends_at = house.clock.at + timedelta(minutes=1)
    task = await house.open(replace(ANN, until=ends_at))
    house.clock.at = ends_at - MOMENT
    assert house.looks() == 0
    house.clock.at = ends_at
    house.lasting = replace(ANN, until=ends_at + timedelta(minutes=1))
    assert house.looks() == 1
    assert house.looks() == 0
    house.clock.at += timedelta(minutes=1)
    house.fault = refusal("its time is over")
    assert house.looks() == 1
    assert await ended(task)


async def test_a_stream_that_may_go_on_no_longer_is_cut_once_for_the_first_reason(house: House) -> None:
    task, other = await house.open(), await house.open()
    house.fault = first = refusal("she left")
    house.change()
    house.looks()
    house.fault = refusal("and more")
    house.change()
    house.looks()
    assert task.cancelling() == 1
    assert await ended(task)
    assert await ended(other)
    assert [each.ended for each in house.live] == [first, first]
    assert len(house.streams) == 0


async def test_that_something_cannot_be_found_out_cuts_nobody(house: House) -> None:
    task = await house.open()
    house.fault = errors.UnavailableError("cannot know", code="unknown", field="token", rule="later")
    house.change()
    assert house.looks() == 1
    assert not await ended(task)
    assert house.live[0].ended is None


async def test_they_are_looked_after_again_and_again_and_each_is_forgotten_as_it_ends(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LOOK_SECONDS", 0.001)
    task = await house.open()
    assert len(house.streams) == 1
    running = asyncio.ensure_future(house.streams.run())
    house.change()
    async with asyncio.timeout(60):
        while not house.asked:  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.001)
        house.fault = refusal("she left")
        house.change()
        await asyncio.wait([task])
    running.cancel()
    assert len(house.streams) == 0


def refusal(why: str) -> errors.InstarError:
    return errors.UnauthenticatedError(f"cannot let the caller in: {why}", code="gone", field="token", rule="none")
