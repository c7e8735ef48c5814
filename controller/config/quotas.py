"""How much one caller may ask, and the controller hold, as the table ``limits`` of the configuration file says it.

Rules kept: each has a default that fits a fleet of ten thousand nodes, and bounds within which it makes sense. Left
out: what nobody has to choose (`controller.rpc.listener`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from controller.config import fields

_CONNECTION_AGE_MIN = timedelta(seconds=1)  # below it nothing but connecting would be done
_CONNECTION_AGE_MAX = timedelta(days=1)  # above it a certificate would outlive itself on a connection


@dataclass(frozen=True, slots=True)
class Quotas:
    """What is allowed at most.

    Args:
        calls_per_second: Calls of one caller, on the long run.
        calls_burst: Calls of one caller at once, after a quiet time.
        streams_per_caller: Streams that one caller holds at the same time: watches, uploads, downloads.
        connections: Connections at the same time, of all callers.
        connection_age: After so long a connection is given up; its streams have a minute to end.
    """

    calls_per_second: int = 200
    calls_burst: int = 400
    streams_per_caller: int = 32
    connections: int = 16_384
    connection_age: timedelta = timedelta(hours=1)


USUAL = Quotas()


def read(found: object) -> Quotas:
    """Read the table ``limits`` of a configuration file.

    Raises:
        InvalidRequestError: A key is unknown, or a value breaks its rule.
    """
    table, usual = fields.Table("limits", found), USUAL
    quotas = Quotas(
        calls_per_second=table.whole("calls_per_second", usual.calls_per_second, 1, 100_000),
        calls_burst=table.whole("calls_burst", usual.calls_burst, 1, 100_000),
        streams_per_caller=table.whole("streams_per_caller", usual.streams_per_caller, 2, 10_000),
        connections=table.whole("connections", usual.connections, 2, 1_000_000),
        connection_age=table.duration("connection_age", usual.connection_age, _CONNECTION_AGE_MIN, _CONNECTION_AGE_MAX),
    )
    table.end()
    return quotas
