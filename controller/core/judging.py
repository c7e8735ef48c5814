"""The canary wave under judgement: when that begins, what a look at the evidence does, and what becomes of doubt.

Theory of operation. A canary wave of the request's own component is judged where the request has an analysis. That
begins when the first of its nodes has changed. Somebody then looks at intervals at what the nodes measure (`case`), and
each look is told as an event (`hear`). What is shown to be worse goes back at once, also while the wave still goes out.
Once the wave is done and has baked, it is followed by the next one only when it is shown to be no worse; where the
evidence does not suffice in time, the policies of the analysis decide.

Rules kept: pure; no evidence never passes and never reverts (G7, G8); both times are stored instants, which a pause and
an absence of the controller move on; what was looked at before either promotes nothing; a new attempt at the wave is
judged anew. Left out: statistics (`analysis`), where the figures come from, and who looks when (the engine).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from controller.core import copying, effects, events, model, progress, requests
from controller.core import draft as drafts
from controller.core.transitions import Cause, Why

WORSE = "analysis_worse"
UNKNOWN = "analysis_unknown"
INCONCLUSIVE = "analysis_inconclusive"

F = model.Finding
S = model.RolloutState
_ON_THE_WAY = frozenset({S.RUNNING, S.PAUSED})


@dataclass(frozen=True, slots=True)
class Changed:
    """A node of the canary wave that runs the new version.

    Args:
        left_at: When its operation was assigned: what it measured until then is its past.
        changed_at: When its COMMIT was heard of: what it measures from then on is the new version's.
    """

    node_id: model.NodeId
    from_digest: model.Digest
    left_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be judged now.

    Args:
        component: Whose series count.
        elapsed: How long evidence has been gathered, without the time in which the clocks stood.
        previous: The latest judgement of the same wave.
        changed: The nodes of the wave that have changed, in the order of the plan.
    """

    analysis: model.Analysis
    component: model.ComponentName
    elapsed: timedelta
    previous: model.Judgement | None
    changed: tuple[Changed, ...]


def case(rollout: model.Rollout, at: datetime) -> Case | None:
    """Say what is to be looked at; None where no wave is being judged."""
    analysis, record = requests.analysis(rollout.request), current(rollout)
    if analysis is None or record is None or record.is_over or rollout.state not in _ON_THE_WAY:
        return None
    elapsed = (rollout.paused_at or at) - record.began_at - record.stopped_for
    component = rollout.request.component
    return Case(analysis, component, max(elapsed, timedelta()), record.latest, _changed(rollout))


def _changed(rollout: model.Rollout) -> tuple[Changed, ...]:
    found = []
    for change in rollout.plan.waves[rollout.wave - 1].changes:
        each = rollout.changes[model.ChangeKey(rollout.wave, change.node_id, change.component)]
        if _is_changed(each, rollout.request.component):
            times = cast("datetime", each.assigned_at), cast("datetime", each.committed_at)
            found.append(Changed(change.node_id, change.from_digest, *times))
    return tuple(found)


def _is_changed(each: model.Progress, component: model.ComponentName) -> bool:
    is_out = each.committed_at is not None and not (each.is_reverting or each.is_skipped)
    return is_out and each.change.component == component


def current(rollout: model.Rollout) -> model.Judging | None:
    """Give how the wave that is out is judged; None where it is not, or not yet."""
    found = rollout.judging
    return found if found is not None and found.wave == rollout.wave else None


def is_judged(rollout: model.Rollout, wave: int) -> bool:
    """Tell whether a wave has to be judged before it may be followed."""
    if not wave or requests.analysis(rollout.request) is None:
        return False
    found = rollout.plan.waves[wave - 1]
    return found.is_canary and any(each.component == rollout.request.component for each in found.changes)


def is_passed(record: model.Judging) -> bool:
    """Tell whether a wave was judged, or somebody has said so, in favour of the new version."""
    found = record.decided
    return record.is_over and (bool(record.decided_by) or (found is not None and found.finding is F.NO_WORSE))


