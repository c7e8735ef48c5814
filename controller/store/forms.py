"""How values become rows: the columns that statements ask for by value, and the rest as JSON.

Rules kept: instants are UTC text, which sorts as time does. Left out: when a row is written (`writing`), and how it is
read again (`reading`).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from controller.core import events, model
from controller.core.audit import chain
from controller.store import codec, rows

# What the head row leaves to rows and columns of their own.
ELSEWHERE = frozenset({"approval", "changes", "plan", "request", "standings"})

# What the status of a trigger leaves to rows of their own.
SIGNALS = frozenset({"signals"})

# Which core made a journal's events: they are replayed against later ones for ever.
CORE_VERSION = importlib.metadata.version("instar")

Row = dict[str, Any]


def instant(at: datetime) -> str:
    """Write an instant so that text order is time order."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def head_columns(rollout: model.Rollout) -> Row:
    """What each step of a rollout may change."""
    return {
        "state": rollout.state.value,
        "is_terminal": rollout.state.is_terminal,
        "revision": rollout.revision,
        "head": codec.encode(rollout, model.Rollout, without=ELSEWHERE),
    }


def plan_columns(rollout: model.Rollout) -> Row:
    """What only a new plan changes."""
    return {"plan": codec.encode(rollout.plan, model.Plan)}


def new_rollout_row(rollout: model.Rollout) -> Row:
    """A rollout that is not stored yet."""
    request = rollout.request
    components = (request.component, *(each.component for each in request.also))
    return {
        "rollout_id": rollout.id,
        "name": request.name,
        "request": codec.encode(request, model.UpgradeRequest),
        "components": f" {' '.join(components)} ",
        **head_columns(rollout),
        **plan_columns(rollout),
    }


def approval_row(approval: model.Approval) -> Row:
    """What a rollout waits for before it begins, or what has become of it."""
    return {
        "rollout_id": approval.rollout_id,
        "state": approval.state.value,
        "body": codec.encode(approval, model.Approval),
    }


def lease_row(lease: rows.Lease) -> Row:
    """Who may step a rollout."""
    return {"rollout_id": lease.rollout_id, "epoch": lease.epoch, "owner": lease.owner}


def release_row(release: model.Release) -> Row:
    """A release, as published."""
    return {
        "component": release.component,
        "version": release.version,
        "digest": release.digest,
        "body": codec.encode(release, model.Release),
    }


def node_row(node: model.Node) -> Row:
    """A node, but for what only a live session knows."""
    return {"node_id": node.id, "fence": node.fence} | {name: write(node) for name, write in _NODE_COLUMNS.items()}


def node_columns(node: model.Node, before: model.Node) -> Row:
    """What may differ of a node's row, and its fence."""
    differ = (name for name in _NODE_COLUMNS if getattr(node, name) is not getattr(before, name))
    return {"fence": node.fence} | {name: _NODE_COLUMNS[name](node) for name in differ}


# Each is made of the field of the same name alone.
_NODE_COLUMNS: Mapping[str, Callable[[model.Node], str | None]] = {
    "agent_version": lambda node: node.agent_version,
    "labels": lambda node: codec.encode(node.labels, dict[str, str]),
    "capabilities": lambda node: codec.encode(node.capabilities, frozenset[str]),
    "last_seen_at": lambda node: None if node.last_seen_at is None else instant(node.last_seen_at),
    "components": lambda node: codec.encode(node.components, dict[model.ComponentName, model.InstalledComponent]),
    "bad_digests": lambda node: codec.encode(node.bad_digests, dict[model.Digest, str]),
    "conditions": lambda node: codec.encode(node.conditions, tuple[model.Condition, ...]),
    "own_labels": lambda node: codec.encode(node.own_labels, dict[str, str]),
    "set_labels": lambda node: codec.encode(node.set_labels, dict[str, str]),
    "cordoned_because": lambda node: node.cordoned_because,
    "quarantined_because": lambda node: node.quarantined_because,
    "offline_since": lambda node: None if node.offline_since is None else instant(node.offline_since),
}


def chunk_row(chunk: model.SeriesChunk) -> Row:
    """What a node measured over some minutes."""
    return {
        "node_id": chunk.node_id,
        "component": chunk.component,
        "began_at": instant(chunk.began_at),
        "body": chunk.body,
    }


def session_row(session: rows.Session) -> Row:
    """A node's latest session."""
    return {
        "node_id": session.node_id,
        "session_id": session.session_id,
        "generation": session.generation,
        "boot_id": session.boot_id,
        "instance_token": session.instance_token,
        "opened_at": instant(session.opened_at),
    }


def change_row(rollout_id: model.RolloutId, progress: model.Progress) -> Row:
    """How far one change is."""
    return {
        "rollout_id": rollout_id,
        "wave": progress.wave,
        "node_id": progress.change.node_id,
        "component": progress.change.component,
        "body": codec.encode(progress, model.Progress),
    }


