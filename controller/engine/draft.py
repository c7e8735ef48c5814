"""A draft of the next world: what one piece of work wants to write, kept apart until the whole of it is right.

Rules kept: a draft that is dropped leaves no mark; several drafts become one transaction, in their order. Left out:
deciding anything (`stepping`, `reporting`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from controller.core import access, copying, errors, feedback, model, statistics
from controller.core.audit import chain
from controller.core.monitoring import board as boards
from controller.core.triggers import draft as decisions
from controller.engine import world as worlds
from controller.store import rows
from controller.telemetry import spans


@dataclass(slots=True)
class Draft:
    """What is to be written, and the world as it then is.

    Args:
        at: The instant of the work.
        earlier: What stands before it in the same transaction.
        rollouts: The write for each rollout that differs.
        woken: Nodes whose commands may differ.
        appeared: Nodes that a rollout may take in now: new ones, and those with other labels.
        left: Digests that a node has just left for cause.
        turned: Rollouts whose state is another one.
        watched: How rules of the monitor stand; None where nothing of that is kept any more.
        triggers: Those that are written, by name; None for those that are no more.
        acts: Firings whose action is to be begun.
        answers: What calls are answered, by the request identity of each.
        closing: Called once all that follows from the work is drafted; None for nothing more to draft.
        is_alive: True to write also where nothing else is: every transaction says that the controller lives.
    """

    world: worlds.World
    at: datetime
    earlier: Draft | None = None
    nodes: dict[model.NodeId, rows.NodeWrite] = field(default_factory=dict)
    sessions: dict[model.NodeId, rows.Session] = field(default_factory=dict)
    releases: list[model.Release] = field(default_factory=list)
    rollouts: dict[model.RolloutId, rows.RolloutWrite] = field(default_factory=dict)
    assignments: dict[model.OperationId, rows.Assignment] = field(default_factory=dict)
    steps: list[model.StepRecord] = field(default_factory=list)
    occurrences: list[rows.Occurrence] = field(default_factory=list)
    audit: list[chain.Entry] = field(default_factory=list)
    refusals: list[rows.Refusal] = field(default_factory=list)
    requests: dict[str, model.RolloutId] = field(default_factory=dict)
    outbox: list[rows.Span] = field(default_factory=list)
    removed: dict[model.NodeId, None] = field(default_factory=dict)
    declarations: list[rows.Declaration] = field(default_factory=list)
    channels: list[model.Channel] = field(default_factory=list)
    blocks: dict[worlds.ReleaseKey, rows.Block | None] = field(default_factory=dict)
    freezes: dict[model.FreezeId, model.Freeze | None] = field(default_factory=dict)
    outcomes: list[model.Outcome] = field(default_factory=list)
    totals: statistics.Totals | None = None
    refused: int | None = None
    watched: dict[boards.Key, model.Watched | None] = field(default_factory=dict)
    looked_at: datetime | None = None
    triggers: dict[str, rows.TriggerRow | None] = field(default_factory=dict)
    signals: dict[rows.SignalKey, model.Signal | None] = field(default_factory=dict)
    firings: dict[model.FiringId, model.Firing] = field(default_factory=dict)
    received: dict[rows.EventKey, None] = field(default_factory=dict)
    accesses: dict[str, access.Facts] = field(default_factory=dict)
    acts: dict[model.FiringId, model.Firing] = field(default_factory=dict)
    woken: set[model.NodeId] = field(default_factory=set)
    appeared: dict[model.NodeId, None] = field(default_factory=dict)
    left: dict[model.Digest, str] = field(default_factory=dict)
    turned: dict[model.RolloutId, None] = field(default_factory=dict)
    answers: dict[str, rows.Answer] = field(default_factory=dict)
    closing: Callable[[], None] | None = None
    is_alive: bool = False

    def put_node(self, node: model.Node) -> None:
        """Write a node's row."""
        earlier = self.nodes.get(node.id)
        replaces = self.world.nodes.get(node.id) if earlier is None else earlier.replaces
        self.nodes[node.id] = rows.NodeWrite(node, replaces)
        self.world = copying.replace(self.world, nodes=self.world.nodes.insert(node.id, node))

    def remove_node(self, node_id: model.NodeId) -> None:
        """Take a node's row away."""
        self.nodes.pop(node_id, None)
        self.removed[node_id] = None
        self.world = self.world.without_node(node_id)
        self.woken.add(node_id)

    def put_session(self, session: rows.Session) -> None:
        """Write a node's latest session."""
        self.sessions[session.node_id] = session
        self.world = copying.replace(self.world, sessions=self.world.sessions.insert(session.node_id, session))

    def put_release(self, release: model.Release) -> None:
        """Write a release that is not stored yet."""
        self.releases.append(release)
        key = (release.component, release.version)
        self.world = copying.replace(self.world, releases=self.world.releases.insert(key, release))

    def put_new_rollout(self, rollout: model.Rollout, lease: rows.Lease) -> None:
        """Write a rollout that is not stored yet, with all of its changes, under its first lease."""
        self.world = self.world.with_rollout(rollout, lease)
        self.rollouts[rollout.id] = rows.RolloutWrite(rollout, None, lease, tuple(rollout.changes))

    def put_rollout(
        self,
        rollout: model.Rollout,
        changed: tuple[model.ChangeKey, ...],
        lease: rows.Lease,
        *,
        standings: tuple[model.NodeId, ...] = (),
        is_replanned: bool = False,
        is_decided: bool = False,
    ) -> None:
        """Write a rollout's next state, one revision on, and those of its changes and standings that differ."""
        earlier = self.rollouts.get(rollout.id)
        write = rows.RolloutWrite(rollout, rollout.revision - 1, lease, changed, standings, is_replanned, is_decided)
        self.rollouts[rollout.id] = write if earlier is None else _joined(earlier, write)
        self.world = self.world.with_rollout(rollout, lease)

    def put_declaration(self, declaration: rows.Declaration) -> None:
        """Write what is declared of the ways of one component, in the place of what was."""
        self.declarations.append(declaration)
        known, component = self.world.declared, declaration.component
        declared = copying.replace(
            known,
            edges=(*(each for each in known.edges if each.component != component), *declaration.edges),
            barriers=(*(each for each in known.barriers if each.component != component), *declaration.barriers),
        )
        self.world = self.world.with_graph(declared=declared)

    def put_channel(self, channel: model.Channel) -> None:
        """Write where a channel points."""
        self.channels.append(channel)
        key, known = (channel.component, channel.name), self.world.declared
        others = (each for each in known.channels if (each.component, each.name) != key)
        self.world = self.world.with_graph(declared=copying.replace(known, channels=(*others, channel)))

    def put_block(self, block: rows.Block) -> None:
        """Close every way to a version."""
        key = (block.component, block.version)
        self.blocks[key] = block
        self.world = self.world.with_graph(blocks=self.world.blocks.insert(key, block))

    def lift_block(self, key: worlds.ReleaseKey) -> None:
        """Take a block away."""
        self.blocks[key] = None
        self.world = self.world.with_graph(blocks=self.world.blocks.discard(key))

    def put_freeze(self, freeze: model.Freeze) -> None:
        """Write a freeze."""
        self.freezes[freeze.id] = freeze
        self.world = copying.replace(self.world, freezes=self.world.freezes.insert(freeze.id, freeze))

    def lift_freeze(self, freeze_id: model.FreezeId) -> None:
        """Take a freeze away."""
        self.freezes[freeze_id] = None
        self.world = copying.replace(self.world, freezes=self.world.freezes.discard(freeze_id))

    def put_outcome(self, outcome: model.Outcome) -> None:
        """Write what came of an operation, and learn from it."""
        self.outcomes.append(outcome)
        self.world = copying.replace(self.world, memory=feedback.record(self.world.memory, outcome))

    def put_totals(self, totals: statistics.Totals) -> None:
        """Write what came of all operations."""
        self.totals = totals
        self.world = copying.replace(self.world, totals=totals)

    def put_board(self, board: boards.Board, changed: Mapping[boards.Key, model.Watched | None]) -> None:
        """Write how the rules of the monitor stand; of what is kept that which differs, None for what no longer is."""
        self.watched |= changed
        self.looked_at = board.looked_at
        self.world = copying.replace(self.world, board=board)

    def put_trigger(self, trigger: model.Trigger, decision: decisions.Decision) -> None:
        """Write a trigger, new or with another definition, and what was decided of it."""
        self.triggers[trigger.name] = rows.TriggerRow(trigger, decision.status)
        self._put_decided(trigger, decision)

    def put_decision(self, trigger: model.Trigger, decision: decisions.Decision) -> None:
        """Write what was decided of a trigger; of what it remembers only if that is more than when it was looked at."""
        before = self.world.statuses[trigger.name]
        if copying.replace(before, signals=decision.status.signals) != decision.status:
            self.triggers[trigger.name] = rows.TriggerRow(trigger, decision.status)
        self._put_decided(trigger, decision)

    def _put_decided(self, trigger: model.Trigger, decision: decisions.Decision) -> None:
        self.signals |= {rows.SignalKey(trigger.id, key): each for key, each in decision.signals.items()}
        self.firings |= {each.id: each for each in decision.firings}
        self.acts |= {each.id: each for each in decision.acts}
        self.world = self.world.with_trigger(trigger, decision.status, decision.signals)

    def remove_trigger(self, trigger: model.Trigger, decision: decisions.Decision) -> None:
        """Take a trigger away, whose open firings were ended."""
        self._put_decided(trigger, decision)
        self.triggers[trigger.name] = None
        self.world = self.world.without_trigger(trigger.name)

    def put_received(self, key: rows.EventKey) -> None:
        """Write that an event has arrived."""
        self.received[key] = None

    def has_received(self, key: rows.EventKey) -> bool:
        """Tell whether an event has arrived in this transaction."""
        return key in self.received or (self.earlier is not None and self.earlier.has_received(key))

    def firings_of(self, name: str) -> tuple[model.Firing, ...]:
        """Find the firings of a trigger that this transaction writes."""
        earlier = () if self.earlier is None else self.earlier.firings_of(name)
        return (*earlier, *(each for each in self.firings.values() if each.trigger == name))

    def count_refused(self) -> int:
        """Count a request that is refused; give its number."""
        self.refused = self.world.refused + 1
        self.world = copying.replace(self.world, refused=self.refused)
        return self.refused

    def put_assignment(self, assignment: rows.Assignment) -> None:
        """Write an assignment; the node's other side of it, what holds it, follows."""
        self.assignments[assignment.operation_id] = assignment
        self.world = self.world.with_assignment(assignment)
        self.woken.add(assignment.node_id)
        holder = next((each.operation_id for each in self.world.of_node(assignment.node_id) if each.is_open), None)
        node = self.world.nodes[assignment.node_id]
        if node.operation_id != holder:
            held = self.world.nodes.insert(node.id, copying.replace(node, operation_id=holder))
            self.world = copying.replace(self.world, nodes=held)

    def put_step(self, step: model.StepRecord) -> None:
        """Write a step record."""
        self.steps.append(step)
        if step.operation_id in self.world.assignments:
            self.world = self.world.with_step(step)

    def put_span(self, span: spans.Span) -> None:
        """Write a span into the outbox."""
        self.outbox.append(rows.Span(span.trace_id, span.span_id, spans.to_text(span)))

    def put_audit(self, actor: str, action: str, subject: str, reason: str = "", *, result: str = chain.DONE) -> None:
        """Write who did what, or was refused it."""
        self.audit.append(chain.Entry(self.at, actor, action, subject, reason, result))

    def put_access(self, subject: str, facts: access.Facts) -> None:
        """Write what decides who may do what, as it was seen in one place."""
        self.accesses[subject] = facts

    def put_refusal(self, actor: str, action: str, error: errors.InstarError, body: str) -> None:
        """Write what was not done."""
        self.refusals.append(rows.Refusal(self.at, actor, action, error.code, str(error), body))

    def assignment(self, operation_id: model.OperationId) -> rows.Assignment | None:
        """Find an operation that this transaction writes, settled or not."""
        found = self.assignments.get(operation_id)
        return self.earlier.assignment(operation_id) if found is None and self.earlier is not None else found

    def rollout(self, rollout_id: model.RolloutId) -> rows.RolloutWrite | None:
        """Find a rollout that this transaction writes, at its end or not."""
        found = self.rollouts.get(rollout_id)
        return self.earlier.rollout(rollout_id) if found is None and self.earlier is not None else found

    def requested(self, request_id: str) -> model.RolloutId | None:
        """Find what a request made in this transaction."""
        found = self.requests.get(request_id)
        return self.earlier.requested(request_id) if found is None and self.earlier is not None else found

    def answered(self, request_id: str) -> rows.Answer | None:
        """Find what a call is answered in this transaction."""
        found = self.answers.get(request_id)
        return self.earlier.answered(request_id) if found is None and self.earlier is not None else found

    def absorb(self, later: Draft) -> None:
        """Take over all that a later draft, made on this one's world, wants to write."""
        self.world = later.world
        for node_id in later.removed:
            self.nodes.pop(node_id, None)
        self.removed |= later.removed
        for node_id, node in later.nodes.items():
            known = self.nodes.get(node_id)
            self.nodes[node_id] = node if known is None else rows.NodeWrite(node.node, known.replaces)
        for rollout_id, write in later.rollouts.items():
            earlier = self.rollouts.get(rollout_id)
            self.rollouts[rollout_id] = write if earlier is None else _joined(earlier, write)
        self.sessions |= later.sessions
        self.assignments |= later.assignments
        self.requests |= later.requests
        self.answers |= later.answers
        self.releases += later.releases
        self.steps += later.steps
        self.occurrences += later.occurrences
        self.audit += later.audit
        self.refusals += later.refusals
        self.outbox += later.outbox
        self.declarations += later.declarations
        self.channels += later.channels
        self.blocks |= later.blocks
        self.freezes |= later.freezes
        self.outcomes += later.outcomes
        self.totals = later.totals or self.totals
        self.refused = later.refused or self.refused
        self.watched |= later.watched
        self.looked_at = later.looked_at or self.looked_at
        self.triggers |= later.triggers
        self.signals |= later.signals
        self.firings |= later.firings
        self.received |= later.received
        self.accesses |= later.accesses
        self.acts |= later.acts
        self.woken |= later.woken
        self.turned |= later.turned
        self.is_alive |= later.is_alive

    @property
    def is_empty(self) -> bool:
        """True where nothing is to be written."""
        return not any(
            (
                self.nodes,
                self.sessions,
                self.releases,
                self.rollouts,
                self.assignments,
                self.steps,
                self.occurrences,
                self.audit,
                self.refusals,
                self.requests,
                self.answers,
                self.outbox,
                self.removed,
                self.declarations,
                self.channels,
                self.blocks,
                self.freezes,
                self.outcomes,
                self.totals,
                self.refused,
                self.looked_at,
                self.triggers,
                self.signals,
                self.firings,
                self.received,
                self.accesses,
                self.is_alive,
            )
        )

    def commit(self) -> rows.Commit:
        """Return what one transaction has to write."""
        return rows.Commit(
            at=self.at,
            releases=tuple(self.releases),
            nodes=tuple(self.nodes.values()),
            sessions=tuple(self.sessions.values()),
            rollouts=tuple(self.rollouts.values()),
            assignments=tuple(self.assignments.values()),
            steps=tuple(self.steps),
            occurrences=tuple(self.occurrences),
            audit=tuple(self.audit),
            refusals=tuple(self.refusals),
            requests=tuple(self.requests.items()),
            spans=tuple(self.outbox),
            removed_nodes=tuple(self.removed),
            declarations=tuple(self.declarations),
            channels=tuple(self.channels),
            blocks=tuple(each for each in self.blocks.values() if each is not None),
            unblocked=tuple(key for key, each in self.blocks.items() if each is None),
            freezes=tuple(each for each in self.freezes.values() if each is not None),
            lifted=tuple(freeze_id for freeze_id, each in self.freezes.items() if each is None),
            outcomes=tuple(self.outcomes),
            totals=self.totals,
            refused=self.refused,
            watched=tuple(each for each in self.watched.values() if each is not None),
            unwatched=tuple(key for key, each in self.watched.items() if each is None),
            looked_at=self.looked_at,
            triggers=tuple(each for each in self.triggers.values() if each is not None),
            removed_triggers=tuple(name for name, each in self.triggers.items() if each is None),
            signals=tuple(self.signals.items()),
            firings=tuple(self.firings.values()),
            received=tuple(self.received),
            accesses=tuple(self.accesses.items()),
            answers=tuple(self.answers.values()),
        )


def _joined(earlier: rows.RolloutWrite, later: rows.RolloutWrite) -> rows.RolloutWrite:
    return rows.RolloutWrite(
        later.rollout,
        earlier.replaces,
        later.lease,
        earlier.changes + later.changes,
        earlier.standings + later.standings,
        is_replanned=earlier.is_replanned or later.is_replanned,
        is_decided=earlier.is_decided or later.is_decided,
    )