def is_awaited(rollout: model.Rollout) -> bool:
    """Tell whether the wave that is out has yet to be judged."""
    record = current(rollout)
    return is_judged(rollout, rollout.wave) and (record is None or not is_passed(record))


# What happens.


def begin(draft: drafts.Draft, at: datetime) -> None:
    """Let evidence count from now on, where the wave that is out is to be judged and is not yet."""
    rollout, analysis = draft.rollout, requests.analysis(draft.rollout.request)
    if analysis is None or not is_judged(rollout, rollout.wave) or current(rollout) is not None:
        return
    since = draft.clock(at)
    record = model.Judging(
        wave=rollout.wave,
        left_at=min((cast("datetime", each.assigned_at) for each in _changed_in(draft)), default=since),
        began_at=since,
        inconclusive_at=since + analysis.inconclusive_after,
        unknown_since=since,
        unknown_at=since + analysis.warm_up + analysis.unknown_after,
        heed_from=since,
    )
    draft.set(judging=record)


def begin_anew(draft: drafts.Draft, at: datetime) -> None:
    """Forget how a wave that goes out again was judged; what changed in it before counts from now on."""
    rollout = draft.rollout
    if current(rollout) is not None:
        draft.set(judging=None)
    if is_judged(rollout, rollout.wave) and any(_changed_in(draft)):
        begin(draft, at)


def _changed_in(draft: drafts.Draft) -> Iterator[model.Progress]:
    """Go through the changes of the wave that is out that have brought the new version."""
    component = draft.rollout.request.component
    each = (draft.of(number) for number in draft.numbers_in(draft.rollout.wave))
    return (one for one in each if _is_changed(one, component))


def hear(draft: drafts.Draft, event: events.Judged) -> None:
    """Take what somebody has found; what is older than what is known changes nothing."""
    judgement, record = event.judgement, current(draft.rollout)
    if record is None or record.is_over or draft.rollout.state not in _ON_THE_WAY:
        return
    if judgement.at < record.began_at or (record.latest is not None and judgement.at <= record.latest.at):
        return
    is_known = judgement.finding is not F.UNKNOWN
    since = None if is_known else record.unknown_since or draft.clock(event.at)
    until = None if is_known else record.unknown_at or _unknown_at(draft, draft.clock(event.at))
    is_other = record.doubt is not None and (record.doubt is F.UNKNOWN) is is_known
    doubt = None if is_other else record.doubt
    draft.set(
        judging=copying.replace(record, latest=judgement, unknown_since=since, unknown_at=until, doubt=doubt),
    )


def _unknown_at(draft: drafts.Draft, since: datetime) -> datetime:
    """Give the instant at which missing evidence counts; no earlier than a silent node does after an absence (G8)."""
    analysis = cast("model.Analysis", requests.analysis(draft.rollout.request))
    return max(since + analysis.unknown_after, draft.rollout.judge_from or since)


def put_off(draft: drafts.Draft, length: timedelta, at: datetime) -> None:
    """Let the clocks go on after a pause: each has as much time left as it had."""
    record = current(draft.rollout)
    if record is None or record.is_over:
        return
    moved = copying.replace(
        record,
        inconclusive_at=record.inconclusive_at + length,
        unknown_since=None if record.unknown_since is None else record.unknown_since + length,
        unknown_at=None if record.unknown_at is None else record.unknown_at + length,
        stopped_for=record.stopped_for + length,
        heed_from=at,
    )
    draft.set(judging=moved)


def excuse(draft: drafts.Draft, absence: events.ControllerAbsent) -> None:
    """Count no time in which nobody could look; missing evidence is waited for anew."""
    record = current(draft.rollout)
    if record is None or record.is_over:
        return
    is_paused = draft.rollout.paused_at is not None
    put_off(draft, timedelta() if is_paused else absence.at - absence.since, absence.at)
    if record.unknown_at is not None:
        since = draft.clock(absence.at)
        moved = cast("model.Judging", draft.rollout.judging)
        draft.set(judging=copying.replace(moved, unknown_since=since, unknown_at=_unknown_at(draft, since)))


