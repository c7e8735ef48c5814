"""Times as people write them on the command line, and as they are shown to them: a number and a unit, or an instant."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from controller.cli import failures

RULE = "a number with one of the units ms, s, m, h, d, for example 500ms, 10s, 5m, 1.5h or 7d"
INSTANT_RULE = "a time with its zone, for example 2026-12-24T18:00+01:00 or 2026-12-24T17:00Z"
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_FORM = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)", re.ASCII)


def parse(option: str, text: str) -> timedelta:
    """Read a time.

    Raises:
        CommandError: It is none; the message names the option.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise failures.usage(option, text, RULE)
    return float(found[1]) * _UNITS[found[2]]


def instant(option: str, text: str) -> datetime:
    """Read an instant.

    Raises:
        CommandError: It is none, or says no zone; the message names the option.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as fault:
        raise failures.usage(option, text, INSTANT_RULE) from fault
    if found.tzinfo is None:
        raise failures.usage(option, text, INSTANT_RULE)
    return found


def shown(span: timedelta) -> str:
    """A time for people: at most two units, as 1h 30m, 45s or 250ms."""
    if abs(span) < timedelta(seconds=1):
        return f"{span // timedelta(milliseconds=1)}ms" if span else "0s"
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "m"), (seconds, "s")]
    named = [f"{count}{unit}" for count, unit in parts if count]
    return " ".join(named[:2])
