"""How a canary is judged, for people: one line for each metric, with what was found on canary and control.

Rules kept here: what is not known is a dash, never a zero. Left out: the plot (`plotting`).
"""

from __future__ import annotations

from collections.abc import Iterator

import rich.console
import rich.table
import rich.text

from controller.cli import document, spans, tables
from instar.v1 import analysis_pb2, rollout_service_pb2

_NOTHING = "-"


def found(told: analysis_pb2.Judging) -> analysis_pb2.Judgement | None:
    """The judgement that decided, or the latest one; None before the first look."""
    if told.HasField("decided"):
        return told.decided
    return told.latest if told.HasField("latest") else None


def finding(value: int) -> str:
    """A finding in words: ``no worse``."""
    name = document.enum_name(value, analysis_pb2.Finding.DESCRIPTOR)
    return "not looked at" if name is None else name.lower().replace("_", " ")


def evidence(told: analysis_pb2.Judging) -> Iterator[str]:
    """The evidence of a judgement, one line for each metric."""
    judgement = found(told)
    if judgement is not None:
        yield from (f"evidence: {one.message}" for one in judgement.evidence)


def analysis(told: rollout_service_pb2.GetAnalysisResponse) -> rich.console.Group:
    """How a wave is judged, or was."""
    lines = [rich.text.Text(line) for line in _remarks(told)]
    judgement = found(told.judging)
    return rich.console.Group(*lines, *([] if judgement is None else [_metrics(judgement)]))


def _remarks(told: rollout_service_pb2.GetAnalysisResponse) -> Iterator[str]:
    record = told.judging
    canary = ", ".join(told.canary_nodes)
    what = f"{told.component} {told.to_version} on {canary}, the canary of wave {record.wave}"
    yield f"{told.name} ({told.rollout_id}): {what}"
    yield f"compared with {told.control_nodes} untouched nodes since {tables.when(record.begin_time)}"
    judgement = found(record)
    yield "nobody has looked yet" if judgement is None else f"{finding(judgement.finding)}: {judgement.message}"
    if record.HasField("decide_time"):
        by = f", promoted by {record.decided_by}" if record.decided_by else ""
        yield f"over at {tables.when(record.decide_time)}{by}"
    elif record.doubt:
        yield f"held as {finding(record.doubt)}: somebody has to promote it or take it back"
    else:
        yield f"inconclusive at {tables.when(record.inconclusive_time)}{_unknown(record)}"
    still = record.stopped_for.ToTimedelta()
    if still:
        yield f"its clocks stood still for {spans.shown(still)}"


def _unknown(record: analysis_pb2.Judging) -> str:
    return f", unknown at {tables.when(record.unknown_time)}" if record.HasField("unknown_time") else ""


def _metrics(told: analysis_pb2.Judgement) -> rich.table.Table:
    rows = [
        (
            one.metric,
            finding(one.finding),
            _value(one, "canary_value", "{:.4g}"),
            _value(one, "control_value", "{:.4g}"),
            lift(one),
            _value(one, "p", "{:.2g}"),
            f"{one.alpha:.2g}",
            (document.enum_name(one.comparison, analysis_pb2.Comparison.DESCRIPTOR) or _NOTHING).lower(),
            f"{one.canary_nodes} / {one.control_nodes}",
        )
        for one in told.evidence
    ]
    columns = ("METRIC", "FOUND", "CANARY", "CONTROL", "WORSE BY", "P", "WORSE AT", "COMPARED", "NODES")
    return tables.table(columns, rows)


def _value(told: analysis_pb2.Evidence, name: str, form: str) -> str:
    return form.format(getattr(told, name)) if told.HasField(name) else _NOTHING  # type: ignore[arg-type]  # the stubs want literals


def lift(told: analysis_pb2.Evidence) -> str:
    """How much more the canary changed, and from where to where that may be: times 3.50 (1.13 to 9.77)."""
    if not told.HasField("lift"):
        return _NOTHING
    low = f"{told.lift_low:.2f}" if told.HasField("lift_low") else "0"
    high = f"{told.lift_high:.2f}" if told.HasField("lift_high") else "\N{INFINITY}"
    return f"\N{MULTIPLICATION SIGN}{told.lift:.2f} ({low} to {high})"
