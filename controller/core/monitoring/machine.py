"""The machine of one rule on one node or on the fleet.

Theory of operation. Each look gives a figure, or none; its sign says what that means for the rule as it stands, with
all stored instants taken into account, and the table says what state follows. A rule fires once the condition has been
seen at every look for as long as it has to hold, and clears once the figure was on the other side of the clearing
threshold for as long as it keeps firing; in between nothing changes.

Rules kept: pure; every clock is a stored instant; missing data neither fires nor clears, and ends a condition that was
not yet held for long enough; what a look repeats, or brings too late, changes nothing; a look vouches for the window of
its figure, so that after a gap longer than that the time in between counts as missing; a clock that was set back moves
the instants along. Left out: where figures come from (`observing`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum, unique

from controller.core import model

S = model.RuleState


@unique
class Sign(Enum):
    """What a look means for a rule as it stands."""

    RESTS = "nothing is the case"
    RISES = "it is the case, and not for long enough yet"
    HOLDS = "it was the case for long enough, and has not cleared"
    CLEARS = "what fired is over for long enough"
    MISSING = "there is no figure"


TRANSITIONS: Mapping[model.RuleState, Mapping[Sign, model.RuleState]] = {
    S.INACTIVE: {
        Sign.RESTS: S.INACTIVE,
        Sign.RISES: S.PENDING,
        Sign.HOLDS: S.FIRING,
        Sign.MISSING: S.UNKNOWN,
    },
    S.PENDING: {
        Sign.RESTS: S.INACTIVE,
        Sign.RISES: S.PENDING,
        Sign.HOLDS: S.FIRING,
        Sign.MISSING: S.UNKNOWN,
    },
    S.FIRING: {
        Sign.HOLDS: S.FIRING,
        Sign.CLEARS: S.INACTIVE,
        Sign.MISSING: S.UNKNOWN,
    },
    S.UNKNOWN: {
        Sign.RESTS: S.INACTIVE,
        Sign.RISES: S.PENDING,
        Sign.HOLDS: S.FIRING,
        Sign.CLEARS: S.INACTIVE,
        Sign.MISSING: S.UNKNOWN,
    },
}


def begin(at: datetime) -> model.Watch:
    """Give how a rule stands before anybody has looked."""
    return model.Watch(S.UNKNOWN, since=at, seen_at=at)


def is_beyond(rule: model.Rule, value: float) -> bool:
    """Tell whether a figure is what the rule watches for."""
    return value < rule.fire_at if rule.is_below else value > rule.fire_at


def is_clear(rule: model.Rule, value: float) -> bool:
    """Tell whether a figure is on the other side of the clearing threshold."""
    return value >= rule.clear_at if rule.is_below else value <= rule.clear_at


def step(rule: model.Rule, watch: model.Watch, value: float | None, at: datetime) -> model.Watch:
    """Take what one look has seen.

    Args:
        rule: The rule.
        watch: How it stands.
        value: What is compared with the thresholds; None for missing.
        at: When it was looked at.

    Returns:
        How it then stands; the very object that went in where the look is a repetition, or was overtaken.
    """
    if at <= watch.seen_at:
        if watch.seen_at - at <= rule.window:
            return watch
        watch = _moved(watch, at - watch.seen_at)
    elif value is not None and at - watch.seen_at > rule.window:
        watch = _seen(rule, watch, None, watch.seen_at)
    return _seen(rule, watch, value, at)


def _moved(watch: model.Watch, by: timedelta) -> model.Watch:
    """Move every instant: the clock was set back."""
    return dataclasses.replace(
        watch,
        since=watch.since + by,
        seen_at=watch.seen_at + by,
        fired_at=_later(watch.fired_at, by),
        clear_since=_later(watch.clear_since, by),
    )


def _later(instant: datetime | None, by: timedelta) -> datetime | None:
    return None if instant is None else instant + by


def _seen(rule: model.Rule, watch: model.Watch, value: float | None, at: datetime) -> model.Watch:
    clear_since = _clear_since(rule, watch, value, at)
    sign = _sign(rule, watch, value, clear_since, at)
    state = TRANSITIONS[watch.state][sign]
    since = watch.since if state is watch.state else at
    fired_at = watch.fired_at if sign is Sign.MISSING else None
    if state is S.FIRING:
        fired_at = watch.fired_at or at
        since = fired_at
    return model.Watch(state, since, at, fired_at, clear_since if state is S.FIRING else None, value)


def _clear_since(rule: model.Rule, watch: model.Watch, value: float | None, at: datetime) -> datetime | None:
    """Tell since when what fired is over, without a break."""
    if watch.fired_at is None or value is None or not is_clear(rule, value):
        return None
    return watch.clear_since or at


def _sign(
    rule: model.Rule, watch: model.Watch, value: float | None, clear_since: datetime | None, at: datetime
) -> Sign:
    if value is None:
        return Sign.MISSING
    if watch.fired_at is not None:
        is_over = clear_since is not None and at - clear_since >= rule.keep_firing_for
        return Sign.CLEARS if is_over else Sign.HOLDS
    if not is_beyond(rule, value):
        return Sign.RESTS
    held_since = watch.since if watch.state is S.PENDING else at
    return Sign.HOLDS if at - held_since >= rule.pending_for else Sign.RISES
