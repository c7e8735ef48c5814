"""Waves whose nodes go through their steps together (BLUE_GREEN).

Every node prepares and is held before SWITCH; once all are, all switch, and each is held before COMMIT, so that the old
versions can still take over; once all new versions have served for long enough there, all commit.

Rules kept: the rollout remembers into which step it has let its nodes, so that one that comes later is let in alone; a
repeated Proceed is harmless, and owed for as long as the node is held where it was. Left out: what a failure means
(`gate`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from controller.core import draft as drafts
from controller.core import effects, model, transitions

_HELD = model.OperationState.HELD
_HOLDS_NEXT = {model.Step.SWITCH: model.Step.COMMIT, model.Step.COMMIT: None}


def decide(draft: drafts.Draft, at: datetime) -> transitions.Why | None:
    """Decide whether the nodes of the wave go on together."""
    tally, rollout = draft.tally, draft.rollout
    if not tally.holding or tally.retrying or draft.unassigned or draft.is_held_by_rules:
        return None
    if rollout.proceeded is None and tally.held_at_switch == tally.holding:
        return transitions.Why(transitions.Cause.ALL_PREPARED)
    if rollout.proceeded is not model.Step.SWITCH or tally.held_at_commit != tally.holding:
        return None
    if rollout.verify_until is None:
        return transitions.Why(transitions.Cause.ALL_SWITCHED)
    is_waiting = draft.policy.is_promoted_by_hand and not rollout.is_promoted
    return None if is_waiting or at < rollout.verify_until else transitions.Why(transitions.Cause.ALL_VERIFIED)


def carry_out(draft: drafts.Draft, cause: transitions.Cause, at: datetime) -> None:
    """Let all nodes of the wave that are held go on, or begin to verify what they run."""
    patience = draft.policy.progress_deadline
    if cause is transitions.Cause.ALL_SWITCHED:
        verify_until = at + _verify_duration(draft.rollout.request)
        draft.set(verify_until=verify_until, progress_by=verify_until + patience)
        return
    step = model.Step.SWITCH if cause is transitions.Cause.ALL_PREPARED else model.Step.COMMIT
    draft.set(proceeded=step, progress_by=at + patience, verify_until=None)
    draft.effects.extend(owed(draft.begun(), step))


def _verify_duration(request: model.UpgradeRequest) -> timedelta:
    found = request.parameters
    parameters = found if isinstance(found, model.BlueGreenParameters) else model.BlueGreenParameters()
    return parameters.verify_duration


def owed(changes: Iterator[model.Progress], proceeded: model.Step | None) -> Iterator[effects.Proceed]:
    """Give what lets go on those of the changes that are held before a step that was let into."""
    if proceeded is None:
        return
    for each in changes:
        is_held = each.state is _HELD and not each.is_skipped and not each.is_reverting
        step = model.Step.COMMIT if each.step is model.Step.COMMIT else model.Step.SWITCH
        if is_held and each.operation_id is not None and step in (model.Step.SWITCH, proceeded):
            yield effects.Proceed(each.operation_id, each.change.node_id, step, _HOLDS_NEXT[step])
