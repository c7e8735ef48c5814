"""When operations may start: the windows of a policy, on the wall clocks of their zones.

Rules kept: the wall clock decides when a window opens and when it closes: 22:00 and eight hours is over at 06:00 on
every day of the year, though one such night has seven hours and one has nine. A window that would open in the hour that
is skipped in spring opens at the end of that hour, as long as ever; one that opens or closes in the hour that comes
twice in autumn does so the first time. Windows that touch or overlap are one stretch. Without windows it is always
open. Left out: whether the zone and the numbers mean something (`requests`), and freezes.
"""

from __future__ import annotations

import itertools
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta

from controller.core import model

ENDLESS_AFTER = timedelta(days=15)  # a stretch longer than two turns of the week has no end
_DAY = timedelta(days=1)
_DAYS_AHEAD = 8  # within so many days each window opens
_TWO_WEEKS = 15  # days that show each stretch of the week whole
_WEEK = timedelta(days=7)

_Stretch = tuple[datetime, datetime]


def opens_at(windows: tuple[model.Window, ...], at: datetime) -> datetime | None:
    """Find the first instant from ``at`` on at which one is open: ``at`` itself, a later one, or None for never."""
    if not windows:
        return at
    firsts = (next((start for start, end in _stretches(window, at) if end > at), None) for window in windows)
    return min((max(first, at) for first in firsts if first is not None), default=None)


def closes_at(windows: tuple[model.Window, ...], at: datetime) -> datetime | None:
    """Find the end of the open stretch that an instant is in; None where it never ends, ``at`` where it is in none."""
    if not windows:
        return None
    end = at
    while further := max((close for window in windows for close in _closing_after(window, end)), default=None):
        end = further
        if end - at > ENDLESS_AFTER:
            return None
    return end


def is_open(windows: tuple[model.Window, ...], at: datetime, *, for_: timedelta) -> bool:
    """Tell whether one is open at an instant, and stays open for so long."""
    if opens_at(windows, at) != at:
        return False
    end = closes_at(windows, at)
    return end is None or end - at >= for_


def longest(windows: tuple[model.Window, ...], at: datetime) -> timedelta | None:
    """Measure the longest open stretch of the weeks around an instant; None where one never ends."""
    found, end = timedelta(), datetime.min.replace(tzinfo=UTC)
    start = end
    for opening, closing in sorted(stretch for window in windows for stretch in _stretches(window, at, _TWO_WEEKS)):
        start = opening if opening > end else start
        end = max(end, closing)
        found = max(found, end - start)
    return found if windows and found < _WEEK else None


def on_wall(wall: datetime, zone: zoneinfo.ZoneInfo) -> datetime:
    """Give the instant of a time on the wall: the end of the gap for one that is skipped, the first of the two."""
    return _instant(_past_gap(wall, zone), zone)


def _closing_after(window: model.Window, at: datetime) -> Iterator[datetime]:
    begun = itertools.takewhile(lambda stretch: stretch[0] <= at, _stretches(window, at))
    return (end for _, end in begun if end > at)


def _stretches(window: model.Window, at: datetime, ahead: int = _DAYS_AHEAD) -> Iterator[_Stretch]:
    """Give the times for which a window is open, in order, from those on that may contain an instant."""
    zone = zoneinfo.ZoneInfo(window.time_zone)
    today = at.astimezone(zone).date()
    for days in range(-(window.duration // _DAY) - 1, ahead + 1):
        day = today + days * _DAY
        if not window.days or day.isoweekday() in window.days:
            opening = _past_gap(datetime.combine(day, time()) + window.opens, zone)
            closing = _past_gap(opening + window.duration, zone)
            yield _instant(opening, zone), _instant(closing, zone)


def _instant(wall: datetime, zone: zoneinfo.ZoneInfo) -> datetime:
    """Give the instant of a time on the wall; the first of the two where it comes twice."""
    return wall.replace(tzinfo=zone).astimezone(UTC)


def _past_gap(wall: datetime, zone: zoneinfo.ZoneInfo) -> datetime:
    """Give the end of the skipped hour for a time in it, and every other time on the wall as it is."""
    late, early = _instant(wall, zone), wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if early >= late:
        return wall  # in a gap, and only there, the second reading is the earlier one
    offset = early.astimezone(zone).utcoffset()
    while late - early > timedelta.resolution:
        middle = early + (late - early) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            early = middle
        else:
            late = middle
    return late.astimezone(zone).replace(tzinfo=None)
