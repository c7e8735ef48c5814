"""What a node's word does: to its row, to its operations, and to the rollouts that they belong to.

Rules kept: only the node itself says what it runs; what it says twice is stored once; a word about another node's
operation is refused, but what people of the node began there is taken note of; nothing that the core refuses keeps the
rest of a report from being stored. What changes with each heartbeat (metrics, request counts, how long it has been
healthy) is not written: it is the live session's, and after a restart only a fresh report may speak of it (G7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta

from controller.core import copying, errors, events, model
from controller.engine import draft as drafts
from controller.engine import stepping, tracing
from controller.store import rows

# Steps kept of one operation: there are twelve kinds, and the agent repeats some while it holds or resumes.
STEPS_MAX = 64
# Components of one node: a host has some dozens.
COMPONENTS_MAX = 256

# Ids of operations that people of a node began there, without a controller; no rollout is ever named so.
LOCAL_PREFIX = "local/"

HOLDS = frozenset(
    {
        model.OperationState.ASSIGNED,
        model.OperationState.ACCEPTED,
        model.OperationState.RUNNING,
        model.OperationState.HELD,
    }
)
_GOES_ON = HOLDS | {model.OperationState.COMMITTED}

FindAssignment = Callable[[model.OperationId], rows.Assignment | None]
FindRollout = Callable[[model.RolloutId], tuple[model.Rollout, rows.Lease] | None]


def take(
    draft: drafts.Draft,
    node_id: model.NodeId,
    report: model.NodeReport,
    find_assignment: FindAssignment,
    find_rollout: FindRollout,
) -> None:
    """Draft everything that follows from a report.

    ``find_assignment`` finds an operation that is settled already; ``find_rollout`` also a rollout that is at its end,
    where this controller may step it.
    """
    _take_inventory(draft, node_id, report)
    _note_local(draft, node_id, report)
    known = _own(draft, node_id, report, find_assignment)
    news = [each for each in report.operations if _take_status(draft, known, each)]
    for step in report.steps:
        _take_step(draft, known, step)
    for operation_id in dict.fromkeys(each.operation_id for each in news):
        _let_go(draft, draft.assignments[operation_id])
    if report.is_full:
        _forget(draft, node_id, known)
    concerned = [known[each.operation_id].rollout_id for each in news]
    claimed = draft.world.claims.get(node_id)
    for rollout_id in dict.fromkeys((*concerned, *(() if claimed is None else (claimed,)))):
        _tell(draft, node_id, report, known, find_rollout(rollout_id))


def is_nothing_new(node: model.Node | None, report: model.NodeReport) -> bool:
    """Tell whether nothing would be stored of a report."""
    says_more = report.is_full or report.operations or report.steps or report.removed
    if node is None or says_more or report.conditions not in (None, node.conditions):
        return False
    return all(node.components.get(each.name) == durable(each) for each in report.components)


def durable(component: model.InstalledComponent) -> model.InstalledComponent:
    """Strip what changes with each heartbeat."""
    instances = tuple(copying.replace(each, served=0) for each in component.instances)
    return copying.replace(component, healthy_for=timedelta(0), instances=instances)


def merged(
    components: Iterable[model.InstalledComponent], report: model.NodeReport
) -> dict[model.ComponentName, model.InstalledComponent]:
    """Return what a node runs after a report, by name.

    Raises:
        InvalidRequestError: It would be more than COMPONENTS_MAX components.
    """
    kept = {} if report.is_full else {each.name: each for each in components}
    told = {**kept, **{each.name: each for each in report.components}}
    found = {name: told[name] for name in sorted(told) if name not in report.removed}
    if len(found) > COMPONENTS_MAX:
        raise errors.InvalidRequestError(
            f"cannot take the report: it makes {len(found)} components of one node",
            code="components_many",
            field="components",
            value=str(len(found)),
            rule=f"at most {COMPONENTS_MAX}",
        )
    return found


def _take_inventory(draft: drafts.Draft, node_id: model.NodeId, report: model.NodeReport) -> None:
    node = draft.world.nodes[node_id]
    told = merged(node.components.values(), report)
    components = {name: durable(each) for name, each in told.items()}
    conditions = node.conditions if report.conditions is None else report.conditions
    if (components, conditions) != (node.components, node.conditions):
        draft.put_node(copying.replace(node, components=components, conditions=conditions))
    if conditions != node.conditions:
        draft.woken.add(node_id)


def _note_local(draft: drafts.Draft, node_id: model.NodeId, report: model.NodeReport) -> None:
    """Write down what was changed by hand on the node itself, so that nobody wonders; a node may say it again."""
    for each in report.operations:
        if each.operation_id.startswith(LOCAL_PREFIX) and each.state not in HOLDS:
            how = f"{each.component} {each.state.value} {each.reason}".rstrip()
            draft.put_audit(node_id, "node.changed_by_hand", node_id, f"{how} by operation {each.operation_id}")


def _own(
    draft: drafts.Draft, node_id: model.NodeId, report: model.NodeReport, find: FindAssignment
) -> dict[model.OperationId, rows.Assignment]:
    known: dict[model.OperationId, rows.Assignment] = {}
    named = [*(each.operation_id for each in report.operations), *(each.operation_id for each in report.steps)]
    for operation_id in dict.fromkeys(each for each in named if not each.startswith(LOCAL_PREFIX)):
        assignment = draft.world.assignments.get(operation_id) or find(operation_id)
        if assignment is not None and assignment.node_id == node_id:
            known[operation_id] = assignment
        else:
            draft.put_refusal(node_id, "report", _not_given(node_id, operation_id), operation_id)
    return known


def _take_status(
    draft: drafts.Draft, known: dict[model.OperationId, rows.Assignment], status: model.OperationStatus
) -> bool:
    assignment = known.get(status.operation_id)
    if assignment is None or assignment.status == status:
        return False
    others = draft.world.of_node(assignment.node_id)
    is_free = all(each.operation_id == assignment.operation_id or not each.is_open for each in others)
    told = copying.replace(assignment, status=status, is_open=status.state in HOLDS and is_free, is_settled=False)
    known[status.operation_id] = told
    draft.put_assignment(told)
    return True


def _take_step(draft: drafts.Draft, known: dict[model.OperationId, rows.Assignment], step: model.StepRecord) -> None:
    if step.operation_id not in known:
        return
    told = draft.world.steps.get(step.operation_id, ())
    if step.index in told or len(told) >= STEPS_MAX:
        return
    draft.put_step(step)
    if step.operation_id not in draft.world.assignments:
        tracing.told_late(draft, known[step.operation_id], step)


def _let_go(draft: drafts.Draft, assignment: rows.Assignment) -> None:
    if assignment.state not in _GOES_ON:
        stepping.settle(draft, assignment)


def _forget(draft: drafts.Draft, node_id: model.NodeId, known: dict[model.OperationId, rows.Assignment]) -> None:
    """Let go of what a node no longer knows; while the rollout is under way, that is for the core to judge."""
    for each in draft.world.of_node(node_id):
        if each.operation_id not in known and each.rollout_id not in draft.world.rollouts:
            stepping.settle(draft, each)


def _not_given(node_id: model.NodeId, operation_id: model.OperationId) -> errors.RefusedError:
    return errors.RefusedError(
        f"cannot take the word of node {node_id} on operation {operation_id}: it was not given to it",
        code="operation_unknown",
        field="operation_id",
        value=operation_id,
        rule="a node speaks of its own operations",
    )


def _tell(
    draft: drafts.Draft,
    node_id: model.NodeId,
    report: model.NodeReport,
    known: dict[model.OperationId, rows.Assignment],
    found: tuple[model.Rollout, rows.Lease] | None,
) -> None:
    if found is None:
        return
    rollout, lease = found
    own = (each for each in report.operations if each.operation_id in known)
    event = events.NodeReported(
        at=draft.at,
        node_id=node_id,
        operations=tuple(each for each in own if known[each.operation_id].rollout_id == rollout.id),
        components=report.components,
        is_full=report.is_full,
        conditions=draft.world.nodes[node_id].conditions,
    )
    try:
        stepping.feed(draft, rollout, lease, event)
    except errors.IllegalEventError as error:
        stepping.record_refusal(draft, event, error, node_id)
