"""The work of the fleet in numbers: what is under way is counted when somebody asks, what is over moves a few totals.

Rules kept: pure; an operation moves the totals twice, when it is given to a node and when nothing more is to come of
it, each in the transaction that stores this. So at any time ``distributed`` is ``completed`` and ``failed`` and what is
not settled yet. Left out: where the totals are stored, and refused requests, which are rows of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from controller.core import copying, model, progress

S = model.OperationState
_GOES_BACK = frozenset({model.RolloutState.REVERTING, model.RolloutState.REVERTED, model.RolloutState.STUCK})
_UNHEARD = progress.HOLDS | {S.UNKNOWN, S.EXPIRED}  # settled so, nobody heard an outcome in time


@dataclass(frozen=True, slots=True)
class Totals:
    """What has come of all operations since the store was made.

    Args:
        completed: Those that became permanent.
        failed: Those that did not, whatever the reason; those that timed out among them.
        distributed: Those that were given to a node.
        timed_out: Those of which no outcome was heard in time.
        total_duration: Of the completed ones, each from its assignment until its node was done.
    """

    completed: int = 0
    failed: int = 0
    distributed: int = 0
    timed_out: int = 0
    total_duration: timedelta = timedelta()


def distributed(totals: Totals, operations: int = 1) -> Totals:
    """Count operations that are given to nodes."""
    return copying.replace(totals, distributed=totals.distributed + operations)


def settled(totals: Totals, state: model.OperationState, duration: timedelta) -> Totals:
    """Count an operation of which nothing more is to come; to be called once for each.

    Args:
        totals: The totals before.
        state: The last that is known of it.
        duration: From the assignment until now.
    """
    if state is S.PERMANENT:
        return copying.replace(totals, completed=totals.completed + 1, total_duration=totals.total_duration + duration)
    return copying.replace(totals, failed=totals.failed + 1, timed_out=totals.timed_out + (state in _UNHEARD))


def count(
    rollouts: Iterable[model.Rollout], nodes: Iterable[model.Node], totals: Totals, *, refused: int
) -> model.Statistics:
    """Count the work of the fleet; looks at every change of every rollout that is under way.

    Args:
        rollouts: Those that may be under way; what has ended counts for nothing.
        nodes: All that are known.
        totals: What has come of operations so far.
        refused: Requests that were refused.
    """
    changes = [
        (each, each_rollout.state in _GOES_BACK)
        for each_rollout in rollouts
        if not each_rollout.state.is_terminal
        for each in each_rollout.changes.values()
    ]
    connected = [node.is_connected for node in nodes]
    return model.Statistics(
        queued=sum(_is_queued(each, is_going_back=is_going_back) for each, is_going_back in changes),
        active=sum(each.state in progress.HOLDS for each, _ in changes),
        completed=totals.completed,
        failed=totals.failed,
        distributed=totals.distributed,
        timed_out=totals.timed_out,
        mean_duration=totals.total_duration / totals.completed if totals.completed else None,
        total_nodes=len(connected),
        active_nodes=sum(connected),
        refused=refused,
    )


def _is_queued(each: model.Progress, *, is_going_back: bool) -> bool:
    where = progress.place(each, is_going_back=is_going_back)
    return where in (progress.Place.WAITING, progress.Place.RETRYING)
