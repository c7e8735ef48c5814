"""What is asked, what will be done, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rpds import HashTrieMap

from controller.core.model.words import (
    ChangeKind,
    ComponentName,
    Digest,
    Fault,
    Method,
    NodeId,
    OperationId,
    OperationState,
    RolloutId,
    RolloutState,
    Step,
    Strategy,
)


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of a strategy, each with its default.

    Args:
        max_parallel: Operations at the same time within a wave; 0 for as many as the wave has.
        min_healthy_duration: How long a changed node must be healthy without a break (G7).
        healthy_deadline: Time after COMMIT within which that must come true.
        progress_deadline: Time without a node becoming healthy after which the rollout fails.
        unknown_deadline: Silence after which an operation counts as UNKNOWN, against the infrastructure.
        max_failures: Nodes that may fail before the rollout reverts.
        soak_duration: Time between SWITCH and COMMIT.
        soak_requests_min: Requests that the new instance must have answered in the soak.
        restart_allowed: A change that cannot be a hot swap may be a restart; else it is refused when it is planned.
        discard_writes: Going back to an older state schema may drop what was written since the rollback point.
    """

    max_parallel: int = 0
    min_healthy_duration: timedelta = timedelta(seconds=10)
    healthy_deadline: timedelta = timedelta(minutes=5)
    progress_deadline: timedelta = timedelta(minutes=10)
    unknown_deadline: timedelta = timedelta(minutes=5)
    max_failures: int = 0
    soak_duration: timedelta = timedelta(seconds=5)
    soak_requests_min: int = 0
    restart_allowed: bool = False
    discard_writes: bool = False


@dataclass(frozen=True, slots=True)
class CanaryParameters:
    """Parameters of CANARY: how many nodes go first."""

    nodes: int = 1


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """What somebody asks for.

    Args:
        selector: Kubernetes label selector; empty for all nodes.
        parameters: Those of the strategy; None where it has none.
        target_version: Empty where a kind is asked for.
        install: True when nodes that lack the component shall get it.
        name: For people; never empty once accepted.
        kind: REMOVE, START, STOP or RESTART of what is installed; None for the target version.
    """

    component: ComponentName
    target_version: str
    strategy: Strategy
    selector: str = ""
    parameters: CanaryParameters | None = None
    policy: Policy = field(default_factory=Policy)
    install: bool = False
    name: str = ""
    kind: ChangeKind | None = None

    @property
    def purpose(self) -> str:
        """What is asked of the component, in a word: the target version, or the kind."""
        return self.target_version if self.kind is None else self.kind.value.lower()


@dataclass(frozen=True, slots=True)
class Change:
    """One component on one node; `from_*` is empty for INSTALL, `to_*` for REMOVE; START, STOP and RESTART keep them.

    Args:
        method: Also that of what undoes it.
        no_way_back: Why it could not be undone once it is committed, in a sentence; empty where it can.
    """

    node_id: NodeId
    component: ComponentName
    kind: ChangeKind
    method: Method
    from_version: str
    from_digest: Digest
    to_version: str
    to_digest: Digest
    no_way_back: str = ""


@dataclass(frozen=True, slots=True)
class ChangeKey:
    """What tells the changes of one rollout apart: hops put one component on one node into several waves."""

    wave: int
    node_id: NodeId
    component: ComponentName


@dataclass(frozen=True, slots=True)
class Wave:
    """An ordered group of changes.

    Args:
        index: From 1.
        is_canary: True for the small first wave of CANARY.
    """

    index: int
    is_canary: bool
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer before anything moves.

    Args:
        fingerprint: Hash over what the plan depends on: membership, labels used, committed digests, policy;
            never liveness or metrics.
        unchanged: Nodes that the selector takes and that need no change: they run the target already, or lack the
            component and the request does not install it.
    """

    fingerprint: str
    waves: tuple[Wave, ...]
    unchanged: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one change is; one state row each.

    Args:
        change: As planned; what undoes it is derived.
        attempt: How-manieth operation in the present direction; 0 before the first.
        is_reverting: True when the latest operation undoes the change.
        operation_id: The latest operation.
        state: Its state; None before the first.
        step: The step that it was last seen in.
        fault: Whose fault it is, when it failed.
        reason: Short code, when it failed.
        assigned_at: When the latest operation was assigned.
        committed_at: When its COMMIT was heard of.
        deadline_at: Instant after which the present state is judged; stored, never re-armed by a restart.
        is_judgeable: False between a controller's absence and the node's fresh report (G8).
        is_touched: True once an operation of the change has been committed: a revert has to take it back. Never of
            a RESTART, which leaves nothing to take back.
        is_proven: True once the node has shown the wanted digest, healthy for long enough, under the latest
            operation (G7); done means PERMANENT and proven.
    """

    change: Change
    wave: int
    attempt: int = 0
    is_reverting: bool = False
    operation_id: OperationId | None = None
    state: OperationState | None = None
    step: Step | None = None
    fault: Fault | None = None
    reason: str = ""
    message: str = ""
    assigned_at: datetime | None = None
    committed_at: datetime | None = None
    ended_at: datetime | None = None
    deadline_at: datetime | None = None
    is_judgeable: bool = True
    is_touched: bool = False
    is_proven: bool = False

    @property
    def key(self) -> ChangeKey:
        """What tells this change apart within its rollout."""
        return ChangeKey(self.wave, self.change.node_id, self.change.component)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many changes stand where; moved along with each change, so that no event has to count.

    Args:
        holding: Operations that hold their node: assigned, and neither committed nor ended; in a revert also those
            whose outcome nobody knows.
        settling: Operations that are committed and not yet proven.
        retrying: Changes that wait for their next attempt.
        done: Changes that are done; in a revert, those that are back or were never touched.
        version_failed: Changes that failed by the version's own fault.
        infrastructure_failed: Changes that failed otherwise, silent ones among them; in a revert, those that
            cannot go back.
        assigned: Changes of the present wave that have had their first operation: the first so many of its order.
        wave_done: Changes of the present wave that are done.
    """

    holding: int = 0
    settling: int = 0
    retrying: int = 0
    done: int = 0
    version_failed: int = 0
    infrastructure_failed: int = 0
    assigned: int = 0
    wave_done: int = 0


@dataclass(frozen=True, slots=True)
class Rollout:
    """A plan being carried out; one state row, and one for each change.

    Args:
        wave: Number of the wave that is out; 0 before the first.
        progress_by: Instant by which the next node must have become healthy.
        reason: Short code of why it is as it is; set on a RUNNING one, it ends as FAILED once no node is held.
        tally: Where its changes stand.
        due_at: No deadline of a change is earlier; never later than the earliest of them.
        judge_from: Instant before which a node that was not heard of since a controller's absence is not judged.
        revision: Raised by one with each stored state; the store compares and sets it.
    """

    id: RolloutId
    request: UpgradeRequest
    plan: Plan
    state: RolloutState
    actor: str
    created_at: datetime
    changes: HashTrieMap[ChangeKey, Progress]
    wave: int = 0
    wave_started_at: datetime | None = None
    ended_at: datetime | None = None
    progress_by: datetime | None = None
    reason: str = ""
    message: str = ""
    tally: Tally = Tally()
    due_at: datetime | None = None
    judge_from: datetime | None = None
    revision: int = 0
