"""When a schedule is due: instants on the wall clock of a zone.

Rules kept: a run whose time a clock skips is due right after the gap, one whose time comes twice is due once, and jobs
of every hour or minute follow the time that passes; so it is in Debian's cron. Left out: runs that were missed
(`raising`).

Source: cron(8) of Debian, "daylight saving time"; `cronsim`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import cronsim

from controller.core import errors, model

FIELD = "when.schedule"

_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)


def next_run(schedule: model.Schedule, after: datetime) -> datetime | None:
    """Give the first instant at which it is due strictly after another; None for never."""
    local = after.astimezone(ZoneInfo(schedule.time_zone))
    try:
        return next(cronsim.CronSim(schedule.cron, local)).astimezone(UTC)
    except StopIteration:
        return None


def check(schedule: model.Schedule, field: str = FIELD) -> None:
    """See that a schedule can be followed.

    Raises:
        InvalidRequestError: Its cron or its time zone is none.
    """
    try:
        ZoneInfo(schedule.time_zone)
    except (ValueError, OSError) as error:  # of which the second is a name that is a folder
        raise _wrong(f"{field}.time_zone", schedule.time_zone, "it names a time zone of the IANA database") from error
    try:
        cronsim.CronSim(schedule.cron, _SOME_DAY)
    except cronsim.CronSimError as error:
        rule = f"it has five or six fields as cron has them: {error}"
        raise _wrong(f"{field}.cron", schedule.cron, rule) from error


def _wrong(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    message = f"cannot follow schedule {value!r}"
    return errors.InvalidRequestError(message, code="invalid_trigger", field=field, value=value, rule=rule)
