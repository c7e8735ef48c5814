"""How the condition of a trigger stands on one node: since when it holds, and whether for long enough.

Rules kept: missing data neither raises nor clears, and ends a condition that did not hold for long enough yet; time in
which nobody saw the node counts for nothing; a word that comes late changes nothing; a clock that was set back moves
the instants along; while time is counted, when a node was seen is stored from time to time. Left out: how many nodes it
takes (`raising`).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from controller.core import copying, model
from controller.core.triggers import events

SILENCE_MAX = timedelta(seconds=60)  # between two looks at a node; six heartbeats, after which it counts as lost
STORED_AFTER = SILENCE_MAX / 2  # of time that counts: a restart within the rest of the silence loses none of it


def seen(when: model.Threshold, signal: model.Signal | None, event: events.Seen) -> model.Signal | None:
    """Take what was seen on a node.

    Returns:
        How it then stands; None where the condition neither holds nor has yet to clear.
    """
    if signal is None:
        return _begun(when, event.at) if event.is_met else None
    at = event.at
    if at < signal.seen_at:
        if signal.seen_at - at <= SILENCE_MAX:
            return signal
        signal = _moved(signal, at - signal.seen_at)
    if signal.raised_at is None:
        return _pending(when, signal, event)
    return _raised(when, signal, event)


def looked(signal: model.Signal | None, event: events.Looked) -> model.Signal | None:
    """Take what the monitor has seen, which keeps the clocks itself."""
    if event.is_met is None:
        return signal
    if not event.is_met:
        return None
    return signal or model.Signal(event.at, event.at, event.at)


def is_news(before: model.Signal | None, after: model.Signal | None) -> bool:
    """Tell what has to be stored: more has changed than when a node was last seen, or that was long ago.

    While time is counted, it would be lost by a restart if nobody knew that the node was seen until then.
    """
    if before is None or after is None:
        return before is not after
    return _clocks(before) != _clocks(after) or _stretches(before) != _stretches(after)


def _begun(when: model.Threshold, at: datetime) -> model.Signal:
    return model.Signal(at, at, None if when.pending_for else at)


def _pending(when: model.Threshold, signal: model.Signal, event: events.Seen) -> model.Signal | None:
    if not event.is_met:
        return None
    at = event.at
    since = at if at - signal.seen_at > SILENCE_MAX else signal.since
    raised_at = at if at - since >= when.pending_for else None
    return model.Signal(since, at, raised_at)


def _raised(when: model.Threshold, signal: model.Signal, event: events.Seen) -> model.Signal | None:
    at = event.at
    if not event.is_over:
        return copying.replace(signal, seen_at=at, clear_since=None)
    is_unbroken = signal.clear_since is not None and at - signal.seen_at <= SILENCE_MAX
    clear_since = signal.clear_since if is_unbroken else at
    if clear_since is not None and at - clear_since >= when.keep_firing_for:
        return None
    return copying.replace(signal, seen_at=at, clear_since=clear_since)


def _moved(signal: model.Signal, by: timedelta) -> model.Signal:
    """Move every instant: the clock was set back."""
    return model.Signal(
        since=signal.since + by,
        seen_at=signal.seen_at + by,
        raised_at=None if signal.raised_at is None else signal.raised_at + by,
        clear_since=None if signal.clear_since is None else signal.clear_since + by,
    )


def _stretches(signal: model.Signal) -> int:
    """Count how often a node was seen for long enough to store it; nothing where no time is counted."""
    counted_since = signal.since if signal.raised_at is None else signal.clear_since
    return 0 if counted_since is None else (signal.seen_at - counted_since) // STORED_AFTER


def _clocks(signal: model.Signal) -> tuple[datetime | None, ...]:
    return signal.since, signal.raised_at, signal.clear_since
