"""How text goes to PostgreSQL: it has no NUL, so a mark stands where one was.

Rules kept: whatever somebody has put into a reason or a name, nobody else's work in the same transaction fails for it.
"""

from __future__ import annotations

import psycopg
from psycopg.types import string

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class _Dumper(string.StrDumperUnknown):
    def dump(self, obj: str) -> bytes | bytearray | memoryview | None:
        """Write a text without NUL."""
        return super().dump(obj.replace("\0", REPLACEMENT) if "\0" in obj else obj)


def adapt(connection: psycopg.Connection) -> None:
    """Have all text of a connection go this way."""
    connection.adapters.register_dumper(str, _Dumper)
