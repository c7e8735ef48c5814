"""How far it is: each change, all of them counted, and the rollout that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rpds import HashTrieMap

from controller.core.model.analysis import Judging
from controller.core.model.approval import Approval
from controller.core.model.fleet import Standing
from controller.core.model.monitor import RuleHold
from controller.core.model.plan import Change, ChangeKey, Plan, UpgradeRequest
from controller.core.model.words import Fault, NodeId, OperationId, OperationState, RolloutId, RolloutState, Step


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one change is; one state row each.

    Args:
        change: As planned; what undoes it is derived.
        attempt: How-manieth operation in the present direction, over all retries; 0 before the first.
        is_reverting: True when the latest operation undoes the change.
        operation_id: The latest operation.
        state: Its state; None while the change waits for one: before the first, and once it shall be tried again.
        step: The step that it was last seen in; of a HELD one the step that it waits before.
        fault: Whose fault it is, when it failed.
        reason: Short code, when it failed or was left out.
        assigned_at: When the latest operation was assigned.
        committed_at: When its COMMIT was heard of.
        deadline_at: Instant after which the present state is judged; stored, never re-armed by a restart.
        is_judgeable: False between a controller's absence and the node's fresh report (G8).
        is_touched: True once an operation of the change has been committed: a revert has to take it back. Never of
            a RESTART, which leaves nothing to take back.
        is_proven: True once the node has shown the wanted digest, healthy for long enough, under the latest
            operation (G7); done means PERMANENT and proven.
        start_by: Instant after which the node refuses to begin the latest operation.
        healthy_by: Instant by which it must be healthy, once COMMIT was heard of.
        attempts_before: Attempts in the present direction that were before the latest order to try.
        attempts_other: Operations in the other direction so far.
        is_left: True where a revert leaves it: it has no way back, or what came after it on the node stays.
        is_skipped: True where nothing is done any more, and that is no failure.
        is_bad: True once the version failed on the node by its own fault: it is not offered again (G9).
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
    start_by: datetime | None = None
    healthy_by: datetime | None = None
    attempts_before: int = 0
    attempts_other: int = 0
    is_left: bool = False
    is_skipped: bool = False
    is_bad: bool = False

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
        assigned: Changes of the present wave that no longer wait for an operation.
        wave_done: Changes of the present wave that are done.
        skipped: Changes that were dropped, which is no failure.
        wave_skipped: Those of the present wave.
        waiting: In a revert, changes that wait for their turn to go back.
        undoing: In a revert, operations that take a node back and are out.
        held_at_switch: Operations that are held before SWITCH.
        held_at_commit: Operations that are held before COMMIT.
        unavailable: Nodes that are down, or that an operation has made unavailable.
        removed: Nodes that were removed since the plan was made.
    """

    holding: int = 0
    settling: int = 0
    retrying: int = 0
    done: int = 0
    version_failed: int = 0
    infrastructure_failed: int = 0
    assigned: int = 0
    wave_done: int = 0
    skipped: int = 0
    wave_skipped: int = 0
    waiting: int = 0
    undoing: int = 0
    held_at_switch: int = 0
    held_at_commit: int = 0
    unavailable: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class Rollout:
    """A plan being carried out; one state row, and one for each change.

    Args:
        wave: Number of the wave that is out; 0 before the first.
        progress_by: Instant by which the next node must have become healthy.
        reason: Short code of why it is as it is; set on a RUNNING or PAUSED one, it starts nothing and ends once no
            node is held.
        tally: Where its changes stand.
        due_at: No deadline of a change is earlier; never later than the earliest of them.
        judge_from: Instant before which a node that was not heard of since a controller's absence is not judged.
        revision: Raised by one with each stored state; the store compares and sets it.
        reached: The highest wave that was ever out; after a retry ``wave`` may be a lower one.
        is_cancelled: A RUNNING one that ends becomes CANCELLED, not FAILED.
        is_version_at_fault: The version failed on more nodes than may fail.
        is_emergency: It goes back at once, whatever the floor, until ``progress_by`` and no longer.
        paused_at: Since when it is PAUSED; its clocks stand at that instant.
        paused_because: By whom and why, in a sentence.
        idle_since: Since when nothing is out and only a window, a promotion or the standing of nodes is waited for:
            the lack of progress is not judged meanwhile.
        stopped_for: How long its clocks have stood still so far.
        bake_until: When the bake of the wave that is out ends; None where none is going on.
        verify_until: When all new versions have served for long enough, held before COMMIT.
        is_promoted: Somebody has promoted it by hand.
        proceeded: Latest step that held operations of the wave were let into.
        window_until: Latest start within the window that was last found open.
        opens_at: When the window opens that is waited for.
        deadline_at: Instant after which it fails whatever its progress.
        offline_until: Instant at which nodes that are down are given up.
        standings: Nodes against which something stands; those that do not change count as well.
        domains: Unavailable nodes by failure domain.
        cursors: How many changes of each lane the dispatch has passed.
        ready: Numbers of changes that were passed and may start now, by failure domain, ascending.
        unwell: Numbers of changes whose node is unavailable already, ascending: they go first.
        joined: Changes of nodes that appeared later; they follow those of the last wave.
        approval: What it has to wait for before it begins; None where nobody has to approve it.
        rule_holds: Rules of its policy that keep it where it is, one entry for each, by name.
        judging: How its latest canary wave is judged, or was; None where none has been yet.
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
    reached: int = 0
    is_cancelled: bool = False
    is_version_at_fault: bool = False
    is_emergency: bool = False
    paused_at: datetime | None = None
    paused_because: str = ""
    idle_since: datetime | None = None
    stopped_for: timedelta = timedelta()
    bake_until: datetime | None = None
    verify_until: datetime | None = None
    is_promoted: bool = False
    proceeded: Step | None = None
    window_until: datetime | None = None
    opens_at: datetime | None = None
    deadline_at: datetime | None = None
    offline_until: datetime | None = None
    standings: HashTrieMap[NodeId, Standing] = field(default_factory=HashTrieMap)
    # By failure domain: few, and a step may have to look at all of them, so a dict is better than a persistent map.
    domains: Mapping[str, int] = field(default_factory=dict)
    cursors: Mapping[str, int] = field(default_factory=dict)
    ready: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    unwell: tuple[int, ...] = ()
    joined: tuple[Change, ...] = ()
    approval: Approval | None = None
    judging: Judging | None = None
    rule_holds: tuple[RuleHold, ...] = ()
