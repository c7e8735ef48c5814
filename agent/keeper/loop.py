"""The one selector loop: descriptors, timers, signals.

Rules kept here: callbacks run one after another and never wait; none is called for what happened to the descriptor that
had its number before; a callback that raises is reported on standard error and ends nothing else; time is
CLOCK_MONOTONIC in seconds. Left out: threads, and everything that is called back.
"""

import functools
import heapq
import itertools
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
EVENTS_PER_WAKE_MAX = 64  # so that timers are looked at between bursts


class Timer:
    """A call at a point in time; cancelling it twice, or after it ran, is fine."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call it."""
        self._callback = None

    def fire(self) -> None:
        """Call it, once."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Loop:
    """Waits for descriptors and points in time, and calls back."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._is_running = False

    def now(self) -> float:
        """Seconds on CLOCK_MONOTONIC."""
        return time.monotonic()

    def watch(self, descriptor: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call back with the events of a descriptor; watching it again replaces mask and callback."""
        if descriptor in self._callbacks:
            self._epoll.modify(descriptor, mask)
        else:
            self._epoll.register(descriptor, mask)
        self._callbacks[descriptor] = callback

    def unwatch(self, descriptor: int) -> None:
        """Stop calling back; must come before the descriptor is closed."""
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def call_later(self, delay_seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back once, after the delay."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (self.now() + delay_seconds, next(self._order), timer))
        return timer

    def on_signals(self, callbacks: Mapping[int, Callable[[], None]]) -> None:
        """Call back on the loop when a signal arrives; called once."""
        reader, writer = socket.socketpair()
        reader.settimeout(0)
        writer.settimeout(0)

        def wake(_: int) -> None:
            for number in set(reader.recv(EVENTS_PER_WAKE_MAX)):
                callbacks[number]()

        for number in callbacks:
            signal.signal(number, _note)
        signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
        self.watch(reader.fileno(), READ, wake)

    def run(self) -> None:
        """Run until `stop`."""
        self._is_running = True
        while self._is_running:
            seen = self._epoll.poll(self._patience_seconds(), EVENTS_PER_WAKE_MAX)
            for descriptor, events, callback in [(number, what, self._callbacks.get(number)) for number, what in seen]:
                if callback is not None and self._callbacks.get(descriptor) is callback:
                    self._guard(functools.partial(callback, events))
            self._fire_due()

    def stop(self) -> None:
        """End `run` after the current round."""
        self._is_running = False

    def _patience_seconds(self) -> float:
        return max(0.0, self._timers[0][0] - self.now()) if self._timers else -1

    def _fire_due(self) -> None:
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            self._guard(timer.fire)

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # noqa: BLE001  # one broken callback must not take the components' supervision with it
            sys.excepthook(*sys.exc_info())


def _note(_number: int, _frame: object) -> None:
    """Take the signal; the loop is woken through the wake-up descriptor."""
