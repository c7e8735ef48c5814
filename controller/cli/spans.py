"""Times as people write them on the command line: a number and a unit."""

from __future__ import annotations

import re
from datetime import timedelta

from controller.cli import failures

RULE = "a number with one of the units ms, s, m, h, for example 500ms, 10s, 5m or 1.5h"
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
}
_FORM = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)", re.ASCII)


def parse(option: str, text: str) -> timedelta:
    """Read a time.

    Raises:
        CommandError: It is none; the message names the option.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise failures.usage(option, text, RULE)
    return float(found[1]) * _UNITS[found[2]]
