"""What becomes of stored instants when the clock was set back: nothing waits for a time that is to come back.

Rules kept: what counts from an instant that is ahead counts from now; a schedule that had gone on does not repeat its
runs, unless the clock was off by hours. Left out: how long somebody has to approve, and how long a firing is held,
which were said as instants; and the signals of nodes (`signals`).

Source: cron(8) of Debian, which also takes a change by more than three hours for a correction.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from controller.core import copying, model
from controller.core.triggers import draft as drafts
from controller.core.triggers import schedules

CORRECTED_AFTER = timedelta(hours=3)


def settle(draft: drafts.Draft) -> None:
    """Move what is ahead to now."""
    _settle_run(draft)
    _settle_guards(draft)
    _settle_debounced(draft)
    _settle_fault(draft)
    for each in draft.status.open:
        if each.next_try_at is not None:
            _settle_retry(draft, each, each.next_try_at)


def _settle_guards(draft: drafts.Draft) -> None:
    status, at = draft.status, draft.at
    if status.cooling_since is not None and status.cooling_since > at:
        draft.remember(cooling_since=at, released=tuple(min(each, at) for each in status.released))


def _settle_debounced(draft: drafts.Draft) -> None:
    known, at = draft.status.debounced, draft.at
    if known is not None and known.last_at > at:
        draft.remember(debounced=copying.replace(known, first_at=min(known.first_at, at), last_at=at))


def _settle_fault(draft: drafts.Draft) -> None:
    fault, at = draft.status.fault, draft.at
    if fault is not None and fault.at > at:
        retry_at = None if fault.retry_at is None else at + (fault.retry_at - fault.at)
        draft.remember(fault=copying.replace(fault, at=at, retry_at=retry_at))


def _settle_retry(draft: drafts.Draft, firing: model.Firing, next_try_at: datetime) -> None:
    failed_at = firing.reason.since
    if failed_at is not None and failed_at > draft.at:
        reason = copying.replace(firing.reason, since=draft.at)
        draft.put(copying.replace(firing, reason=reason, next_try_at=draft.at + (next_try_at - failed_at)))


def _settle_run(draft: drafts.Draft) -> None:
    trigger, status, at = draft.trigger, draft.status, draft.at
    if not isinstance(trigger.when, model.Schedule) or status.next_run_at is None:
        return
    latest = max((each for each in (status.cooling_since, trigger.changed_at) if each is not None), default=at)
    next_run_at = schedules.next_run(trigger.when, at) if latest - at > CORRECTED_AFTER else None
    if next_run_at is not None and next_run_at < status.next_run_at:
        draft.remember(next_run_at=next_run_at)
