"""Which spans a draft owes: each in the transaction that ends what it tells of.

Rules kept: a span is told once, and the store keeps the first telling; whatever is told has a parent that is told too,
at the latest when the rollout ends.
"""

from __future__ import annotations

from datetime import datetime

from controller.core import model
from controller.engine import draft as drafts
from controller.store import rows
from controller.telemetry import refusals, spans


def rollout_created(draft: drafts.Draft, rollout: model.Rollout, planning_began_at: datetime) -> None:
    """Draft what can be told of a rollout at once."""
    for span in spans.created(rollout, planning_began_at):
        draft.put_span(span)


def rollout_moved(draft: drafts.Draft, before: model.Rollout, after: model.Rollout, lease: rows.Lease) -> None:
    """Draft the spans of waves that are over, and at the end all that has not been told."""
    if after.wave != before.wave and before.wave:
        _put_wave(draft, before, before.wave)
    if not after.state.is_terminal or before.state.is_terminal:
        return
    for assignment in _unsettled(draft, after.id):
        operation_ended(draft, assignment)
    for index in range(1, after.wave + 1):
        _put_wave(draft, after, index)
    for span in spans.ended(after, draft.at, lease.epoch):
        draft.put_span(span)


def operation_ended(draft: drafts.Draft, assignment: rows.Assignment) -> None:
    """Draft the spans of an operation: what was asked, and what the agent told of it."""
    for span in spans.operation(_told(draft, assignment), draft.world.told(assignment.operation_id)):
        draft.put_span(span)


def told_late(draft: drafts.Draft, assignment: rows.Assignment, step: model.StepRecord) -> None:
    """Draft the span of a step that was told after its operation had ended, and those above it if they are missing."""
    for span in spans.operation(_told(draft, assignment), (step,)):
        draft.put_span(span)


def request_refused(draft: drafts.Draft, refused: refusals.Refused) -> None:
    """Draft the span of a request that is refused and counted."""
    draft.put_span(refusals.refused(refused))


def _put_wave(draft: drafts.Draft, rollout: model.Rollout, index: int) -> None:
    is_out = index == rollout.wave and rollout.wave_started_at is not None
    started_at = rollout.wave_started_at if is_out else None
    draft.put_span(spans.wave(rollout, index, started_at or rollout.created_at, draft.at))


def _unsettled(draft: drafts.Draft, rollout_id: model.RolloutId) -> list[rows.Assignment]:
    found = (each for each in draft.world.assignments.values() if each.rollout_id == rollout_id)
    return sorted(found, key=lambda each: each.operation_id)


def _told(draft: drafts.Draft, assignment: rows.Assignment) -> spans.Operation:
    return spans.Operation(
        rollout_id=assignment.rollout_id,
        assign=assignment.assign,
        assigned_at=assignment.assigned_at,
        ended_at=draft.at,
        status=assignment.status,
        agent_version=draft.world.nodes[assignment.node_id].agent_version,
    )
