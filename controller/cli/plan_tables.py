"""What a plan would do, for people: node by node, what it puts at risk, how long it takes, and what is left out.

Rules kept here: whatever the plan says is shown, and nothing where it says nothing. Left out: JSON (`document`).
"""

from __future__ import annotations

from collections.abc import Iterator

import rich.table
import typer

from controller.cli import document, spans, tables
from instar.v1 import analysis_pb2, operation_pb2, rollout_pb2


def show(told: rollout_pb2.Plan) -> None:
    """Print a plan on stdout."""
    tables.show(changes(told))
    if told.capacity:
        tables.show(capacity(told))
    if told.advice:
        tables.show(advice(told))
        for line in advice_reasons(told):
            typer.echo(line)
    if told.excluded:
        tables.show(excluded(told))
    for line in remarks(told):
        typer.echo(line)


def changes(told: rollout_pb2.Plan) -> rich.table.Table:
    """The changes of a plan, wave by wave."""
    rows = [
        (
            tables.wave_name(wave),
            one.node_id,
            tables.kind(one),
            tables.what(one),
            _method(one),
            one.no_way_back or "yes",
            one.domain or "-",
        )
        for wave in told.waves
        for one in wave.changes
    ]
    return tables.table(("WAVE", "NODE", "KIND", "CHANGE", "METHOD", "WAY BACK", "DOMAIN"), rows)


def _method(change: rollout_pb2.Change) -> str:
    method = document.enum_name(change.method, operation_pb2.Method.DESCRIPTOR) or "-"
    return f"{method}: {change.method_reason}" if change.method_reason else method


def capacity(told: rollout_pb2.Plan) -> rich.table.Table:
    """How many nodes stay available, over the waves."""
    bakes = {wave.index: wave.bake_duration.ToTimedelta() for wave in told.waves}
    rows = [
        (
            str(one.wave),
            spans.shown(one.after.ToTimedelta()),
            f"{one.available_min} of {one.total}",
            spans.shown(bakes[one.wave]) if bakes.get(one.wave) else "-",
        )
        for one in told.capacity
    ]
    return tables.table(("WAVE", "BEGINS AFTER", "AVAILABLE AT LEAST", "THEN BAKES"), rows)


def advice(told: rollout_pb2.Plan) -> rich.table.Table:
    """What past operations teach of the plan's kinds of change, in numbers."""
    rows = [
        (
            str(number),
            f"{one.component} {one.from_version or '-'} > {one.to_version}",
            document.enum_name(one.method, operation_pb2.Method.DESCRIPTOR) or "-",
            one.node_class or "-",
            str(one.changes),
            f"{one.chance:.1%}, at least {one.chance_low:.1%}",
            str(one.wave_nodes),
            _span(one.estimate) if one.HasField("estimate") else "-",
            document.enum_name(one.better_method, operation_pb2.Method.DESCRIPTOR) or "neither",
        )
        for number, one in enumerate(told.advice, start=1)
    ]
    columns = ("ADVICE", "ON", "METHOD", "CLASS", "NODES", "SUCCEED", "WAVE UP TO", "ONE TAKES", "BETTER METHOD")
    return tables.table(columns, rows)


def _span(told: rollout_pb2.Estimate) -> str:
    return f"{spans.shown(told.median.ToTimedelta())}, at most {spans.shown(told.p95.ToTimedelta())}"


def advice_reasons(told: rollout_pb2.Plan) -> Iterator[str]:
    """Why the advice is as it is, line by line."""
    for number, one in enumerate(told.advice, start=1):
        yield f"advice {number}: {one.reason}"
        yield f"  wave: {one.wave_reason}"
        if one.HasField("estimate"):
            yield f"  time: {one.estimate.reason}"
        yield f"  better method: {one.better_method_reason}"
    if told.advice_left_out:
        yield f"no advice on {told.advice_left_out} more kinds of change, which fewer nodes make"


def excluded(told: rollout_pb2.Plan) -> rich.table.Table:
    """Nodes that are left out."""
    rows = [(one.node_id, one.code, one.message) for one in told.excluded]
    return tables.table(("LEFT OUT", "CODE", "WHY"), rows)


def remarks(told: rollout_pb2.Plan) -> Iterator[str]:
    """What else there is to say, line by line."""
    if told.HasField("blast_radius") and told.waves:
        yield _risk(told.blast_radius)
    if told.HasField("estimate") and told.waves:
        yield _expected(told.estimate)
    if told.unchanged_nodes:
        yield f"unchanged: {', '.join(told.unchanged_nodes)}"
    if told.HasField("forecast"):
        yield from _forecast(told.forecast)
    for one in told.warnings:
        yield f"warning: {one.message} ({one.code})"


def _forecast(told: analysis_pb2.Forecast) -> Iterator[str]:
    rest = told.control_total - len(told.control_nodes)
    control = ", ".join([*told.control_nodes, *([f"{rest} more"] if rest > 0 else [])])
    yield f"judged: the canary {', '.join(told.canary_nodes)} against {control or 'no untouched node'}"
    for one in told.powers:
        yield f"  {one.message}"
    yield f"  {told.basis}"


def _risk(told: rollout_pb2.BlastRadius) -> str:
    domains = ", ".join(f"{one.domain or '(none)'} {one.nodes}" for one in told.domains)
    line = f"at risk: {told.nodes} of {told.of_nodes} nodes, {told.first_wave} of them before the first gate"
    return f"{line}; by domain: {domains}" if domains else line


def _expected(told: rollout_pb2.Estimate) -> str:
    return f"expected to take {_span(told)} in nineteen of twenty cases: {told.reason}"
