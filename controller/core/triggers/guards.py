"""What stands between an occasion and its action, and until when.

Rules kept: guards are asked in one order, and the first that is shut is the reason; each says when it opens, where that
can be told. Cooldown and cap count firings that were released, so that none of them is ever exceeded. Left out: the
guard of approval, which is not open or shut but asks (`advancing`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.core import model, windows, wording

HOUR = timedelta(hours=1)
_BEGUN = frozenset({model.FiringState.ACTING, model.FiringState.RUNNING})


@dataclass(frozen=True, slots=True)
class Around:
    """What a trigger cannot know by itself.

    Args:
        frozen_because: Why a freeze holds it; empty where none does.
        frozen_until: None for until somebody lifts it.
    """

    frozen_because: str = ""
    frozen_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Shut:
    """A guard that is shut.

    Args:
        opens_at: None where nobody can tell.
    """

    code: str
    message: str
    opens_at: datetime | None


def shut(
    trigger: model.Trigger, status: model.TriggerStatus, firing: model.Firing, around: Around, at: datetime
) -> Shut | None:
    """Find the first guard that is shut for a firing; None where all are open."""
    return next(_shut(trigger, status, firing, around, at), None)


def against_release(trigger: model.Trigger, status: model.TriggerStatus, at: datetime) -> Shut | None:
    """Find out whether cooldown or cap stand against any firing now."""
    return cooldown(trigger, status, at) or cap(trigger, status, at)


def _shut(
    trigger: model.Trigger, status: model.TriggerStatus, firing: model.Firing, around: Around, at: datetime
) -> Iterator[Shut]:
    found: tuple[Shut | None, ...] = (frozen(around), window(trigger, at))
    if firing.released_at is None:
        found = (
            cooldown(trigger, status, at),
            cap(trigger, status, at),
            earlier(trigger, status, firing.number),
            *found,
        )
    yield from (each for each in found if each is not None)


def cooldown(trigger: model.Trigger, status: model.TriggerStatus, at: datetime) -> Shut | None:
    """Tell whether the latest firing is too recent."""
    since = status.cooling_since
    if since is None or at >= since + trigger.guards.cooldown:
        return None
    opens_at = since + trigger.guards.cooldown
    return Shut("cooldown", f"it cools down until {wording.instant(opens_at)}", opens_at)


def cap(trigger: model.Trigger, status: model.TriggerStatus, at: datetime) -> Shut | None:
    """Tell whether too many firings were released within an hour."""
    most = trigger.guards.firings_per_hour_max
    recent = [each for each in status.released if each > at - HOUR]
    if len(recent) < most:
        return None
    opens_at = recent[-most] + HOUR
    return Shut("hourly_cap", f"it has fired {most} times within an hour, until {wording.instant(opens_at)}", opens_at)


def rejecting(trigger: model.Trigger, status: model.TriggerStatus) -> Shut | None:
    """Tell whether an open firing lets no other one come."""
    if not status.open or trigger.guards.concurrency is not model.ConflictPolicy.REJECT:
        return None
    return Shut("firing_open", f"firing {status.open[0].number} is not at its end", None)


def earlier(trigger: model.Trigger, status: model.TriggerStatus, number: int) -> Shut | None:
    """Tell whether an earlier firing has to end first; those that are superseded have to be no more under way."""
    before = (each for each in status.open if each.number < number)
    if trigger.guards.concurrency is model.ConflictPolicy.SUPERSEDE:
        before = (each for each in before if each.state is model.FiringState.ACTING and has_begun(each))
    first = next(before, None)
    return None if first is None else Shut("queued", f"firing {first.number} comes first", None)


def frozen(around: Around) -> Shut | None:
    """Tell whether a freeze holds it."""
    if not around.frozen_because:
        return None
    return Shut("frozen", around.frozen_because, around.frozen_until)


def window(trigger: model.Trigger, at: datetime) -> Shut | None:
    """Tell whether no window is open."""
    opens_at = windows.opens_at(trigger.guards.windows, at)
    if opens_at == at:
        return None
    until = "and none ever opens" if opens_at is None else f"until {wording.instant(opens_at)}"
    return Shut("window_shut", f"no window is open, {until}", opens_at)


def has_begun(firing: model.Firing) -> bool:
    """Tell whether what a firing does was begun, and cannot be called back by dropping it."""
    return firing.state in _BEGUN and firing.next_try_at is None
