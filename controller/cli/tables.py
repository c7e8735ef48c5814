"""What the commands print for people.

Rules kept here: one look for a thing, whether it is shown once or watched; nothing is cut off where stdout is no
terminal. Left out: JSON (`document`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import rich.box
import rich.console
import rich.table
import rich.text

from controller.cli import document
from instar.v1 import node_pb2, operation_pb2, release_pb2, rollout_pb2

_WIDE = 240  # columns where nobody looks: grep wants whole lines
_DIGEST_SHOWN = len("sha256:") + 12  # tells releases apart for people
_DONE = "PERMANENT"


def show(table: rich.table.Table) -> None:
    """Print a table on stdout."""
    console = rich.console.Console(width=None if sys.stdout.isatty() else _WIDE)
    console.print(table)


def releases(told: Iterable[release_pb2.Release]) -> rich.table.Table:
    """Releases, as they come."""
    rows = [
        (one.component, one.version, one.digest[:_DIGEST_SHOWN], str(one.size_bytes), _when(one), one.publisher)
        for one in told
    ]
    return _table(("COMPONENT", "VERSION", "DIGEST", "BYTES", "PUBLISHED", "BY"), rows)


def _when(release: release_pb2.Release) -> str:
    return release.publish_time.ToDatetime().isoformat(" ", "seconds")


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
            ", ".join(f"{part.code} {part.component}".rstrip() for part in one.conditions),
        )
        for one in told
    ]
    return _table(("NODE", "CONNECTED", "COMPONENTS", "LABELS", "AGENT", "OPERATION", "CONDITIONS"), rows)


def conditions(told: Iterable[node_pb2.Condition]) -> rich.table.Table:
    """What is wrong with one node."""
    rows = [
        (one.code, one.component or "-", one.since_time.ToDatetime().isoformat(" ", "seconds"), one.message)
        for one in told
    ]
    return _table(("CONDITION", "COMPONENT", "SINCE", "MESSAGE"), rows)


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
    return _table(("COMPONENT", "VERSION", "DIGEST", "PERMANENT", "HEALTH", "HEALTHY FOR", "INSTANCES"), rows)


def metrics(told: Iterable[node_pb2.Metric]) -> rich.table.Table:
    """Latest metrics of one node."""
    rows = [(one.name, one.component or "-", f"{one.value:g}") for one in told]
    return _table(("METRIC", "COMPONENT", "VALUE"), rows)


def plan(told: rollout_pb2.Plan) -> rich.table.Table:
    """The changes of a plan, wave by wave."""
    rows = [
        (
            _wave(wave.index, is_canary=wave.canary),
            one.node_id,
            _named(one.kind),
            _what(one),
            _method(one),
            one.no_way_back or "yes",
        )
        for wave in told.waves
        for one in wave.changes
    ]
    return _table(("WAVE", "NODE", "KIND", "CHANGE", "METHOD", "WAY BACK"), rows)


def rollouts(told: Iterable[rollout_pb2.Rollout]) -> rich.table.Table:
    """Rollouts, one line each."""
    rows = [
        (
            one.rollout_id,
            one.name,
            state(one),
            document.enum_name(one.request.strategy, rollout_pb2.Strategy.DESCRIPTOR) or "-",
            f"{one.wave}/{len(one.plan.waves)}",
            f"{done(one)}/{len(one.changes)}",
            one.create_time.ToDatetime().isoformat(" ", "seconds"),
            one.actor,
        )
        for one in told
    ]
    return _table(("ROLLOUT", "NAME", "STATE", "STRATEGY", "WAVE", "DONE", "STARTED", "BY"), rows)


def rollout(told: rollout_pb2.Rollout) -> rich.table.Table:
    """One rollout with each of its changes; the same while it is watched and afterwards."""
    canaries = {wave.index: wave.canary for wave in told.plan.waves}
    rows = [
        (
            _wave(one.wave, is_canary=canaries[one.wave]),
            one.change.node_id,
            _named(one.change.kind),
            _what(one.change),
            where(one),
            one.message,
        )
        for one in told.changes
    ]
    table = _table(("WAVE", "NODE", "KIND", "CHANGE", "STATE", "MESSAGE"), rows)
    table.title = rich.text.Text(headline(told))
    table.title_justify = "left"
    table.caption = rich.text.Text(told.message)
    table.caption_justify = "left"
    return table


def headline(told: rollout_pb2.Rollout) -> str:
    """One rollout in one line."""
    return f"{told.name} ({told.rollout_id}) {state(told)}, {done(told)} of {len(told.changes)} done"


def state(told: rollout_pb2.Rollout) -> str:
    """The state of a rollout."""
    return document.enum_name(told.state, rollout_pb2.RolloutState.DESCRIPTOR) or "-"


def done(told: rollout_pb2.Rollout) -> int:
    """How many changes are where the plan wants them, for good."""
    return sum(where(one) == _DONE for one in told.changes)


def where(told: rollout_pb2.ChangeProgress) -> str:
    """How far one change is, in a few words."""
    reached = document.enum_name(told.state, operation_pb2.OperationState.DESCRIPTOR) or "waiting"
    step = document.enum_name(told.step, operation_pb2.Step.DESCRIPTOR)
    words = ["reverting"] if told.reverting else []
    words += [reached, *([step] if step and reached in {"RUNNING", "HELD", "COMMITTED"} else [])]
    return " ".join([*words, f"({told.reason})"] if told.reason else words)


def _wave(index: int, *, is_canary: bool) -> str:
    return f"{index} canary" if is_canary else str(index)


def _what(change: rollout_pb2.Change) -> str:
    if change.from_digest == change.to_digest:
        return f"{change.component} {change.to_version}"
    return f"{change.component} {change.from_version or '-'} > {change.to_version or '-'}"


def _named(kind: int) -> str:
    return document.enum_name(kind, operation_pb2.ChangeKind.DESCRIPTOR) or "-"


def _method(change: rollout_pb2.Change) -> str:
    return document.enum_name(change.method, operation_pb2.Method.DESCRIPTOR) or "-"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(rich.text.Text, row))
    return table
