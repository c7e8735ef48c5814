"""Feeds one event to one rollout, inside a draft: the engine's rule, as far as it is pure.

The core decides; here its decision becomes rows: the rollout's next revision, the changes that differ, the event
itself, audit, assignments with the node's raised fence, remembered digests, and the spans of what has ended. Rules
kept: an effect is a row before anybody hears of it; an operation that is given to a node takes the place of the one
before. Left out: where the event came from (`reporting`, `engine`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from controller.core import copying, effects, errors, events, model, progress, rollout, statistics
from controller.engine import draft as drafts
from controller.engine import freezing, outcomes, tracing
from controller.store import rows

CONTROLLER_ACTOR = "controller"
# Characters that are kept of what was refused: enough to see what it was.
REFUSED_BODY_MAX = 2_000
_ENDED = frozenset({model.OperationState.REFUSED, model.OperationState.ABORTED, model.OperationState.EXPIRED})


def feed(
    draft: drafts.Draft,
    before: model.Rollout,
    lease: rows.Lease,
    event: events.Event,
    *,
    actor: str = CONTROLLER_ACTOR,
) -> model.Rollout:
    """Step a rollout and draft all that follows; nothing is drafted where the event changes nothing.

    Raises:
        IllegalEventError: The rollout cannot take the event in its state; nothing is drafted.
    """
    decision = rollout.step(before, event)
    if decision.rollout is before and not decision.effects:
        return before
    after = copying.replace(decision.rollout, revision=before.revision + 1)
    standings = _changed_standings(before, after, event)
    draft.put_rollout(
        after,
        decision.changed,
        lease,
        standings=standings,
        is_replanned=after.plan is not before.plan,
        is_decided=after.approval is not before.approval,
    )
    draft.occurrences.append(rows.Occurrence(after.id, after.revision, event))
    _put_audit(draft, before, after, actor)
    if after.state is not before.state:
        draft.turned[after.id] = None
    _follow(draft, (after.changes[key] for key in decision.changed if key in after.changes))
    for effect in decision.effects:
        _perform(draft, after.id, lease, effect)
    tracing.rollout_moved(draft, before, after, lease)
    return after


def _changed_standings(before: model.Rollout, after: model.Rollout, event: events.Event) -> tuple[model.NodeId, ...]:
    """Name the nodes whose standing differs: of most events none, of those that are about a node only that one."""
    if after.standings is before.standings:
        return ()
    if isinstance(event, events.StandingChanged | events.NodeRemoved):
        return (event.node_id,)
    named = dict.fromkeys((*before.standings, *after.standings))
    return tuple(each for each in named if before.standings.get(each) != after.standings.get(each))


def record_refusal(draft: drafts.Draft, event: events.Event, error: errors.InstarError, actor: str) -> None:
    """Draft that an event was refused: such an event is stored nowhere else."""
    draft.put_refusal(actor, type(event).__name__, error, repr(event)[:REFUSED_BODY_MAX])


def _put_audit(draft: drafts.Draft, before: model.Rollout, after: model.Rollout, actor: str) -> None:
    if after.state is not before.state:
        draft.put_audit(actor, f"rollout.{after.state.value.lower()}", after.id, after.message or after.reason)
    if after.wave != before.wave:
        draft.put_audit(actor, "rollout.wave", after.id, f"wave {after.wave} of {len(after.plan.waves)}")
    if after.judging is not before.judging and after.judging is not None:
        _put_judged(draft, before.judging, after.judging, after.id)


def _put_judged(
    draft: drafts.Draft, before: model.Judging | None, after: model.Judging, rollout_id: model.RolloutId
) -> None:
    """Keep each look that found something else, of all metrics or of one, and what became of the judgement."""
    known = before if before is not None and before.began_at == after.began_at else None
    found = after.latest
    if found is not None and _findings(found) != _findings(None if known is None else known.latest):
        draft.put_audit(CONTROLLER_ACTOR, "rollout.judged", rollout_id, f"{found.finding.value}: {found.message}")
    if after.doubt is not None and (known is None or known.doubt is not after.doubt):
        draft.put_audit(CONTROLLER_ACTOR, "rollout.doubt", rollout_id, f"held: {after.doubt.value}")
    if after.is_over and (known is None or not known.is_over):
        told = (
            "nothing was found" if after.decided is None else f"{after.decided.finding.value}: {after.decided.message}"
        )
        draft.put_audit(after.decided_by or CONTROLLER_ACTOR, "rollout.judgement_over", rollout_id, told)


def _findings(found: model.Judgement | None) -> tuple[object, ...] | None:
    return None if found is None else (found.finding, *(each.finding for each in found.evidence))


def _follow(draft: drafts.Draft, changed: Iterable[model.Progress]) -> None:
    """Let go of operations of which the core knows more than their nodes have said."""
    for each in changed:
        if each.operation_id is None:
            continue
        assignment = draft.world.assignments.get(each.operation_id)
        if assignment is None or assignment.state is each.state:
            continue
        if each.state is model.OperationState.UNKNOWN and assignment.is_open:
            draft.put_assignment(copying.replace(assignment, is_open=False))
        if each.state in _ENDED or progress.is_done(each):
            settle(draft, assignment, each.state)


def settle(draft: drafts.Draft, assignment: rows.Assignment, state: model.OperationState | None = None) -> None:
    """Draft that nothing more is to come of an operation, and tell of it; its state is else its node's last word."""
    tracing.operation_ended(draft, assignment)
    settled = outcomes.settled(draft, assignment, state or assignment.state)
    draft.put_assignment(copying.replace(settled, is_open=False, is_settled=True))


