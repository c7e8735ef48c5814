"""How much each caller may ask: calls by a token bucket, streams by their number.

Rules kept here: each caller has its own, so that none can starve another; a refusal says when to come back; memory is
bounded by the number of callers that were seen last. Left out: what all together may ask (`listener`), and new sessions
of agents (`admission`).
"""

from __future__ import annotations

import contextlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from datetime import timedelta

from controller.config import quotas as configured
from controller.core import errors

CALLERS_MAX = 16_384  # that are remembered; one that was forgotten begins anew
RATE_LIMITED = "rate_limited"
TOO_MANY_STREAMS = "too_many_streams"
STREAM_RETRY_AFTER = timedelta(seconds=1)  # nobody knows when a stream ends


class Quotas:
    """What is left to each caller.

    Args:
        monotonic: Seconds that never go back.
    """

    def __init__(self, allowed: configured.Quotas, monotonic: Callable[[], float]) -> None:
        self._allowed = allowed
        self._monotonic = monotonic
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # calls, and when that was true
        self._streams: Counter[str] = Counter()

    def take(self, caller: str) -> None:
        """Count a call.

        Raises:
            ExhaustedError: The caller asks too much, code RATE_LIMITED.
        """
        now_seconds, allowed = self._monotonic(), self._allowed
        left, at_seconds = self._left.pop(caller, (float(allowed.calls_burst), now_seconds))
        left = min(float(allowed.calls_burst), left + (now_seconds - at_seconds) * allowed.calls_per_second)
        is_granted = left >= 1
        self._left[caller] = (left - 1 if is_granted else left, now_seconds)
        while len(self._left) > CALLERS_MAX:
            self._left.popitem(last=False)
        if not is_granted:
            raise errors.ExhaustedError(
                f"cannot take the call: {caller} has made too many",
                code=RATE_LIMITED,
                field="limits.calls_per_second",
                rule=f"at most {allowed.calls_per_second} calls a second, and {allowed.calls_burst} at once",
                retry_after=timedelta(seconds=(1 - left) / allowed.calls_per_second),
            )

    @contextlib.contextmanager
    def stream(self, caller: str) -> Iterator[None]:
        """Hold a place for a stream.

        Raises:
            ExhaustedError: The caller has too many, code TOO_MANY_STREAMS.
        """
        if self._streams[caller] >= self._allowed.streams_per_caller:
            raise errors.ExhaustedError(
                f"cannot open the stream: {caller} has {self._streams[caller]} open",
                code=TOO_MANY_STREAMS,
                field="limits.streams_per_caller",
                rule=f"at most {self._allowed.streams_per_caller} streams at the same time",
                retry_after=STREAM_RETRY_AFTER,
            )
        self._streams[caller] += 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            if not self._streams[caller]:
                del self._streams[caller]
