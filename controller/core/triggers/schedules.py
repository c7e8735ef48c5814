"""When a schedule is due: instants on the wall clock of a zone.

Rules kept: a run whose time a clock skips is due right after the gap, one whose time comes twice is due once, and jobs
of every hour or minute follow the time that passes; so it is in Debian's cron, and here with seconds too. Left out:
runs that were missed (`raising`).

Source: cron(8) of Debian, "daylight saving time"; `cronsim`.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime

import cronsim

from controller.core import errors, model, windows

FIELD = "when.schedule"
CRON_CHARS_MAX = 256  # more than any hand writes

_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)


def next_run(schedule: model.Schedule, after: datetime) -> datetime | None:
    """Give the first instant at which it is due strictly after another; None for never."""
    zone = zoneinfo.ZoneInfo(schedule.time_zone)
    return next((due for due in _runs(schedule.cron, after.astimezone(zone), zone) if due > after), None)


def _runs(cron: str, local: datetime, zone: zoneinfo.ZoneInfo) -> Iterator[datetime]:
    """Give when it is due, in order; of a time that comes twice the first, also where that is over."""
    minutes, hours = cron.split()[-5:-3]
    if minutes.startswith("*") or hours.startswith("*"):
        return (due.astimezone(UTC) for due in cronsim.CronSim(cron, local))
    walls = cronsim.CronSim(cron, local.replace(tzinfo=None, fold=0))
    return (windows.on_wall(wall, zone) for wall in walls)


def check(schedule: model.Schedule, field: str = FIELD) -> None:
    """See that a schedule can be followed.

    Raises:
        InvalidRequestError: Its cron or its time zone is none, or it is never due.
    """
    try:
        zoneinfo.ZoneInfo(schedule.time_zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:  # no such name; not a name; a folder
        raise _wrong(f"{field}.time_zone", schedule.time_zone, "it names a time zone of the IANA database") from error
    shown = schedule.cron[:CRON_CHARS_MAX]
    if shown != schedule.cron:
        raise _wrong(f"{field}.cron", shown, f"it has at most {CRON_CHARS_MAX} characters")
    try:
        runs = cronsim.CronSim(schedule.cron, _SOME_DAY)
    except cronsim.CronSimError as error:
        rule = f"it has five or six fields as cron has them: {error}"
        raise _wrong(f"{field}.cron", shown, rule) from error
    if next(runs, None) is None:
        raise _wrong(f"{field}.cron", shown, "it is due some day")


def _wrong(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    message = f"cannot follow schedule {value!r}"
    return errors.InvalidRequestError(message, code="invalid_trigger", field=field, value=value, rule=rule)
