"""One change of this node and how far it is, and what is told of it.

Rules kept here: all of an operation is durable; its deadlines are monotonic seconds of this run of the kernel. Left
out: how it goes on (`machine`), and who may begin (`admission`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from agent.core import effects, events, model, transitions


@dataclass(frozen=True, slots=True)
class Operation:
    """One change and how far it is; all of it is durable.

    Args:
        deadline_seconds: Monotonic instant by which COMMIT must be reached.
        step: The step that runs, is waited before, or that the operation ended in.
        soak_until_seconds: Monotonic instant at which the soak may end.
        healthy_by_seconds: Monotonic instant by which the bake must have passed.
        steps_ended: Number of step records made so far.
    """

    assignment: model.Assignment
    phase: transitions.Phase
    changed_at: datetime
    deadline_seconds: float
    step_started_at: datetime
    step: model.Step | None = None
    steps_ended: int = 0
    soak_until_seconds: float | None = None
    healthy_by_seconds: float | None = None
    is_drained: bool = False
    bake: transitions.Bake = transitions.Bake.PENDING
    fault: model.Fault | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a step decided; ``records`` are the steps that ended with it."""

    state: Operation
    effects: tuple[effects.Effect, ...] = ()
    records: tuple[model.StepRecord, ...] = ()


def accept(assignment: model.Assignment, at: events.Moment) -> Decision:
    """Take an admitted assignment; its deadline counts from here."""
    is_ending = assignment.kind in transitions.ENDING
    return Decision(
        Operation(
            assignment=assignment,
            phase=transitions.Phase.ACCEPTED,
            changed_at=at.wall,
            deadline_seconds=at.monotonic_seconds + assignment.deadline.total_seconds(),
            step_started_at=at.wall,
            bake=transitions.Bake.NOT_NEEDED if is_ending else transitions.Bake.PENDING,
        )
    )


def refuse(
    assignment: model.Assignment,
    at: events.Moment,
    reason: str,
    message: str,
    fault: model.Fault = model.Fault.COMMAND,
) -> Decision:
    """Record that an assignment was not begun; nothing of the node changes."""
    refused = replace(accept(assignment, at).state, phase=transitions.Phase.REFUSED)
    return Decision(replace(refused, fault=fault, reason=reason, message=message))


def status(operation: Operation) -> model.OperationStatus:
    """Say of the operation what the controller is told."""
    is_permanent = operation.bake is transitions.Bake.PASSED
    return model.OperationStatus(
        operation_id=operation.assignment.operation_id,
        fence=operation.assignment.fence,
        component=operation.assignment.component,
        state=model.OperationState.PERMANENT if is_permanent else transitions.STATE_OF[operation.phase],
        step=operation.step,
        fault=operation.fault,
        reason=operation.reason,
        message=operation.message,
        changed_at=operation.changed_at,
    )


def next_deadline(operation: Operation) -> float | None:
    """Tell the monotonic second at which a Ticked is due; None where time alone changes nothing."""
    match operation.phase:
        case transitions.Phase.SETTLING if operation.bake is transitions.Bake.PENDING:
            return operation.healthy_by_seconds
        case (
            transitions.Phase.ACCEPTED
            | transitions.Phase.COMMIT
            | transitions.Phase.SETTLING
            | transitions.Phase.ABORTING
        ):
            return None
        case phase if phase in transitions.TERMINAL:
            return None
        case _:
            return operation.deadline_seconds
