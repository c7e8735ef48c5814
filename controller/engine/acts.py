"""What acts are called in the audit log: noun and verb, the same whether they were done or refused.

Rules kept: each act of a caller has one name here, and a row by that name once it is done or refused. Left out: what
only reads, and what follows by itself from something that somebody did; that has rows of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

# By what was asked for.
NAMES: Mapping[str, str] = {
    "add_freeze": "freeze.add",
    "apply_trigger": "trigger.apply",
    "approve_firing": "firing.approve",
    "approve_rollout": "approval.approve",
    "block_release": "release.block",
    "cancel_rollout": "rollout.cancel",
    "cordon_node": "node.cordon",
    "deny_firing": "firing.deny",
    "deny_rollout": "approval.deny",
    "disable_trigger": "trigger.disable",
    "enable_trigger": "trigger.enable",
    "fire_trigger": "trigger.fire",
    "label_node": "node.label",
    "make_join_token": "node.token",
    "pause_rollout": "rollout.pause",
    "permit_recovery": "node.permit_recovery",
    "promote_release": "release.promote",
    "promote_rollout": "rollout.promote",
    "publish_release": "release.publish",
    "put_graph": "release.graph",
    "put_trust": "trust.put",
    "quarantine_node": "node.quarantine",
    "read_log": "component.log",
    "remove_freeze": "freeze.remove",
    "remove_node": "node.remove",
    "remove_trigger": "trigger.remove",
    "resume_rollout": "rollout.resume",
    "retry_rollout": "rollout.retry",
    "revert_rollout": "rollout.revert",
    "roll_back_emergency": "rollback.emergency",
    "start_upgrade": "rollout.start",
    "uncordon_node": "node.uncordon",
}


def name(asked_for: str) -> str:
    """Give the name of an act; what is no act has its own."""
    return NAMES.get(asked_for, asked_for)
