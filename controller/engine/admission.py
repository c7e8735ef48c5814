"""Drafts what people and agents ask for anew: a release, a rollout, a session.

Rules kept: what is asked twice under one request identity is done once; a node belongs to one unfinished rollout at a
time; a store that was restored jumps past the fence that a node has seen, also for what it had assigned already.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from controller import clock as clocks
from controller.core import errors, events, model, planner, rollout
from controller.engine import draft as drafts
from controller.engine import stepping, tracing
from controller.engine import world as worlds
from controller.store import rows

FIRST_EPOCH = 1


def plan(world: worlds.World, request: model.UpgradeRequest) -> model.Plan:
    """Plan a request against the stored world.

    Raises:
        InstarError: The planner's, where the request cannot be planned.
    """
    return planner.plan(request, world.nodes.values(), world.releases.values())


def named(request: model.UpgradeRequest) -> model.UpgradeRequest:
    """Give a request the name of what it is for, where it has none."""
    return request if request.name else replace(request, name=f"{request.component}-{request.purpose}")


def publish(draft: drafts.Draft, release: model.Release) -> bool:
    """Draft a release; False where it is published already.

    Raises:
        RefusedError: Other bytes are published under the same version.
    """
    known = draft.world.releases.get((release.component, release.version))
    if known is None:
        draft.put_release(release)
        draft.put_audit(release.publisher, "release.publish", f"{release.component} {release.version}", release.digest)
        return True
    if known.digest != release.digest:
        raise errors.RefusedError(
            f"cannot publish {release.component} {release.version}: it is published with digest {known.digest}",
            code="release_exists",
            field="digest",
            value=release.digest,
            rule="a version names the same bytes for ever",
        )
    return False


def start(
    draft: drafts.Draft,
    request: model.UpgradeRequest,
    ids: clocks.IdSource,
    *,
    actor: str,
    owner: str,
    planning_began_at: datetime,
) -> model.Rollout:
    """Plan a request, draft its rollout and begin it.

    Raises:
        InstarError: The planner's; or RefusedError where a node is in another rollout.
    """
    planned = plan(draft.world, request)
    new = rollout.create(ids.rollout_id(draft.at), request, planned, actor=actor, at=draft.at)
    check_claims(draft.world, new)
    lease = rows.Lease(new.id, FIRST_EPOCH, owner)
    draft.put_new_rollout(new, lease)
    draft.put_audit(actor, "rollout.start", new.id, f"{request.component} {request.purpose}")
    tracing.rollout_created(draft, new, planning_began_at)
    return stepping.feed(draft, new, lease, events.Began(draft.at))


def check_claims(world: worlds.World, wanted: model.Rollout) -> None:
    """Refuse a rollout that would touch a node of another one.

    Raises:
        RefusedError: Code ``rollout_conflict``.
    """
    for change in worlds.planned(wanted):
        holder = world.claims.get(change.node_id)
        if holder is not None and holder != wanted.id:
            raise errors.RefusedError(
                f"cannot start rollout {wanted.request.name}: node {change.node_id} is in rollout {holder}",
                code="rollout_conflict",
                field="selector",
                value=wanted.request.selector,
                rule="a node is in one unfinished rollout at a time",
            )


def open_session(draft: drafts.Draft, hello: model.NodeHello, session_id: model.SessionId) -> rows.Session:
    """Draft a node's new session: who it says it is, and a fence that is not below what it has seen."""
    known = draft.world.nodes.get(hello.node_id)
    jumped = known is not None and hello.highest_fence > known.fence
    draft.put_node(_introduced(known, hello, draft.at))
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
        labels=dict(hello.labels),
        capabilities=hello.capabilities,
        agent_version=hello.agent_version,
        fence=max(known.fence, hello.highest_fence),
        last_seen_at=at,
    )


def _fence_again(draft: drafts.Draft, hello: model.NodeHello) -> None:
    """Give what the node has not spoken of a fence that it will accept."""
    for assignment in draft.world.of_node(hello.node_id):
        if assignment.status is None and assignment.is_open:
            node = draft.world.nodes[hello.node_id]
            draft.put_node(replace(node, fence=node.fence + 1))
            draft.put_assignment(replace(assignment, fence=node.fence + 1))
