from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

import pytest

from controller.rpc import admission


def test_a_burst_is_let_in_but_for_what_is_kept_for_operations_in_flight() -> None:
    bucket = admission.TokenBucket(lambda: 0.0)
    ordinary = admission.SESSIONS_BURST - admission.SESSIONS_RESERVED
    assert [bucket.take(is_urgent=False) for _ in range(ordinary)] == [timedelta()] * ordinary
    assert bucket.take(is_urgent=False) > timedelta()
    urgent = [bucket.take(is_urgent=True) for _ in range(admission.SESSIONS_RESERVED)]
    assert urgent == [timedelta()] * admission.SESSIONS_RESERVED
    assert bucket.take(is_urgent=True) > timedelta()


def test_who_comes_back_when_told_is_let_in() -> None:
    now_seconds = 0.0
    bucket = admission.TokenBucket(lambda: now_seconds)
    while (retry_after := bucket.take(is_urgent=False)) == timedelta():
        pass
    now_seconds += retry_after.total_seconds()
    assert bucket.take(is_urgent=False) == timedelta()


def test_a_quiet_time_fills_the_bucket_to_its_burst_and_no_further() -> None:
    now_seconds = 0.0
    bucket = admission.TokenBucket(lambda: now_seconds)
    now_seconds = 1e9
    admitted = 0
    while bucket.take(is_urgent=True) == timedelta():
        admitted += 1
    assert admitted == admission.SESSIONS_BURST


def test_each_of_a_crowd_is_told_another_time_and_let_in_then() -> None:
    now_seconds = 0.0
    bucket = admission.TokenBucket(lambda: now_seconds)
    while bucket.take(is_urgent=False) == timedelta():
        pass
    told = [bucket.take(is_urgent=False).total_seconds() for _ in range(500)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(told)]
    assert gaps == pytest.approx([1 / admission.SESSIONS_PER_SECOND] * len(gaps))
    for at_seconds in told:
        now_seconds = at_seconds
        assert bucket.take(is_urgent=False) == timedelta()


async def test_of_a_crowd_a_few_are_made_known_at_once_and_who_is_urgent_does_not_wait() -> None:
    turns, inside, most = admission.Turns(), 0, 0
    leave = asyncio.Event()

    async def come(*, is_urgent: bool) -> None:
        nonlocal inside, most
        async with turns.take(is_urgent=is_urgent):
            inside += 1
            most = max(most, inside)
            await leave.wait()
            inside -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(10 * admission.OPENING_MAX):
            group.create_task(come(is_urgent=False))
        for _ in range(3):
            await asyncio.sleep(0)
        assert inside == admission.OPENING_MAX
        group.create_task(come(is_urgent=True))
        for _ in range(3):
            await asyncio.sleep(0)
        assert inside == admission.OPENING_MAX + 1
        leave.set()
    assert most <= admission.OPENING_MAX + 1
