"""The one place of the agent that reads its clocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from agent.core import events

Now = Callable[[], events.Moment]


def now() -> events.Moment:
    """Read both clocks."""
    wall = datetime.now(UTC)  # noqa: TID251  # this is the clock that everything else is handed
    return events.Moment(time.monotonic(), wall)
