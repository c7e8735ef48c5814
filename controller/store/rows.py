"""What is stored beside the core's own values, and what one transaction writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controller.core import access, effects, events, model, statistics
from controller.core.audit import chain


@dataclass(frozen=True, slots=True)
class Assignment:
    """One operation as it was given to a node.

    Args:
        fence: The node's fence, raised in the transaction that stored this row.
        epoch: The lease under which it was given out.
        status: What the agent last said of it; None until it has spoken.
        cancel_reason: Why it shall be given up; empty while nobody wants that.
        is_open: True while it holds the node: from ASSIGNED until COMMIT, its end, or a later assignment.
        is_settled: True once nothing more is to come of it.
        proceeds: The holds that were ended, oldest first; each names the next one.
        is_counted: True once the totals have moved by what came of it.
        is_learnt: True once its outcome is stored.
    """

    assign: effects.Assign
    rollout_id: model.RolloutId
    fence: int
    epoch: int
    assigned_at: datetime
    status: model.OperationStatus | None = None
    cancel_reason: str = ""
    is_open: bool = True
    is_settled: bool = False
    proceeds: tuple[effects.Proceed, ...] = ()
    is_counted: bool = False
    is_learnt: bool = False

    @property
    def operation_id(self) -> model.OperationId:
        """The operation."""
        return self.assign.operation_id

    @property
    def node_id(self) -> model.NodeId:
        """The node that it was given to."""
        return self.assign.change.node_id

    @property
    def hold_before(self) -> model.Step | None:
        """The hold that stands: the step before which the node shall wait; None for none."""
        hold = self.assign.hold_before
        for each in self.proceeds:
            hold = each.hold_before if hold is each.step else hold
        return hold

    @property
    def state(self) -> model.OperationState:
        """The operation's state, as far as the agent has spoken."""
        return model.OperationState.ASSIGNED if self.status is None else self.status.state


@dataclass(frozen=True, slots=True)
class Session:
    """The latest session of a node."""

    node_id: model.NodeId
    session_id: model.SessionId
    generation: int
    boot_id: str
    instance_token: str
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may step a rollout."""

    rollout_id: model.RolloutId
    epoch: int
    owner: str


@dataclass(frozen=True, slots=True)
class RolloutWrite:
    """A rollout's head row and those of its changes that differ.

    Args:
        replaces: The revision that must be stored now; None where the rollout is new.
        changes: Those that differ, each once or more often; what the rollout no longer has goes.
        standings: Nodes whose standing differs, as often; one against which nothing stands any more goes.
        is_replanned: Its plan is another one: all of its changes are new.
        is_decided: Its approval is another one.
    """

    rollout: model.Rollout
    replaces: int | None
    lease: Lease
    changes: tuple[model.ChangeKey, ...]
    standings: tuple[model.NodeId, ...] = ()
    is_replanned: bool = False
    is_decided: bool = False


@dataclass(frozen=True, slots=True)
class NodeWrite:
    """A node's row; the fence that is stored must not be higher.

    Args:
        replaces: The node as it is stored now: only the columns that differ are written; None where it is new.
    """

    node: model.Node
    replaces: model.Node | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Why nobody may go to a version; it stands whatever is declared of the ways to it."""

    component: model.ComponentName
    version: str
    reason: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is declared of the ways of one component, in the place of all that was before."""

    component: model.ComponentName
    edges: tuple[model.Edge, ...]
    barriers: tuple[model.Barrier, ...]


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One event of the journal, with the revision that it led to."""

    rollout_id: model.RolloutId
    revision: int
    event: events.Event


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that was asked for and not done.

    Args:
        body: What was asked, as text.
    """

    at: datetime
    actor: str
    action: str
    code: str
    message: str
    body: str


@dataclass(frozen=True, slots=True)
class Span:
    """A span that is to be emitted; ``body`` never changes once stored."""

    trace_id: str
    span_id: str
    body: str


@dataclass(frozen=True, slots=True)
class TriggerRow:
    """A trigger, with what it remembers; the signals of that have rows of their own."""

    trigger: model.Trigger
    status: model.TriggerStatus


@dataclass(frozen=True, slots=True)
class SignalKey:
    """Where the condition of a trigger stands somehow; None is the fleet."""

    trigger_id: model.TriggerId
    node_id: model.NodeId | None


@dataclass(frozen=True, slots=True)
class EventKey:
    """What tells events apart."""

    source: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered that must not be carried out twice.

    Args:
        request_id: Chosen by the caller.
        method: What was called.
        caller: Who did.
        content_hash: SHA-256 of all else that was sent.
        at: When it was carried out.
        body: The answer as it went over the wire; empty where it is not kept.
        withheld_because: Why it is not kept, and what was made; empty where it is.
    """

    request_id: str
    method: str
    caller: str
    content_hash: str
    at: datetime
    body: bytes
    withheld_because: str = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that one transaction writes.

    Args:
        at: When the controller was alive to write it.
        removed_nodes: Rows that go, before ``nodes`` are written.
        assignments: Closed ones stand before the open ones that replace them.
        unblocked: Versions that are open again.
        lifted: Freezes that are over.
        totals: None where they have not moved.
        refused: Requests that were refused, since the store was made; None where that has not moved.
        watched: How rules of the monitor stand.
        unwatched: Rules and nodes of which nothing is kept any more; None for the fleet.
        looked_at: When the monitor looked; None where it has not.
        removed_triggers: Names of those that are no more; their firings stay.
        signals: How the conditions of triggers stand; None for what is kept no longer.
        received: Events that were not known before.
        accesses: What decides who may do what, by where that was seen.
        answers: What calls are answered that must not be carried out twice.
    """

    at: datetime
    releases: tuple[model.Release, ...] = ()
    nodes: tuple[NodeWrite, ...] = ()
    sessions: tuple[Session, ...] = ()
    rollouts: tuple[RolloutWrite, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    steps: tuple[model.StepRecord, ...] = ()
    occurrences: tuple[Occurrence, ...] = ()
    audit: tuple[chain.Entry, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    requests: tuple[tuple[str, model.RolloutId], ...] = ()
    spans: tuple[Span, ...] = ()
    removed_nodes: tuple[model.NodeId, ...] = ()
    declarations: tuple[Declaration, ...] = ()
    channels: tuple[model.Channel, ...] = ()
    blocks: tuple[Block, ...] = ()
    unblocked: tuple[tuple[model.ComponentName, str], ...] = ()
    freezes: tuple[model.Freeze, ...] = ()
    lifted: tuple[model.FreezeId, ...] = ()
    outcomes: tuple[model.Outcome, ...] = ()
    totals: statistics.Totals | None = None
    refused: int | None = None
    watched: tuple[model.Watched, ...] = ()
    unwatched: tuple[tuple[str, model.NodeId | None], ...] = ()
    looked_at: datetime | None = None
    triggers: tuple[TriggerRow, ...] = ()
    removed_triggers: tuple[str, ...] = ()
    signals: tuple[tuple[SignalKey, model.Signal | None], ...] = ()
    firings: tuple[model.Firing, ...] = ()
    received: tuple[EventKey, ...] = ()
    accesses: tuple[tuple[str, access.Facts], ...] = ()
    answers: tuple[Answer, ...] = ()
