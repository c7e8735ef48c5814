"""What follows from a piece of work, in the same transaction: it is drafted when the work has been.

Rules kept: a version that enough different nodes have left for cause is offered to nobody (G9); a node that appears is
taken in by the rollouts that want such nodes, and by one at most; a node that one rollout changes is unavailable to all
others that count it. Left out: what the work itself was.
"""

from __future__ import annotations

import itertools

from controller.core import events, model, planner, selector
from controller.engine import draft as drafts
from controller.engine import firing, planning, rules, standing, stepping
from controller.engine import world as worlds
from controller.store import rows

# Nodes that must have left a version for cause before nobody is offered it: one or two may have faults of their own.
BAD_QUORUM = 3
_TAKES_IN = frozenset({model.RolloutState.RUNNING, model.RolloutState.PAUSED})


class Following:
    """Drafts what follows.

    Args:
        plans: What a node that appears is planned with.
    """

    def __init__(self, plans: planning.Planning) -> None:
        self._plans = plans

    def follow(self, draft: drafts.Draft) -> None:
        """Draft all that follows from what was drafted so far."""
        for digest, reason in draft.left.items():
            _count_bad(draft, digest, reason)
        for node_id in draft.appeared:
            self._take_in(draft, node_id)
        _tell_others(draft)
        rules.follow(draft)
        firing.follow(draft)

    def _take_in(self, draft: drafts.Draft, node_id: model.NodeId) -> None:
        for rollout_id in sorted(draft.world.rollouts):
            rollout, node = draft.world.rollouts[rollout_id], draft.world.nodes.get(node_id)
            if node is None or node_id in draft.world.claims or not _wants(rollout, node, draft.world):
                continue
            fleet = self._plans.fleet(draft.world, None, draft.at)
            changes = planner.join(rollout.request, fleet, node, rollout.plan)
            if changes:
                lease = draft.world.leases[rollout_id]
                told = standing.tell(draft, rollout, lease, (node_id,), changed=(node_id,))
                joined = stepping.feed(draft, told, lease, events.NodeJoined(draft.at, changes))
                if joined is not told:  # one that was removed from it does not come back into it
                    draft.put_audit(stepping.CONTROLLER_ACTOR, "rollout.join", rollout_id, f"node {node_id} appeared")


def _tell_others(draft: drafts.Draft) -> None:
    """Tell rollouts that only count a node what another one does with it; what they begin then is told in turn."""
    told: dict[model.OperationId, rows.Assignment] = {}
    while news := [each for each in draft.assignments.values() if told.get(each.operation_id) is not each]:
        told |= {each.operation_id: each for each in news}
        counted = (each.node_id for each in news if len(draft.world.concerned.get(each.node_id, ())) > 1)
        standing.refresh(draft, dict.fromkeys(counted))


def _wants(rollout: model.Rollout, node: model.Node, world: worlds.World) -> bool:
    request = rollout.request
    if rollout.state not in _TAKES_IN or request.policy.join is not model.JoinPolicy.INCLUDE:
        return False
    is_new = rollout.id not in world.concerned.get(node.id, ())
    return is_new and selector.parse(request.selector).matches(node.labels)


def _count_bad(draft: drafts.Draft, digest: model.Digest, reason: str) -> None:
    world = draft.world
    versions = [key for key in sorted(world.releases) if world.releases[key].digest == digest]
    if all(key in world.blocks for key in versions):
        return
    left = (node for node in world.nodes.values() if digest in node.bad_digests)
    if sum(1 for _ in itertools.islice(left, BAD_QUORUM)) == BAD_QUORUM:
        for component, version in versions:
            stepping.block(draft, component, version, f"{BAD_QUORUM} nodes left it for cause, the last for {reason}")
