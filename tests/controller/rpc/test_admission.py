from __future__ import annotations

from datetime import timedelta

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