def close(draft: drafts.Draft, at: datetime, by: str = "") -> None:
    """Look no more; what was found by then is kept, and nodes on which the version is shown to be worse remember it."""
    begin(draft, at)
    record = current(draft.rollout)
    if record is None or record.is_over:
        return
    found = record.latest
    draft.set(judging=copying.replace(record, decided=found, decided_at=at, decided_by=by))
    if found is not None and found.finding is F.WORSE:
        _blame(draft, found.message, at)


def _blame(draft: drafts.Draft, why: str, at: datetime) -> None:
    for each in _changed_in(draft):
        if each.change.kind in progress.VERSIONED:
            draft.effects.append(effects.RememberBad(each.change.node_id, each.change.to_digest, f"{WORSE}: {why}"))
            draft.put(copying.replace(each, is_bad=True), at)


# What is decided.


def worse(rollout: model.Rollout) -> Why | None:
    """Say that the version is at fault, where it is shown to be worse."""
    record = current(rollout)
    if record is None or record.is_over or record.latest is None or record.latest.finding is not F.WORSE:
        return None
    return Why(Cause.SHOWN_WORSE, WORSE, record.latest.message)


def decide(draft: drafts.Draft, at: datetime) -> Why | None:
    """Decide on a wave that is done and has baked, and has yet to be judged."""
    record = current(draft.rollout)
    if record is None or record.awaited_since is None:
        return Why(Cause.JUDGE_AWAITED)
    found = record.latest
    heed_from = max(record.heed_from, draft.rollout.bake_until or record.heed_from)
    if found is not None and found.finding is F.NO_WORSE:
        return Why(Cause.SHOWN_NO_WORSE) if found.at >= heed_from else None
    due = due_at(draft.rollout)
    return None if due is None or at < due else _doubted(draft, record)


def due_at(rollout: model.Rollout) -> datetime | None:
    """Tell when the evidence, or the lack of it, has to be acted on; None where only evidence is waited for."""
    record = current(rollout)
    if record is None or record.is_over or record.awaited_since is None or record.doubt is _kind(record):
        return None
    return record.inconclusive_at if record.unknown_at is None else record.unknown_at


def _kind(record: model.Judging) -> model.Finding:
    return F.INCONCLUSIVE if record.unknown_at is None else F.UNKNOWN


def _doubted(draft: drafts.Draft, record: model.Judging) -> Why:
    analysis = cast("model.Analysis", requests.analysis(draft.rollout.request))
    told = record.latest.message if record.latest is not None else "nobody has looked yet"
    is_unknown = record.unknown_at is not None
    if is_unknown:
        reason, said = UNKNOWN, f"there is no evidence on the canary for {analysis.unknown_after}"
    else:
        reason, said = INCONCLUSIVE, f"the evidence on the canary decides nothing within {analysis.inconclusive_after}"
    return Why(_cause(draft, analysis.unknown if is_unknown else analysis.inconclusive), reason, f"{said}: {told}")


def _cause(draft: drafts.Draft, policy: model.Doubt) -> Cause:
    if policy is model.Doubt.HOLD:
        return Cause.DOUBT_HOLDS
    can_go_back = draft.rollout.request.is_revertible and all(map(progress.can_go_back, draft.begun()))
    return Cause.DOUBT_REVERTS if policy is model.Doubt.REVERT and can_go_back else Cause.DOUBT_STOPS


def carry_out(draft: drafts.Draft, cause: Cause, at: datetime) -> None:
    """Note that nothing but the judge is waited for, that it has spoken, or that somebody has to."""
    if cause is Cause.SHOWN_NO_WORSE:
        close(draft, at)
        return
    begin(draft, at)
    record = cast("model.Judging", current(draft.rollout))
    if cause is Cause.JUDGE_AWAITED:
        draft.set(judging=copying.replace(record, awaited_since=at))
    else:
        draft.set(judging=copying.replace(record, doubt=_kind(record)))