def watch_row(watched: model.Watched) -> Row:
    """How a rule stands somewhere; the fleet has no node."""
    return {"rule": watched.rule, "node_id": watched.node_id or "", "body": codec.encode(watched, model.Watched)}


def standing_row(rollout_id: model.RolloutId, node_id: model.NodeId, standing: model.Standing) -> Row:
    """What stands against a node."""
    return {"rollout_id": rollout_id, "node_id": node_id, "body": codec.encode(standing, model.Standing)}


def assignment_row(assignment: rows.Assignment) -> Row:
    """An operation, as it was given out."""
    return {
        "operation_id": assignment.operation_id,
        "rollout_id": assignment.rollout_id,
        "node_id": assignment.node_id,
        "fence": assignment.fence,
        "epoch": assignment.epoch,
        "state": assignment.state.value,
        "is_open": assignment.is_open,
        "is_settled": assignment.is_settled,
        "body": codec.encode(assignment, rows.Assignment),
    }


def step_row(step: model.StepRecord) -> Row:
    """A step, as it was told."""
    return {
        "operation_id": step.operation_id,
        "step_index": step.index,
        "body": codec.encode(step, model.StepRecord),
    }


def event_row(occurrence: rows.Occurrence) -> Row:
    """One entry of the journal."""
    return {
        "rollout_id": occurrence.rollout_id,
        "revision": occurrence.revision,
        "core_version": CORE_VERSION,
        "at": instant(occurrence.event.at),
        "body": codec.encode(occurrence.event, events.Event),
    }


def audit_row(row: chain.Row) -> Row:
    """Who did what, at its place in the chain."""
    entry = row.entry
    return {
        "epoch": row.epoch,
        "position": row.position,
        "at": instant(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "reason": entry.reason,
        "result": entry.result,
        "previous_hash": row.previous_hash,
        "hash": row.hash,
    }


def audit_epoch_row(epoch: chain.Epoch) -> Row:
    """The beginning of a life, and what it seals."""
    return {
        "number": epoch.number,
        "started_at": instant(epoch.started_at),
        "previous_epoch": epoch.previous.epoch,
        "previous_position": epoch.previous.position,
        "previous_hash": epoch.previous.hash,
        "hash": epoch.hash,
    }


def refusal_row(refusal: rows.Refusal) -> Row:
    """What was not done."""
    return {
        "at": instant(refusal.at),
        "actor": refusal.actor,
        "action": refusal.action,
        "code": refusal.code,
        "message": refusal.message,
        "body": refusal.body,
    }


def span_row(span: rows.Span) -> Row:
    """A span that is to be emitted."""
    return {"trace_id": span.trace_id, "span_id": span.span_id, "body": span.body, "is_emitted": False}


def edge_row(position: int, edge: model.Edge) -> Row:
    """An edge, in the order in which it was declared."""
    return {"component": edge.component, "position": position, "body": codec.encode(edge, model.Edge)}


def barrier_row(barrier: model.Barrier) -> Row:
    """A barrier."""
    return {
        "component": barrier.component,
        "version": barrier.version,
        "body": codec.encode(barrier, model.Barrier),
    }


def channel_row(channel: model.Channel) -> Row:
    """Where a channel points."""
    return {"component": channel.component, "name": channel.name, "body": codec.encode(channel, model.Channel)}


def block_row(block: rows.Block) -> Row:
    """Why nobody may go to a version."""
    return {"component": block.component, "version": block.version, "body": codec.encode(block, rows.Block)}


def freeze_row(freeze: model.Freeze) -> Row:
    """A freeze."""
    return {"freeze_id": freeze.id, "body": codec.encode(freeze, model.Freeze)}


def trigger_row(row: rows.TriggerRow) -> Row:
    """A trigger, and what it remembers but for the signals."""
    return {
        "name": row.trigger.name,
        "trigger_id": row.trigger.id,
        "body": codec.encode(row.trigger, model.Trigger),
        "status": codec.encode(row.status, model.TriggerStatus, without=SIGNALS),
    }


def signal_row(key: rows.SignalKey, signal: model.Signal) -> Row:
    """How a condition stands on a node; the fleet has none."""
    return {**signal_key(key), "body": codec.encode(signal, model.Signal)}


def signal_key(key: rows.SignalKey) -> Row:
    """What names such a row."""
    return {"trigger_id": key.trigger_id, "node_id": key.node_id or ""}


def firing_row(firing: model.Firing) -> Row:
    """A firing."""
    return {
        "trigger_id": firing.trigger_id,
        "number": firing.number,
        "trigger_name": firing.trigger,
        "fired_at": instant(firing.fired_at),
        "is_open": firing.is_open,
        "body": codec.encode(firing, model.Firing),
    }


def outcome_row(outcome: model.Outcome) -> Row:
    """What came of one operation."""
    return {
        "operation_id": outcome.operation_id,
        "at": instant(outcome.at),
        "body": codec.encode(outcome, model.Outcome),
    }
