"""What a node is asked for a change: an operation, or to give one up.

Rules kept: it follows from the change as it stands, so that it can be said again after a restart. Left out: when it is
asked (`dispatch`, `turning`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import cast

from controller.core import effects, model, progress


def assign(each: model.Progress, request: model.UpgradeRequest) -> effects.Assign:
    """Say what a node is asked, for a change that has an operation."""
    policy = request.policy
    is_held = request.strategy is model.Strategy.BLUE_GREEN and not each.is_reverting
    return effects.Assign(
        operation_id=cast("model.OperationId", each.operation_id),
        change=progress.wanted(each),
        attempt=each.attempt,
        is_reverting=each.is_reverting,
        wave=each.wave,
        policy=policy,
        start_by=each.start_by or cast("datetime", each.assigned_at) + policy.unknown_deadline,
        deadline=_hold_duration(request) if is_held else policy.healthy_deadline,
        hold_before=model.Step.SWITCH if is_held else None,
    )


def _hold_duration(request: model.UpgradeRequest) -> timedelta:
    """Give the time until COMMIT where all wait for the slowest: before SWITCH, then until all are verified."""
    found = request.parameters
    verify = found.verify_duration if isinstance(found, model.BlueGreenParameters) else timedelta()
    return 2 * request.policy.progress_deadline + verify


def is_cancellable(each: model.Progress) -> bool:
    """Tell whether a change has an operation that may still be given up."""
    is_out = each.state in progress.HOLDS or each.state is model.OperationState.UNKNOWN
    return is_out and not (each.is_reverting or each.is_touched or each.is_skipped)


def cancel(each: model.Progress, reason: str) -> effects.Cancel:
    """Say that an operation shall be given up."""
    return effects.Cancel(cast("model.OperationId", each.operation_id), each.change.node_id, reason)
