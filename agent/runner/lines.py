"""What the agent writes to its log: JSON, one line each, and nothing over and over again.

Rules kept here: a warning that stands is written once in a while, not at each look; what is remembered for that is
bounded. Left out: where the lines go (`process`).
"""

from __future__ import annotations

import json
import logging
import math

STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}
MESSAGE_CHARS_MAX = 4096  # of one line; longer ones quote what somebody else said
REPEAT_SECONDS = 300.0  # between two lines that say the same; what is wrong for a day makes three hundred, not 43,200
REMEMBERED_MAX = 256  # warnings; a node has a few for each component


class JsonLines(logging.Formatter):
    """One JSON object for each record, with whatever was given as extra."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record."""
        extra = {key: value for key, value in vars(record).items() if key not in STANDARD_ATTRIBUTES}
        message = record.getMessage()[:MESSAGE_CHARS_MAX]
        document = {"level": record.levelname.lower(), "logger": record.name, "message": message, **extra}
        if record.exc_info:
            document["error"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


class Once(logging.Filter):
    """Lets a warning through that has not been written lately; the rest passes."""

    def __init__(self) -> None:
        super().__init__()
        self._written_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is to be written."""
        if record.levelno != logging.WARNING:
            return True
        said = (record.name, record.getMessage())
        if abs(record.created - self._written_at.get(said, math.inf)) < REPEAT_SECONDS:
            return False
        self._written_at.pop(said, None)
        self._written_at[said] = record.created
        if len(self._written_at) > REMEMBERED_MAX:
            del self._written_at[next(iter(self._written_at))]
        return True
