"""Who may call what, and what a role means there that is held for some nodes only: one table, and nothing else decides.

Rules kept here: deny by default, a method without a row answers nobody; the roles are written out in each row; a caller
whose role is limited by a selector sees and touches what lies wholly within it. Left out: how that is found out
(`bounds`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique

from controller.core import roles
from controller.rpc import principals

_VIEWER, _OPERATOR, _APPROVER = roles.Role.VIEWER, roles.Role.OPERATOR, roles.Role.APPROVER
_PUBLISHER, _ADMIN = roles.Role.PUBLISHER, roles.Role.ADMIN


@unique
class Reach(Enum):
    """What a method is about, for a role that is held for some nodes only; the value says it in words."""

    FLEET = "only a role for the whole fleet counts"
    ANY = "is about no node: every role counts in full"
    LIST = "the answer holds only what lies within the scope"
    NODE = "the node named must lie within the scope"
    ROLLOUT = "every node of the rollout named must lie within the scope"
    SELECTOR = "the selector given must repeat the scope's terms, and nobody's rollout be superseded"
    FREEZE = "the selector of the freeze named must repeat the scope's terms"


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may call a method.

    Args:
        kind: What the caller must be; None for everybody, also those who show nothing.
        roles: One of them it must hold; agents hold none and need none.
        reach: What the method is about.
    """

    kind: principals.Kind | None
    roles: frozenset[roles.Role] = frozenset()
    reach: Reach = Reach.ANY

    @property
    def rule(self) -> str:
        """Who may, in words."""
        if self.kind is not principals.Kind.API:
            return "everybody" if self.kind is None else "agents"
        return "the roles " + ", ".join(each.value for each in roles.Role if each in self.roles)


EVERYBODY = Policy(None)  # load balancers ask for health without a token
AGENTS = Policy(principals.Kind.AGENT)


def _for(reach: Reach, *allowed: roles.Role) -> Policy:
    return Policy(principals.Kind.API, frozenset(allowed), reach)


_READ = (_VIEWER, _OPERATOR, _APPROVER, _PUBLISHER, _ADMIN)

