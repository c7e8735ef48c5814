"""Drafts what people and agents begin: a rollout, a session.

Rules kept: a node belongs to one unfinished rollout at a time: a request whose nodes others have is refused, waits, or
takes their place, as it says itself; a store that was restored jumps past the fence that a node has seen, also for what
it had assigned already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from controller import clock as clocks
from controller.core import approving, errors, events, model, rollout
from controller.engine import draft as drafts
from controller.engine import labelling, queueing, stepping, tracing
from controller.engine import world as worlds
from controller.store import rows

FIRST_EPOCH = 1


@dataclass(frozen=True, slots=True)
class By:
    """Who begins a rollout, and how it gets its names.

    Args:
        owner: The controller that will step it.
    """

    actor: str
    owner: str
    ids: clocks.IdSource
    planning_began_at: datetime


def named(request: model.UpgradeRequest) -> model.UpgradeRequest:
    """Give a request the name of what it is for, where it has none."""
    return request if request.name else replace(request, name=f"{request.component}-{request.purpose}")


def start(
    draft: drafts.Draft,
    request: model.UpgradeRequest,
    planned: model.Plan,
    by: By,
) -> model.Rollout:
    """Draft the rollout of a planned request, and begin it; or let it wait where others have its nodes.

    What somebody has to approve waits for that first, whoever has its nodes meanwhile.

    Raises:
        RefusedError: A node is in another rollout, code ``rollout_conflict``.
    """
    new = rollout.create(by.ids.rollout_id(draft.at), request, planned, actor=by.actor, at=draft.at)
    holders = {} if approving.is_awaited(new) else queueing.holders(draft.world, new)
    if holders and request.conflict is model.ConflictPolicy.REJECT:
        raise _conflict(new, holders)
    lease = rows.Lease(new.id, FIRST_EPOCH, by.owner)
    kept = replace(new, message=queueing.message(holders)) if holders else new
    draft.put_new_rollout(kept, lease)
    draft.put_audit(by.actor, "rollout.start", new.id, f"{request.component} {request.purpose}")
    tracing.rollout_created(draft, new, by.planning_began_at)
    if new.approval is not None:
        draft.put_audit(by.actor, "approval.request", new.id, f"until {new.approval.expires_at.isoformat()}")
        return new
    return _queue(draft, kept, holders, by.actor) if holders else queueing.begin(draft, kept, lease)


def approve(draft: drafts.Draft, approved: model.Rollout, actor: str) -> model.Rollout:
    """Draft the begin of what was approved; or let it wait where others have its nodes.

    Raises:
        RefusedError: A node is in another rollout, code ``rollout_conflict``.
    """
    holders = queueing.holders(draft.world, approved)
    if not holders:
        return queueing.begin(draft, approved, draft.world.leases[approved.id])
    if approved.request.conflict is model.ConflictPolicy.REJECT:
        raise _conflict(approved, holders)
    queueing.wait_on(draft, approved.id, queueing.message(holders))
    return _queue(draft, draft.world.rollouts[approved.id], holders, actor)


def _queue(
    draft: drafts.Draft, waiting: model.Rollout, holders: Mapping[model.RolloutId, model.NodeId], actor: str
) -> model.Rollout:
    draft.put_audit(actor, "rollout.queue", waiting.id, waiting.message)
    if waiting.request.conflict is model.ConflictPolicy.SUPERSEDE:
        _supersede(draft, waiting, holders, actor)
    return waiting


def _supersede(draft: drafts.Draft, new: model.Rollout, holders: Iterable[model.RolloutId], actor: str) -> None:
    """End what has or wants the nodes; what cannot be cancelled any more is waited for."""
    for holder in holders:
        reason = f"rollout {new.id} takes its place"
        event = events.CancelRequested(draft.at, actor, reason)
        with contextlib.suppress(errors.IllegalEventError, errors.RefusedError):
            stepping.feed(draft, draft.world.rollouts[holder], draft.world.leases[holder], event, actor=actor)
            draft.put_audit(actor, "rollout.cancel", holder, reason)


def check_claims(world: worlds.World, wanted: model.Rollout) -> None:
    """Refuse to take up a rollout that would touch a node of another one.

    Raises:
        RefusedError: Code ``rollout_conflict``.
    """
    for change in worlds.planned(wanted):
        holder = world.claims.get(change.node_id)
        if holder is not None and holder != wanted.id:
            raise _conflict(wanted, {holder: change.node_id})


def _conflict(wanted: model.Rollout, holders: Mapping[model.RolloutId, model.NodeId]) -> errors.RefusedError:
    holder, node_id = next(iter(holders.items()))
    return errors.RefusedError(
        f"cannot start rollout {wanted.request.name}: node {node_id} is in rollout {holder}",
        code="rollout_conflict",
        field="selector",
        value=wanted.request.selector,
        rule="a node is in one unfinished rollout at a time",
    )


def open_session(draft: drafts.Draft, hello: model.NodeHello, session_id: model.SessionId) -> rows.Session:
    """Draft a node's new session: who it says it is, and a fence that is not below what it has seen."""
    known = draft.world.nodes.get(hello.node_id)
    jumped = known is not None and hello.highest_fence > known.fence
    node = _introduced(known, hello, draft.at)
    draft.put_node(node)
    if known is None or known.labels != node.labels:
        draft.appeared[node.id] = None
    if jumped:
        _fence_again(draft, hello)
    before = draft.world.sessions.get(hello.node_id)
    session = rows.Session(
        node_id=hello.node_id,
        session_id=session_id,
        generation=1 if before is None else before.generation + 1,
        boot_id=hello.boot_id,
        instance_token=hello.instance_token,
        opened_at=draft.at,
    )
    draft.put_session(session)
    return session


def _introduced(known: model.Node | None, hello: model.NodeHello, at: datetime) -> model.Node:
    if known is None:
        known = model.Node(
            id=hello.node_id,
            labels={},
            capabilities=frozenset(),
            agent_version="",
            fence=0,
            is_connected=False,
            last_seen_at=None,
            components={},
        )
    return replace(
        known,
        labels=labelling.merged(hello.labels, known.set_labels),
        own_labels=dict(hello.labels),
        capabilities=hello.capabilities,
        agent_version=hello.agent_version,
        fence=max(known.fence, hello.highest_fence),
        is_connected=True,
        last_seen_at=at,
        offline_since=None,
    )


def _fence_again(draft: drafts.Draft, hello: model.NodeHello) -> None:
    """Give what the node has not spoken of a fence that it will accept."""
    for assignment in draft.world.of_node(hello.node_id):
        if assignment.status is None and assignment.is_open:
            node = draft.world.nodes[hello.node_id]
            draft.put_node(replace(node, fence=node.fence + 1))
            draft.put_assignment(replace(assignment, fence=node.fence + 1))
