"""What came of operations: each is counted once, and learnt from once.

Rules kept: totals and the outcome move in the transaction that settles the operation, or earlier in the one that finds
the version at fault; what a node says later changes neither. Only operations that lead to a version teach something of
it. Left out: what follows from it (`feedback`).
"""

from __future__ import annotations

from controller.core import copying, model, progress, statistics
from controller.engine import draft as drafts
from controller.store import rows

# Label that says which nodes are alike.
CLASS_LABEL = "class"


def settled(draft: drafts.Draft, assignment: rows.Assignment, state: model.OperationState) -> rows.Assignment:
    """Draft what came of an operation of which nothing more is to come; give the row back as it is then to be.

    The state is how it ended: the node's last word, or what the rollout has concluded from what the node runs.
    """
    if not assignment.is_counted:
        duration = draft.at - assignment.assigned_at
        draft.put_totals(statistics.settled(draft.world.totals, state, duration))
    status = assignment.status
    is_at_fault = status is not None and status.fault is model.Fault.VERSION
    is_success = state is model.OperationState.PERMANENT and not is_at_fault
    learnt = _learnt(draft, assignment, is_success=is_success, is_version_fault=is_at_fault)
    return copying.replace(learnt, is_counted=True)


def at_fault(draft: drafts.Draft, node_id: model.NodeId, digest: model.Digest) -> None:
    """Draft that a version is at fault for the operation of a node that led to it, though it is not settled yet."""
    for each in draft.world.of_node(node_id):
        if each.assign.change.to_digest == digest and not each.assign.is_reverting and not each.is_learnt:
            draft.put_assignment(_learnt(draft, each, is_success=False, is_version_fault=True))


def _learnt(
    draft: drafts.Draft, assignment: rows.Assignment, *, is_success: bool, is_version_fault: bool
) -> rows.Assignment:
    change = assignment.assign.change
    if assignment.is_learnt or change.kind not in progress.VERSIONED:
        return assignment
    node = draft.world.nodes[change.node_id]
    draft.put_outcome(
        model.Outcome(
            operation_id=assignment.operation_id,
            node_id=change.node_id,
            component=change.component,
            from_version=change.from_version,
            to_version=change.to_version,
            method=change.method,
            node_class=node.labels.get(CLASS_LABEL, ""),
            is_success=is_success,
            is_version_fault=is_version_fault,
            duration=draft.at - assignment.assigned_at,
            at=draft.at,
        )
    )
    return copying.replace(assignment, is_learnt=True)
