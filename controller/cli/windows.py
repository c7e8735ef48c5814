"""Windows as people write them on the command line: ``mon-fri 22:00+4h Europe/Berlin``.

Rules kept here: days and zone may be left out, for every day and for UTC; a range of days may pass the end of the week.
Left out: whether the zone exists, which is the controller's to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

from controller.cli import failures, spans
from instar.v1 import rollout_pb2

RULE = "[DAYS ]HH:MM+TIME[ ZONE], for example 22:00+4h, sat,sun 00:00+24h or mon-fri 22:00+4h Europe/Berlin"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(
    r"(?:(?P<days>[a-z,-]+) +)?(?P<hour>\d{1,2}):(?P<minute>[0-5]\d)\+(?P<span>[0-9.]+[a-z]+)(?: +(?P<zone>[\w/+-]+))?",
    re.ASCII,
)
_HOURS_OF_A_DAY = 24


def parse(option: str, text: str) -> rollout_pb2.Window:
    """Read a window.

    Raises:
        CommandError: It is none; the message names the option.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None or int(found["hour"]) >= _HOURS_OF_A_DAY:
        raise failures.usage(option, text, RULE)
    window = rollout_pb2.Window(days=sorted(_days(option, found["days"])), time_zone=found["zone"] or "")
    window.opens.FromTimedelta(timedelta(hours=int(found["hour"]), minutes=int(found["minute"])))
    window.duration.FromTimedelta(spans.parse(option, found["span"]))
    return window


def _days(option: str, text: str | None) -> set[int]:
    """ISO numbers of the days; none for every day."""
    return {day for part in text.split(",") for day in _range(option, part)} if text else set()


def _range(option: str, text: str) -> Iterator[int]:
    first, dash, last = text.partition("-")
    if first not in DAYS or (last if dash else first) not in DAYS:
        raise failures.usage(option, text, f"days of {', '.join(DAYS)}, or two of them with - between")
    begin, end = DAYS.index(first), DAYS.index(last or first)
    return (1 + (begin + step) % len(DAYS) for step in range((end - begin) % len(DAYS) + 1))