POLICIES: Mapping[str, Policy] = {
    "/grpc.health.v1.Health/Check": EVERYBODY,
    "/grpc.health.v1.Health/List": EVERYBODY,
    "/grpc.health.v1.Health/Watch": EVERYBODY,
    "/instar.v1.AgentService/Connect": AGENTS,
    "/instar.v1.AgentService/ReadBlob": AGENTS,
    "/instar.v1.AgentService/ReadTrust": AGENTS,
    "/instar.v1.AuditService/ExportAudit": _for(Reach.FLEET, *_READ),
    "/instar.v1.AuditService/GetAuditHead": _for(Reach.FLEET, *_READ),
    "/instar.v1.AuditService/ListAudit": _for(Reach.FLEET, *_READ),
    "/instar.v1.AuditService/VerifyAudit": _for(Reach.FLEET, *_READ),
    "/instar.v1.FleetService/AddFreeze": _for(Reach.SELECTOR, _OPERATOR, _ADMIN),
    "/instar.v1.FleetService/CordonNode": _for(Reach.NODE, _OPERATOR, _ADMIN),
    "/instar.v1.FleetService/ExplainNode": _for(Reach.NODE, *_READ),
    "/instar.v1.FleetService/GetNode": _for(Reach.NODE, *_READ),
    "/instar.v1.FleetService/GetStatistics": _for(Reach.FLEET, *_READ),
    "/instar.v1.FleetService/LabelNode": _for(Reach.FLEET, _OPERATOR, _ADMIN),  # labels decide whose a node is
    "/instar.v1.FleetService/ListFreezes": _for(Reach.ANY, *_READ),
    "/instar.v1.FleetService/ListNodes": _for(Reach.LIST, *_READ),
    "/instar.v1.FleetService/ListRuleStates": _for(Reach.LIST, *_READ),
    "/instar.v1.FleetService/QuarantineNode": _for(Reach.NODE, _OPERATOR, _ADMIN),
    "/instar.v1.FleetService/ReadLog": _for(Reach.NODE, *_READ),
    "/instar.v1.FleetService/RemoveFreeze": _for(Reach.FREEZE, _OPERATOR, _ADMIN),
    "/instar.v1.FleetService/RemoveNode": _for(Reach.NODE, _OPERATOR, _ADMIN),
    "/instar.v1.FleetService/UncordonNode": _for(Reach.NODE, _OPERATOR, _ADMIN),
    "/instar.v1.ReleaseService/BlockRelease": _for(Reach.FLEET, _PUBLISHER, _ADMIN),
    "/instar.v1.ReleaseService/GetGraph": _for(Reach.ANY, *_READ),
    "/instar.v1.ReleaseService/GetRelease": _for(Reach.LIST, *_READ),
    "/instar.v1.ReleaseService/GetTrust": _for(Reach.ANY, *_READ),
    "/instar.v1.ReleaseService/ListReleases": _for(Reach.ANY, *_READ),
    "/instar.v1.ReleaseService/PromoteRelease": _for(Reach.FLEET, _PUBLISHER, _ADMIN),
    "/instar.v1.ReleaseService/PublishRelease": _for(Reach.FLEET, _PUBLISHER, _ADMIN),
    "/instar.v1.ReleaseService/PutGraph": _for(Reach.FLEET, _PUBLISHER, _ADMIN),
    "/instar.v1.ReleaseService/PutTrust": _for(Reach.FLEET, _PUBLISHER, _ADMIN),
    "/instar.v1.RolloutService/ApproveRollout": _for(Reach.ROLLOUT, _APPROVER, _ADMIN),
    "/instar.v1.RolloutService/CancelRollout": _for(Reach.ROLLOUT, _OPERATOR, _ADMIN),
    "/instar.v1.RolloutService/DenyRollout": _for(Reach.ROLLOUT, _APPROVER, _ADMIN),
    "/instar.v1.RolloutService/ExplainRollout": _for(Reach.ROLLOUT, *_READ),
    "/instar.v1.RolloutService/GetAnalysis": _for(Reach.ROLLOUT, *_READ),
    "/instar.v1.RolloutService/GetRollout": _for(Reach.ROLLOUT, *_READ),
    "/instar.v1.RolloutService/ListApprovals": _for(Reach.LIST, *_READ),
    "/instar.v1.RolloutService/ListRollouts": _for(Reach.LIST, *_READ),
    "/instar.v1.RolloutService/PauseRollout": _for(Reach.ROLLOUT, _OPERATOR, _ADMIN),
    "/instar.v1.RolloutService/PlanUpgrade": _for(Reach.SELECTOR, _OPERATOR, _ADMIN),
    "/instar.v1.RolloutService/PromoteRollout": _for(Reach.ROLLOUT, _OPERATOR, _ADMIN),
    "/instar.v1.RolloutService/ResumeRollout": _for(Reach.ROLLOUT, _OPERATOR, _ADMIN),
    "/instar.v1.RolloutService/RetryRollout": _for(Reach.ROLLOUT, _OPERATOR, _ADMIN),
    "/instar.v1.RolloutService/RevertRollout": _for(Reach.ROLLOUT, _OPERATOR, _ADMIN),
    "/instar.v1.RolloutService/RollBackEmergency": _for(Reach.FLEET, _OPERATOR, _ADMIN),  # rollouts go back whole
    "/instar.v1.RolloutService/StartUpgrade": _for(Reach.SELECTOR, _OPERATOR, _ADMIN),
    "/instar.v1.RolloutService/WatchRollout": _for(Reach.ROLLOUT, *_READ),
    "/instar.v1.TriggerService/ApplyTrigger": _for(Reach.FLEET, _OPERATOR, _ADMIN),
    "/instar.v1.TriggerService/ApproveFiring": _for(Reach.FLEET, _APPROVER, _ADMIN),
    "/instar.v1.TriggerService/DenyFiring": _for(Reach.FLEET, _APPROVER, _ADMIN),
    "/instar.v1.TriggerService/DisableTrigger": _for(Reach.FLEET, _OPERATOR, _ADMIN),
    "/instar.v1.TriggerService/EnableTrigger": _for(Reach.FLEET, _OPERATOR, _ADMIN),
    "/instar.v1.TriggerService/ExplainTrigger": _for(Reach.FLEET, *_READ),
    "/instar.v1.TriggerService/FireTrigger": _for(Reach.FLEET, _OPERATOR, _ADMIN),
    "/instar.v1.TriggerService/GetFiring": _for(Reach.FLEET, *_READ),
    "/instar.v1.TriggerService/GetTrigger": _for(Reach.FLEET, *_READ),
    "/instar.v1.TriggerService/ListFirings": _for(Reach.FLEET, *_READ),
    "/instar.v1.TriggerService/ListTriggers": _for(Reach.FLEET, *_READ),
    "/instar.v1.TriggerService/RemoveTrigger": _for(Reach.FLEET, _OPERATOR, _ADMIN),
    "/instar.v1.TriggerService/SendEvents": _for(Reach.FLEET, _OPERATOR, _ADMIN),
    "/instar.v1.TriggerService/TestTrigger": _for(Reach.FLEET, _OPERATOR, _ADMIN),
}
