"""What the commands print for people.

Rules kept here: one look for a thing, whether it is shown once or watched; nothing is cut off where stdout is no
terminal. Left out: plans (`plan_tables`) and JSON (`document`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text
from google.protobuf import timestamp_pb2

from controller.cli import document, spans
from instar.v1 import fleet_service_pb2, node_pb2, operation_pb2, release_pb2, rollout_pb2, rollout_service_pb2

_WIDE = 240  # columns where nobody looks: grep wants whole lines
_DIGEST_SHOWN = len("sha256:") + 12  # tells releases apart for people
_DONE = "PERMANENT"


def show(shown: rich.console.RenderableType) -> None:
    """Print a table, or what has one in it, on stdout."""
    console = rich.console.Console(width=None if sys.stdout.isatty() else _WIDE)
    console.print(shown)


def releases(told: Iterable[release_pb2.Release]) -> rich.table.Table:
    """Releases, as they come."""
    rows = [
        (
            one.component,
            one.version,
            one.digest[:_DIGEST_SHOWN],
            str(one.size_bytes),
            when(one.publish_time),
            one.publisher,
        )
        for one in told
    ]
    return table(("COMPONENT", "VERSION", "DIGEST", "BYTES", "PUBLISHED", "BY"), rows)


def authorities(rows: Iterable[Mapping[str, Any]]) -> rich.table.Table:
    """Certificate authorities, as they come."""
    columns = ("kind", "role", "since", "expires_at", "fingerprint")
    shown = [tuple(str(row[column]) for column in columns) for row in rows]
    return table(("OF", "ROLE", "SINCE", "UNTIL", "SHA-256"), shown)


def when(told: timestamp_pb2.Timestamp) -> str:
    """An instant, to the second, in UTC."""
    return told.ToDatetime().isoformat(" ", "seconds")


def edges(told: Iterable[release_pb2.Edge]) -> rich.table.Table:
    """The declared ways between versions."""
    rows = [
        (
            one.from_versions or "any",
            one.to_version,
            ", ".join(document.enum_name(method, operation_pb2.Method.DESCRIPTOR) or "-" for method in one.methods),
            str(one.cost),
            "no" if one.no_return else "yes",
            one.condition or "-",
            one.blocked_reason or "-",
        )
        for one in told
    ]
    return table(("FROM", "TO", "METHODS", "COST", "WAY BACK", "CONDITION", "BLOCKED"), rows)


def barriers(told: Iterable[release_pb2.Barrier]) -> rich.table.Table:
    """Versions that every way over them stops at."""
    rows = [(one.version, spans.shown(one.bake_duration.ToTimedelta())) for one in told]
    return table(("BARRIER", "STAYS"), rows)


def channels(told: Iterable[release_pb2.Channel]) -> rich.table.Table:
    """Moving pointers to releases."""
    rows = [(one.name, one.version, when(one.change_time), one.actor) for one in told]
    return table(("CHANNEL", "VERSION", "MOVED", "BY"), rows)


def nodes(told: Iterable[node_pb2.Node]) -> rich.table.Table:
    """Nodes with what they run."""
    rows = [
        (
            one.node_id,
            "yes" if one.connected else "no",
            ", ".join(f"{part.name} {part.version}{' stopped' * part.stopped}" for part in one.components),
            ", ".join(f"{key}={value}" for key, value in sorted(one.labels.items())),
            one.agent_version,
            one.operation_id,
            _work(one),
            ", ".join(f"{part.code} {part.component}".rstrip() for part in one.conditions),
        )
        for one in told
    ]
    return table(("NODE", "CONNECTED", "COMPONENTS", "LABELS", "AGENT", "OPERATION", "WORK", "CONDITIONS"), rows)


def _work(node: node_pb2.Node) -> str:
    """Whether a node is given operations, and why not."""
    found = [(node.cordon_reason, "cordoned"), (node.quarantine_reason, "quarantined")]
    return "; ".join(f"{word}: {reason}" for reason, word in found if reason) or "yes"


def freezes(told: Iterable[fleet_service_pb2.Freeze]) -> rich.table.Table:
    """Freezes, as they come."""
    rows = [
        (
            one.freeze_id,
            one.selector or "all nodes",
            when(one.start_time),
            when(one.end_time) if one.HasField("end_time") else "until it is lifted",
            "emergency" if one.emergency else "-",
            one.actor,
            one.reason,
        )
        for one in told
    ]
    return table(("FREEZE", "NODES", "FROM", "TO", "KIND", "BY", "REASON"), rows)


def statistics(told: fleet_service_pb2.Statistics) -> rich.table.Table:
    """The work of the fleet."""
    mean = spans.shown(told.mean_duration.ToTimedelta()) if told.HasField("mean_duration") else "-"
    rows = [
        ("changes that wait", str(told.queued)),
        ("operations that hold a node", str(told.active)),
        ("operations given to nodes", str(told.distributed)),
        ("operations that became permanent", str(told.completed)),
        ("operations that failed", str(told.failed)),
        ("of these, by silence", str(told.timed_out)),
        ("mean time to permanent", mean),
        ("nodes", str(told.total_nodes)),
        ("nodes connected", str(told.active_nodes)),
        ("requests refused", str(told.refused)),
        ("rules that fire", str(told.rules_firing)),
        ("rules unknown", str(told.rules_unknown)),
        *_collected(told.metrics),
    ]
    return table(("WHAT", "COUNT"), rows)


def rules(told: fleet_service_pb2.ListRuleStatesResponse) -> rich.table.Table:
    """The rules of the monitor, each with how many nodes it fires on."""
    rows = [
        (
            one.name,
            f"the fleet's {one.component}" if one.fleet else one.component,
            one.condition,
            spans.shown(one.pending_duration.ToTimedelta()),
            *(str(count) for count in (one.firing, one.pending, one.unknown)),
        )
        for one in told.rules
    ]
    return table(("RULE", "OF", "WATCHES FOR", "FOR", "FIRING", "PENDING", "UNKNOWN"), rows)


def standings(told: Iterable[fleet_service_pb2.RuleStanding]) -> rich.table.Table:
    """Where rules of the monitor are anything but inactive."""
    states = fleet_service_pb2.RuleState.DESCRIPTOR
    rows = [
        (
            one.rule,
            one.node_id or "(fleet)",
            document.enum_name(one.state, states) or "-",
            when(one.since_time),
            f"{one.value:.4g}" if one.HasField("value") else "-",
        )
        for one in told
    ]
    return table(("RULE", "NODE", "STATE", "SINCE", "VALUE"), rows)


def _collected(told: fleet_service_pb2.MetricCounts) -> Iterator[tuple[str, str]]:
    """What is collected of the nodes; that nothing is, where it is so."""
    if not told.collecting:
        yield "metrics", "not collected"
        return
    yield "series", str(told.series)
    yield "readings taken", str(told.samples)
    yield "values refused", str(told.refused)
    yield "nodes with fresh metrics", str(told.fresh_nodes)
    yield "nodes with too many series", str(told.capped_nodes)


def reasons(told: Iterable[rollout_service_pb2.Reason]) -> Iterator[str]:
    """A chain of reasons as lines, each following from the next."""
    for depth, one in enumerate(told):
        since = f" (since {when(one.since_time)})" if one.HasField("since_time") else ""
        yield f"{'  ' * depth}{'because: ' if depth else ''}{one.message}{since}"


def conditions(told: Iterable[node_pb2.Condition]) -> rich.table.Table:
    """What is wrong with one node."""
    rows = [(one.code, one.component or "-", when(one.since_time), one.message) for one in told]
    return table(("CONDITION", "COMPONENT", "SINCE", "MESSAGE"), rows)


def components(told: Iterable[node_pb2.ComponentStatus]) -> rich.table.Table:
    """Components of one node with their instances."""
    rows = [
        (
            one.name,
            one.version,
            one.digest[:_DIGEST_SHOWN],
            "yes" if one.digest == one.permanent_digest else "no",
            "stopped" if one.stopped else document.enum_name(one.health, node_pb2.Health.DESCRIPTOR) or "-",
            f"{one.healthy_for.seconds} s",
            ", ".join(f"{part.instance_id} (pid {part.pid}, {part.restarts} restarts)" for part in one.instances),
        )
        for one in told
    ]
    return table(("COMPONENT", "VERSION", "DIGEST", "PERMANENT", "HEALTH", "HEALTHY FOR", "INSTANCES"), rows)


def metrics(told: Iterable[node_pb2.Metric]) -> rich.table.Table:
    """Latest metrics of one node."""
    rows = [(one.name, one.component or "-", f"{one.value:g}") for one in told]
    return table(("METRIC", "COMPONENT", "VALUE"), rows)


def approvals(told: Iterable[rollout_pb2.Approval]) -> rich.table.Table:
    """Approvals, one line each."""
    rows = [
        (
            one.rollout_id,
            one.rollout_name,
            one.subject,
            document.enum_name(one.state, rollout_pb2.ApprovalState.DESCRIPTOR) or "-",
            when(one.expire_time),
            one.requester,
            one.decider or "-",
            one.reason or "-",
        )
        for one in told
    ]
    return table(("ROLLOUT", "NAME", "WHAT", "STATE", "UNTIL", "ASKED BY", "DECIDED BY", "REASON"), rows)


def rollouts(told: Iterable[rollout_pb2.Rollout]) -> rich.table.Table:
    """Rollouts, one line each."""
    rows = [
        (
            one.rollout_id,
            one.name,
            f"{state(one)}, to be approved" if is_awaited(one) else state(one),
            document.enum_name(one.request.strategy, rollout_pb2.Strategy.DESCRIPTOR) or "-",
            f"{one.wave}/{len(one.plan.waves)}",
            f"{done(one)}/{len(one.changes)}",
            when(one.create_time),
            one.actor,
        )
        for one in told
    ]
    return table(("ROLLOUT", "NAME", "STATE", "STRATEGY", "WAVE", "DONE", "STARTED", "BY"), rows)


def rollout(told: rollout_pb2.Rollout) -> rich.console.Group:
    """One rollout with each of its changes; the same while it is watched and afterwards."""
    waves = {wave.index: wave_name(wave) for wave in told.plan.waves}
    rows = [
        (
            waves[one.wave],
            one.change.node_id,
            kind(one.change),
            what(one.change),
            where(one),
            one.message,
        )
        for one in told.changes
    ]
    found = table(("WAVE", "NODE", "KIND", "CHANGE", "STATE", "MESSAGE"), rows)
    return rich.console.Group(rich.text.Text(headline(told)), found, *map(rich.text.Text, _remarks(told)))


def _remarks(told: rollout_pb2.Rollout) -> Iterator[str]:
    if told.message:
        yield told.message
    if told.waiting_for:
        yield f"nothing more starts: {told.waiting_for}"
    if told.approval.decider:
        word = document.enum_name(told.approval.state, rollout_pb2.ApprovalState.DESCRIPTOR) or "-"
        reason = f": {told.approval.reason}" if told.approval.reason else ""
        yield f"{word.lower()} by {told.approval.decider} at {when(told.approval.decide_time)}{reason}"
    if told.HasField("next_time"):
        yield f"the first of what it waits for by the clock is over at {when(told.next_time)}"
    if told.HasField("pause_time"):
        yield f"paused since {when(told.pause_time)}"
    if still := stood_still(told):
        yield still.removeprefix("; ")


def stood_still(told: rollout_pb2.Rollout) -> str:
    """For how long the clock of a rollout has stood still; empty where it never has."""
    span = told.stopped_for.ToTimedelta()
    return f"; its clock has stood still for {spans.shown(span)}" if span else ""


def headline(told: rollout_pb2.Rollout) -> str:
    """One rollout in one line."""
    counts = {"skipped": sum(one.skipped for one in told.changes), "left": sum(one.left for one in told.changes)}
    others = "".join(f", {count} {word}" for word, count in counts.items() if count)
    return f"{told.name} ({told.rollout_id}) {state(told)}, {done(told)} of {len(told.changes)} done{others}"


def state(told: rollout_pb2.Rollout) -> str:
    """The state of a rollout."""
    return document.enum_name(told.state, rollout_pb2.RolloutState.DESCRIPTOR) or "-"


def is_awaited(told: rollout_pb2.Rollout) -> bool:
    """Tell whether somebody has yet to approve a rollout."""
    return told.approval.state == rollout_pb2.APPROVAL_STATE_WAITING


def done(told: rollout_pb2.Rollout) -> int:
    """How many changes are where the plan wants them, for good."""
    return sum(where(one) == _DONE for one in told.changes)


def where(told: rollout_pb2.ChangeProgress) -> str:
    """How far one change is, in a few words."""
    nowhere = "" if told.skipped else "waiting"
    reached = document.enum_name(told.state, operation_pb2.OperationState.DESCRIPTOR) or nowhere
    step = document.enum_name(told.step, operation_pb2.Step.DESCRIPTOR)
    flags = {"reverting": told.reverting, "skipped": told.skipped, "left": told.left}
    words = [word for word, is_set in flags.items() if is_set]
    words += [reached] if reached else []
    words += [step] if step and reached in {"RUNNING", "HELD", "COMMITTED"} else []
    return " ".join([*words, f"({told.reason})"] if told.reason else words)


def wave_name(wave: rollout_pb2.Wave) -> str:
    """A wave, and what it is one of."""
    purpose = "canary" if wave.canary and not wave.purpose else wave.purpose
    return f"{wave.index} {purpose}".rstrip()


def what(change: rollout_pb2.Change) -> str:
    """What a change does to which component."""
    if change.from_digest == change.to_digest:
        return f"{change.component} {change.to_version}"
    return f"{change.component} {change.from_version or '-'} > {change.to_version or '-'}"


def kind(change: rollout_pb2.Change) -> str:
    """The kind of a change."""
    return document.enum_name(change.kind, operation_pb2.ChangeKind.DESCRIPTOR) or "-"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> rich.table.Table:
    """A table of texts."""
    found = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        found.add_column(column, overflow="fold")
    for row in rows:
        found.add_row(*map(rich.text.Text, row))
    return found