def _perform(draft: drafts.Draft, rollout_id: model.RolloutId, lease: rows.Lease, effect: effects.Effect) -> None:
    match effect:
        case effects.Assign():
            _assign(draft, rollout_id, lease, effect)
        case effects.Proceed():
            assignment = draft.world.assignments.get(effect.operation_id)
            if assignment is not None and effect not in assignment.proceeds:
                draft.put_assignment(copying.replace(assignment, proceeds=(*assignment.proceeds, effect)))
        case effects.Cancel():
            assignment = draft.world.assignments.get(effect.operation_id)
            if assignment is not None and assignment.cancel_reason != effect.reason:
                draft.put_assignment(copying.replace(assignment, cancel_reason=effect.reason))
        case effects.RememberBad():
            _remember(draft, effect)
        case effects.BlockEdge():
            block(draft, effect.component, effect.to_version, effect.reason)
        case _:
            assert_never(effect)


def _remember(draft: drafts.Draft, effect: effects.RememberBad) -> None:
    node = draft.world.nodes[effect.node_id]
    draft.put_node(copying.replace(node, bad_digests={**node.bad_digests, effect.digest: effect.reason}))
    outcomes.at_fault(draft, effect.node_id, effect.digest)
    draft.left[effect.digest] = effect.reason


def block(draft: drafts.Draft, component: model.ComponentName, version: str, reason: str) -> None:
    """Draft that every way to a version is closed, unless it is already."""
    if (component, version) not in draft.world.blocks:
        draft.put_block(rows.Block(component, version, reason, CONTROLLER_ACTOR, draft.at))
        draft.put_audit(CONTROLLER_ACTOR, "release.block", f"{component} {version}", reason)


def _assign(draft: drafts.Draft, rollout_id: model.RolloutId, lease: rows.Lease, assign: effects.Assign) -> None:
    node = draft.world.nodes[assign.change.node_id]
    for earlier in draft.world.of_node(node.id):
        settle(draft, earlier)
    fence = node.fence + 1
    draft.put_node(copying.replace(draft.world.nodes[node.id], fence=fence))
    bounded = assign
    if not assign.is_reverting:
        bounded = copying.replace(assign, start_by=freezing.start_by(draft.world, node, assign.start_by, draft.at))
    draft.put_assignment(
        rows.Assignment(assign=bounded, rollout_id=rollout_id, fence=fence, epoch=lease.epoch, assigned_at=draft.at)
    )
    draft.put_totals(statistics.distributed(draft.world.totals))
