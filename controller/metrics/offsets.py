"""By how much the clock of a node is off, and what time it was here when it said something.

A message is never early: what lies between its sending there and its receipt here is the difference of the clocks and
the time that it took. The smallest of the latest few is closest to the difference alone.

Rules kept: the messages of a node come in the order of their sending, so one that seems to have been sent before the
last one was sent by a clock that was set back: what was known of it says nothing any more. A clock that was set forward
shows in the next message, since nothing arrives before it was sent. Left out: drift, which is below a tick within so
few.

Source: RFC 5905, section 10, clock filter algorithm.
"""

from __future__ import annotations

# Messages of which the fastest counts: more than a minute of them, as in NTP's filter.
MESSAGES_MAX = 8


class ClockOffset:
    """The clock of one node, as it shows in its latest messages."""

    __slots__ = ("_differences", "_sent_seconds")

    def __init__(self) -> None:
        self._differences: list[float] = []
        self._sent_seconds: float | None = None

    @property
    def seconds(self) -> float:
        """What to add to the node's clock to get the controller's; 0 before the first message."""
        return min(self._differences, default=0.0)

    def corrected(self, sent_seconds: float, received_seconds: float) -> float:
        """Take a message, and say when it was sent, on the controller's clock.

        Args:
            sent_seconds: When it was sent, on the node's clock, since 1970.
            received_seconds: When it came, on the controller's clock, since 1970.
        """
        if self._sent_seconds is not None and sent_seconds < self._sent_seconds:
            self._differences.clear()
        self._sent_seconds = sent_seconds
        self._differences.append(received_seconds - sent_seconds)
        del self._differences[:-MESSAGES_MAX]
        return sent_seconds + self.seconds
