"""The lines that a controller logs: one JSON object each, with what it is about."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


def write_json() -> None:
    """Have all that is logged written to standard error as JSON; for who owns the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class JsonLines(logging.Formatter):
    """One JSON object for each record."""

    _FACTS = ("trace_id", "rollout_id", "node_id", "session_generation")

    def format(self, record: logging.LogRecord) -> str:
        """The record with the facts that it carries."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in self._FACTS if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
