"""Triggers and firings, for people.

Rules kept here: what is not known is a dash; the reason of a state stands beside it. Left out: JSON (`document`,
`trigger_files`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import rich.console
import rich.table
import rich.text
from google.protobuf import duration_pb2, message, timestamp_pb2

from controller.cli import document, spans, tables, trigger_files
from instar.v1 import rollout_pb2, trigger_pb2

_NOTHING = "-"


def triggers(told: Iterable[trigger_pb2.TriggerView]) -> rich.table.Table:
    """Triggers, one line each."""
    rows = [
        (
            one.trigger.name,
            kind(one.trigger),
            action(one.trigger),
            "yes" if one.trigger.enabled else "no",
            _standing(one.status),
            str(one.status.firings),
            str(len(one.status.open)),
            _when(one.status.next_run_time, is_set=one.status.HasField("next_run_time")),
            one.trigger.changed_by or _NOTHING,
        )
        for one in told
    ]
    return tables.table(
        ("TRIGGER", "KIND", "DOES", "ENABLED", "STATE", "FIRED", "OPEN", "NEXT RUN", "CHANGED BY"), rows
    )


def applied(told: Iterable[trigger_pb2.Trigger]) -> rich.table.Table:
    """Definitions, one line each."""
    rows = [
        (
            one.name,
            kind(one),
            action(one),
            "yes" if one.enabled else "no",
            str(one.revision),
            one.changed_by or _NOTHING,
        )
        for one in told
    ]
    return tables.table(("TRIGGER", "KIND", "DOES", "ENABLED", "REVISION", "CHANGED BY"), rows)


def kind(told: trigger_pb2.Trigger) -> str:
    """In a word, when it fires."""
    return document.enum_name(told.kind, trigger_pb2.TriggerKind.DESCRIPTOR) or _NOTHING


def action(told: trigger_pb2.Trigger) -> str:
    """In a few words, what it does."""
    match told.WhichOneof("action"):
        case "upgrade":
            return f"UPGRADE {told.upgrade.component} {told.upgrade.target_version}".rstrip()
        case "rollback":
            return f"ROLLBACK {told.rollback.component}"
        case name:
            return (name or _NOTHING).upper()


def _standing(told: trigger_pb2.TriggerStatus) -> str:
    if told.HasField("fault"):
        return f"fails: {told.fault.code}"
    if told.firing:
        return "raised"
    if told.signals:
        return f"pending on {len(told.signals)}"
    return f"{told.debounced} events wait" if told.debounced else "quiet"


def view(told: trigger_pb2.TriggerView) -> rich.console.Group:
    """One trigger with its definition, its signals and what is open."""
    of = told.trigger
    parts: list[rich.console.RenderableType] = [rich.text.Text(line) for line in _lines(told)]
    if told.status.signals:
        parts.append(_signals(told.status.signals))
    if told.status.open:
        parts.append(firings(told.status.open))
    change = f"revision {of.revision}, {tables.when(of.change_time)} by {of.changed_by or _NOTHING}"
    return rich.console.Group(*parts, rich.text.Text(change))


def _lines(told: trigger_pb2.TriggerView) -> Iterator[str]:
    of = told.trigger
    yield f"{of.name} ({of.trigger_id}): {kind(of)}, {action(of)}, {'enabled' if of.enabled else 'disabled'}"
    if of.description:
        yield of.description
    for choice in trigger_files.CHOICES:
        name = of.WhichOneof(choice)  # type: ignore[call-overload]  # the stubs want literals
        if name and name != "upgrade":
            yield from _facts(f"{choice}.{name}", getattr(of, name))
    yield from _facts("guards", of.guards)
    if told.status.seen_version:
        yield f"available: {told.status.seen_version}"
    if told.status.HasField("fault"):
        yield f"its evaluation has failed {told.status.fault.count} times: {told.status.fault.message}"


def _facts(place: str, told: message.Message) -> Iterator[str]:
    """What is said in a message, one line for each plain field."""
    for field, value in told.ListFields():
        name = f"{place}.{field.name}"
        if isinstance(value, duration_pb2.Duration):
            yield f"{name}: {spans.shown(value.ToTimedelta())}"
        elif isinstance(value, message.Message):
            yield from _facts(name, value)
        elif field.enum_type is not None:
            yield f"{name}: {document.enum_name(value, field.enum_type)}"
        elif field.is_repeated:
            yield f"{name}: {len(value)}"
        else:
            yield f"{name}: {value}"


def _signals(told: Iterable[trigger_pb2.Signal]) -> rich.table.Table:
    rows = [
        (
            one.node_id or "(fleet)",
            tables.when(one.since_time),
            _when(one.raise_time, is_set=one.HasField("raise_time")),
            _when(one.clear_time, is_set=one.HasField("clear_time")),
        )
        for one in told
    ]
    return tables.table(("NODE", "HOLDS SINCE", "RAISED", "OVER SINCE"), rows)


def firings(told: Iterable[trigger_pb2.Firing]) -> rich.table.Table:
    """Firings, one line each."""
    rows = [
        (
            one.firing_id,
            one.trigger,
            state(one),
            document.enum_name(one.action, trigger_pb2.TriggerActionKind.DESCRIPTOR) or _NOTHING,
            tables.when(one.fire_time),
            one.cause.message,
            one.message or _NOTHING,
            _approval(one),
            one.rollout_id or _NOTHING,
        )
        for one in told
    ]
    return tables.table(
        ("FIRING", "TRIGGER", "STATE", "DOES", "FIRED", "BECAUSE", "STANDS", "APPROVAL", "ROLLOUT"), rows
    )


def state(told: trigger_pb2.Firing) -> str:
    """The state of a firing."""
    return document.enum_name(told.state, trigger_pb2.FiringState.DESCRIPTOR) or _NOTHING


def _approval(told: trigger_pb2.Firing) -> str:
    if not told.HasField("approval"):
        return _NOTHING
    word = (document.enum_name(told.approval.state, rollout_pb2.ApprovalState.DESCRIPTOR) or _NOTHING).lower()
    if told.approval.decider:
        return f"{word} by {told.approval.decider}"
    return f"{word} until {tables.when(told.approval.expire_time)}"


def explanation(told: trigger_pb2.Explanation) -> rich.console.Group:
    """Why a trigger fires, or does not."""
    lines = [told.headline, *(f"  on {one.node_id or 'the fleet'}: {one.message}" for one in told.signals)]
    if told.signals_left_out:
        lines.append(f"  and on {told.signals_left_out} more")
    lines += [f"  {one.message}" for one in told.values]
    if told.values_left_out:
        lines.append(f"  and {told.values_left_out} more nodes")
    rows = [
        (one.name, "open" if one.open else "shut", one.message, _when(one.open_time, is_set=one.HasField("open_time")))
        for one in told.guards
    ]
    parts: list[rich.console.RenderableType] = [rich.text.Text(line) for line in lines]
    parts.append(tables.table(("GUARD", "STATE", "WHY", "OPENS"), rows))
    if told.open:
        parts.append(firings(told.open))
    return rich.console.Group(*parts, rich.text.Text(f"next chance: {told.next_chance}"))


def rehearsal(name: str, told: trigger_pb2.Rehearsal) -> rich.console.Group:
    """What a trigger would have done."""
    rows = [
        (tables.when(one.fire_time), state(one), one.cause.message, one.message or _NOTHING) for one in told.firings
    ]
    span = f"between {tables.when(told.start_time)} and {tables.when(told.end_time)}"
    head = f"{name} would have fired {len(told.firings)} times {span}, and acted {told.acted} times"
    found = tables.table(("FIRED", "STATE", "BECAUSE", "STANDS"), rows)
    notes = (rich.text.Text(f"note: {one}") for one in told.notes)
    return rich.console.Group(rich.text.Text(head), *([found] if rows else []), *notes)


def _when(told: timestamp_pb2.Timestamp, *, is_set: bool) -> str:
    return tables.when(told) if is_set else _NOTHING
