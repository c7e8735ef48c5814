"""Which commands stand for a node: derived from its assignments, never kept beside them."""

from __future__ import annotations

from collections.abc import Iterator

from controller.core import model
from controller.engine import commands, reporting
from controller.engine import world as worlds
from controller.store import rows
from controller.telemetry import ids

_ORDER = tuple(model.Step)  # an operation does its steps in the order of their names


def outstanding(world: worlds.World, node_id: model.NodeId) -> tuple[commands.Command, ...]:
    """Return what is asked of a node now, in the order of the fences.

    An operation is asked for as long as it holds the node; a word that ends a hold stands until the node has said that
    it is past it, and a cancellation until the node has said what became of the operation. A node that says that it is
    unavailable is asked for nothing that it has not begun: that waits.
    """
    assignments = world.of_node(node_id)
    if not assignments:
        return ()
    is_available = model.hindrance(world.nodes[node_id].conditions) is None
    return tuple(command for each in assignments for command in _of(each, is_available=is_available))


def _of(assignment: rows.Assignment, *, is_available: bool) -> Iterator[commands.Command]:
    if assignment.is_open and (is_available or assignment.status is not None):
        yield _assign(assignment)
        yield from _proceeds(assignment)
    if assignment.cancel_reason and assignment.state in reporting.HOLDS:
        yield commands.CancelCommand(assignment.operation_id, assignment.fence, assignment.cancel_reason)


def _proceeds(assignment: rows.Assignment) -> Iterator[commands.ProceedCommand]:
    """Name the ended holds that the node is not past; one that has said nothing yet is told by the assignment."""
    if assignment.status is None or assignment.cancel_reason:
        return
    for each in assignment.proceeds:
        if not _is_past(assignment.status, each.step):
            yield commands.ProceedCommand(assignment.operation_id, assignment.fence, each.step, each.hold_before)


def _is_past(status: model.OperationStatus, held: model.Step) -> bool:
    if status.step is None:
        return False
    is_there = status.step is held and status.state is not model.OperationState.HELD
    return is_there or _ORDER.index(status.step) > _ORDER.index(held)


def _assign(assignment: rows.Assignment) -> commands.AssignCommand:
    assign, policy = assignment.assign, assignment.assign.policy
    change = assign.change
    return commands.AssignCommand(
        operation_id=assign.operation_id,
        fence=assignment.fence,
        attempt=assign.attempt,
        component=change.component,
        kind=change.kind,
        method=change.method,
        from_digest=change.from_digest,
        to_digest=change.to_digest,
        to_version=change.to_version,
        hold_before=assignment.hold_before,
        start_by=assign.start_by,
        deadline=assign.deadline,
        soak_duration=policy.soak_duration,
        soak_requests_min=policy.soak_requests_min,
        min_healthy_duration=policy.min_healthy_duration,
        healthy_deadline=policy.healthy_deadline,
        traceparent=ids.traceparent(assignment.rollout_id, assign.operation_id),
        discard_writes=policy.discard_writes,
    )
