"""Nodes, freezes and statistics on the wire, and what operators say of them.

Rules kept here: a freeze that could never be in force, or a label both set and taken away, is refused. Left out: what
form labels have, and which nodes there are (`controller.engine`).
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from controller.core import model
from controller.core.monitoring import phrases
from controller.rpc import convert
from instar.v1 import fleet_service_pb2, node_pb2

OPERATIONS_MAX = 1  # of one node at a time (G4)
STANDINGS_MAX = 1_000  # of rules, in one answer: far below what a message may hold
_STATES_SHOWN = (model.RuleState.FIRING, model.RuleState.UNKNOWN, model.RuleState.PENDING)
LABELS_MAX = 64  # set or taken away by one request


def node(value: model.Node, metrics: Iterable[model.Metric]) -> node_pb2.Node:
    """A node with its latest metrics."""
    return node_pb2.Node(
        node_id=value.id,
        labels=value.labels,
        connected=value.is_connected,
        last_seen_time=convert.timestamp(value.last_seen_at),
        agent_version=value.agent_version,
        capabilities=sorted(value.capabilities),
        fence=value.fence,
        components=[_component(value.components[name]) for name in sorted(value.components)],
        metrics=map(_metric, metrics),
        operation_id=value.operation_id or "",
        conditions=map(_condition, value.conditions),
        cordon_reason=value.cordoned_because,
        quarantine_reason=value.quarantined_because,
        active_operations=0 if value.operation_id is None else 1,
        max_operations=OPERATIONS_MAX,
    )


def _metric(value: model.Metric) -> node_pb2.Metric:
    return node_pb2.Metric(
        name=value.name,
        component=value.component,
        value=value.value,
        kind=convert.number(node_pb2.MetricKind.Value, "METRIC_KIND_", value.kind),
        life=value.life,
    )


def _condition(value: model.Condition) -> node_pb2.Condition:
    return node_pb2.Condition(
        code=value.code, component=value.component, message=value.message, since_time=convert.timestamp(value.since)
    )


def _component(value: model.InstalledComponent) -> node_pb2.ComponentStatus:
    is_known = value.health is not model.Health.UNKNOWN
    return node_pb2.ComponentStatus(
        name=value.name,
        version=value.version,
        digest=value.digest,
        permanent_digest=value.permanent_digest,
        health=convert.number(node_pb2.Health.Value, "HEALTH_", value.health if is_known else None),
        healthy_for=convert.duration(value.healthy_for),
        instances=[
            node_pb2.Instance(
                instance_id=one.id,
                digest=one.digest,
                pid=one.pid,
                state=convert.number(node_pb2.InstanceState.Value, "INSTANCE_STATE_", one.state),
                served=one.served,
                restarts=one.restarts,
            )
            for one in value.instances
        ],
        stopped=value.is_stopped,
    )


def statistics(value: model.Statistics) -> fleet_service_pb2.Statistics:
    """The work of the fleet, counted."""
    return fleet_service_pb2.Statistics(
        queued=value.queued,
        active=value.active,
        completed=value.completed,
        failed=value.failed,
        distributed=value.distributed,
        timed_out=value.timed_out,
        mean_duration=convert.optional_duration(value.mean_duration),
        total_nodes=value.total_nodes,
        active_nodes=value.active_nodes,
        refused=value.refused,
        rules_firing=value.rules_firing,
        rules_unknown=value.rules_unknown,
        metrics=fleet_service_pb2.MetricCounts(
            collecting=value.metrics.is_collecting,
            series=value.metrics.series,
            samples=value.metrics.samples,
            refused=value.metrics.refused,
            fresh_nodes=value.metrics.fresh_nodes,
            capped_nodes=value.metrics.capped_nodes,
        ),
    )


def rule_states(
    rules: Iterable[model.Rule], watched: Sequence[model.Watched], looked_at: datetime | None
) -> fleet_service_pb2.ListRuleStatesResponse:
    """How the rules of the monitor stand; of very many standings those that fire, and the first of the others."""
    counts = collections.Counter((each.rule, each.watch.state) for each in watched)
    by_state = sorted(watched, key=lambda each: _STATES_SHOWN.index(each.watch.state))
    return fleet_service_pb2.ListRuleStatesResponse(
        rules=(_rule(each, counts) for each in sorted(rules, key=lambda one: one.name)),
        standings=map(_standing, by_state[:STANDINGS_MAX]),
        left_out=max(0, len(watched) - STANDINGS_MAX),
        look_time=convert.timestamp(looked_at),
    )


def _rule(value: model.Rule, counts: Mapping[tuple[str, model.RuleState], int]) -> fleet_service_pb2.Rule:
    return fleet_service_pb2.Rule(
        name=value.name,
        component=value.component,
        fleet=value.scope is model.RuleScope.FLEET,
        condition=phrases.condition(value),
        pending_duration=convert.duration(value.pending_for),
        firing=counts.get((value.name, model.RuleState.FIRING), 0),
        pending=counts.get((value.name, model.RuleState.PENDING), 0),
        unknown=counts.get((value.name, model.RuleState.UNKNOWN), 0),
    )


def _standing(value: model.Watched) -> fleet_service_pb2.RuleStanding:
    return fleet_service_pb2.RuleStanding(
        rule=value.rule,
        node_id=value.node_id or "",
        state=convert.number(fleet_service_pb2.RuleState.Value, "RULE_STATE_", value.watch.state),
        since_time=convert.timestamp(value.watch.since),
        fire_time=convert.timestamp(value.watch.fired_at),
        value=value.watch.value,
    )


def freeze(value: model.Freeze) -> fleet_service_pb2.Freeze:
    """A freeze."""
    return fleet_service_pb2.Freeze(
        freeze_id=value.id,
        selector=value.selector,
        start_time=convert.timestamp(value.since),
        end_time=convert.timestamp(value.until),
        reason=value.reason,
        actor=value.actor,
        emergency=value.is_emergency,
    )


@dataclass(frozen=True, slots=True)
class AskedFreeze:
    """The freeze that somebody asks for; ``until`` is None where somebody has to lift it."""

    selector: str
    since: datetime
    until: datetime | None
    reason: str


def from_freeze(message: fleet_service_pb2.Freeze, now: datetime) -> AskedFreeze:
    """A freeze from outside; it begins now where it does not say.

    Raises:
        InvalidRequestError: It has no reason, or would never be in force.
    """
    reason = convert.reason(message.reason, "add the freeze", "freeze.reason")
    since = convert.instant(message.start_time, "freeze.start_time") if message.HasField("start_time") else now
    if not message.HasField("end_time"):
        return AskedFreeze(message.selector, since, None, reason)
    until = convert.instant(message.end_time, "freeze.end_time")
    rule = "after start_time, and after now"
    convert.refuse_unless(until > max(since, now), "freeze.end_time", until.isoformat(), rule)
    return AskedFreeze(message.selector, since, until, reason)


def from_labels(message: fleet_service_pb2.LabelNodeRequest) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Labels to set, and keys of labels to take away.

    Raises:
        InvalidRequestError: There is nothing of either, too much, or one of them is both.
    """
    labels, removed = dict(message.labels), tuple(message.removed_keys)
    count = len(labels) + len(removed)
    convert.refuse_unless(0 < count <= LABELS_MAX, "labels", str(count), f"1 to {LABELS_MAX}, with removed_keys")
    for key in removed:
        convert.refuse_unless(key not in labels, "removed_keys", key, "none that labels sets")
    return labels, removed
