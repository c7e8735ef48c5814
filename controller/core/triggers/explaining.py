"""Why a trigger does not fire, or when it will: each guard, the condition, what is open, and the next chance.

Theory of operation. The guards are asked by the very functions that decide, once time is taken notice of, so that an
explanation and a decision cannot differ, whoever was late. The next chance is the first instant at which all that
opens by time alone is open; where that takes somebody, or an occasion, the sentence says so.

Rules kept: pure; the guards come in the order in which they are asked. Left out: history, which the firings tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from controller.core import model, windows, wording
from controller.core.triggers import draft as drafts
from controller.core.triggers import events, guards, machine, raising, schedules

SIGNALS_SHOWN_MAX = 10  # nodes
VALUES_SHOWN_MAX = 10  # nodes

_INSTANT = timedelta(microseconds=1)
_VALUES_ORDER = {True: 0, None: 1, False: 2}
_COMES_TO = {True: "it holds", None: "that is unknown", False: "it does not hold"}
_F = model.FiringState
_Waited = model.Threshold | model.Degradation | model.EventMatch | model.VersionAvailable | model.ByHand


@dataclass(frozen=True, slots=True)
class GuardLine:
    """How one guard stands for an occasion that came now.

    Args:
        opens_at: None where it is open, or nobody can tell.
    """

    name: str
    is_open: bool
    why: str
    opens_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SignalLine:
    """How the condition stands on one node.

    Args:
        node_id: None for the fleet.
        since: Since when it holds, or is raised, or is over.
        is_raised: It has held for long enough.
    """

    node_id: model.NodeId | None
    since: datetime
    is_raised: bool
    why: str


@dataclass(frozen=True, slots=True)
class ValueLine:
    """What was measured last of what a trigger reads, and what that comes to.

    Args:
        node_id: None for the fleet.
        is_met: Whether the condition holds by that; None where it is unknown.
        values: By name, in the order of the names; None for what is missing.
    """

    node_id: model.NodeId | None
    is_met: bool | None
    values: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a trigger stands where it does.

    Args:
        headline: One sentence.
        values: Where the condition holds comes first, then where that is unknown.
        values_left_out: How many more there are.
        signals: The nodes on which the condition holds or has not cleared, for the longest time first.
        signals_left_out: How many more there are.
        open: Firings that are not at their end, oldest first.
        fault: The latest evaluation, where it failed.
        next_chance_at: None where time alone does not bring it.
        next_chance: One sentence.
    """

    headline: str
    guards: tuple[GuardLine, ...]
    signals: tuple[SignalLine, ...]
    signals_left_out: int
    open: tuple[model.Firing, ...]
    fault: model.EvaluationFault | None
    next_chance_at: datetime | None
    next_chance: str
    values: tuple[ValueLine, ...] = ()
    values_left_out: int = 0


def explain(
    trigger: model.Trigger,
    status: model.TriggerStatus,
    around: guards.Around,
    at: datetime,
    values: Iterable[ValueLine] = (),
) -> Explanation:
    """Say why a trigger does not fire, or when it will; what was measured is told by whoever knows it."""
    passed = machine.step(trigger, status, events.Tick(at), around)
    draft = drafts.Draft(trigger, passed.status, around, at)
    lines = tuple(_guards(draft))
    signals = sorted(_signals(draft), key=lambda each: (each.since, each.node_id or ""))
    next_chance_at, next_chance = _chance(draft)
    measured = sorted(values, key=lambda each: (_VALUES_ORDER[each.is_met], each.node_id or ""))
    return Explanation(
        headline=f"trigger {trigger.name} {_headline(draft, lines)}",
        guards=lines,
        signals=tuple(signals[:SIGNALS_SHOWN_MAX]),
        signals_left_out=max(0, len(signals) - SIGNALS_SHOWN_MAX),
        open=draft.status.open,
        fault=draft.status.fault,
        next_chance_at=next_chance_at,
        next_chance=next_chance,
        values=tuple(measured[:VALUES_SHOWN_MAX]),
        values_left_out=max(0, len(measured) - VALUES_SHOWN_MAX),
    )


def lines(explanation: Explanation) -> tuple[str, ...]:
    """Write an explanation for people."""
    return tuple(_lines(explanation))


def _lines(explanation: Explanation) -> Iterator[str]:
    yield explanation.headline
    yield f"next chance: {explanation.next_chance}"
    for guard in explanation.guards:
        yield f"  {guard.name:<11} {'open' if guard.is_open else 'shut'}  {guard.why}"
    for signal in explanation.signals:
        yield f"  on {signal.node_id or 'the fleet'}: {signal.why}"
    if explanation.signals_left_out:
        yield f"  and on {explanation.signals_left_out} more"
    yield from (f"  {value_line(each)}" for each in explanation.values)
    if explanation.values_left_out:
        yield f"  and {explanation.values_left_out} more nodes"
    for firing in explanation.open:
        yield f"  {_firing(firing)}"
    if explanation.fault is not None:
        yield f"  {_fault(explanation.fault)}"


def value_line(line: ValueLine) -> str:
    """Write what was measured on a node for people."""
    told = ", ".join(f"{name} {'missing' if value is None else f'{value:g}'}" for name, value in line.values)
    return f"last on {line.node_id or 'the fleet'}: {told or 'nothing is read'}; {_COMES_TO[line.is_met]}"


def _headline(draft: drafts.Draft, found: tuple[GuardLine, ...]) -> str:
    status = draft.status
    if not draft.trigger.is_enabled:
        return "is disabled"
    if status.open:
        return f"has an open firing: {_firing(status.open[0])}"
    if status.fault is not None:
        return f"does not know whether there is an occasion: {_fault(status.fault)}"
    shut = next((each for each in found if not each.is_open), None)
    return "is ready" if shut is None else f"would not act now: {shut.why}"


def _firing(firing: model.Firing) -> str:
    return f"firing {firing.number} is {firing.state.value}: {firing.reason.message}"


def _fault(fault: model.EvaluationFault) -> str:
    times = "once" if fault.count == 1 else f"{fault.count} times in a row"
    again = "until its definition is changed" if fault.retry_at is None else f"until {wording.instant(fault.retry_at)}"
    return f"its evaluation failed {times}, and rests {again}: {fault.code}: {fault.message}"


# The guards, in the order in which they are asked.


def _guards(draft: drafts.Draft) -> Iterator[GuardLine]:
    trigger, status, at = draft.trigger, draft.status, draft.at
    is_enabled = trigger.is_enabled
    yield GuardLine("enabled", is_enabled, "it is enabled" if is_enabled else "nobody has enabled it")
    quiet = f"nothing was released and nothing failed for {trigger.guards.cooldown}"
    yield _line("cooldown", guards.cooldown(trigger, status, at), quiet if trigger.guards.cooldown else "there is none")
    recent = sum(each > at - guards.HOUR for each in status.released)
    fired = f"{recent} of at most {trigger.guards.firings_per_hour_max} firings were released within an hour"
    yield _line("hourly cap", guards.cap(trigger, status, at), fired)
    yield _line("concurrency", guards.rejecting(trigger, status) or _queued(draft), _concurrent(draft))
    yield _line("freeze", guards.frozen(draft.around), "no freeze holds it")
    yield _line("window", guards.window(trigger, at), _open_window(draft))
    yield _approval(draft)


def _line(name: str, shut: guards.Shut | None, why: str) -> GuardLine:
    if shut is None:
        return GuardLine(name, is_open=True, why=why)
    return GuardLine(name, is_open=False, why=shut.message, opens_at=shut.opens_at)


def _queued(draft: drafts.Draft) -> guards.Shut | None:
    """Tell what a firing that came now would wait for."""
    return guards.earlier(draft.trigger, draft.status, draft.status.number + 1)


def _concurrent(draft: drafts.Draft) -> str:
    is_open = bool(draft.status.open)
    return "what is open would be superseded" if is_open else "no firing is open"


def _open_window(draft: drafts.Draft) -> str:
    known = draft.trigger.guards.windows
    if not known:
        return "there are none, so that it may always act"
    closes_at = windows.closes_at(known, draft.at)
    return "one is always open" if closes_at is None else f"one is open until {wording.instant(closes_at)}"


def _approval(draft: drafts.Draft) -> GuardLine:
    guard, awaited = draft.trigger.guards.approval, _awaited(draft.status)
    if awaited is not None:
        return GuardLine("approval", is_open=False, why=f"firing {awaited.number}: {awaited.reason.message}")
    if guard is None:
        return GuardLine("approval", is_open=True, why="nobody has to approve what it does")
    who = "somebody else" if guard.by_another else "somebody"
    return GuardLine("approval", is_open=False, why=f"{who} has to approve each firing, within {guard.deadline}")


def _awaited(status: model.TriggerStatus) -> model.Firing | None:
    return next((each for each in status.open if each.state is _F.APPROVAL_AWAITED), None)


# The condition.


def _signals(draft: drafts.Draft) -> Iterator[SignalLine]:
    when = draft.trigger.when
    pending = f" of {when.pending_for}" if isinstance(when, model.Threshold) else ""
    for node_id, each in draft.status.signals.items():
        if each.raised_at is None:
            yield SignalLine(
                node_id, each.since, is_raised=False, why=f"holds since {wording.instant(each.since)}{pending}"
            )
        elif each.clear_since is None:
            why = f"has held for long enough at {wording.instant(each.raised_at)}"
            yield SignalLine(node_id, each.raised_at, is_raised=True, why=why)
        else:
            why = f"is over since {wording.instant(each.clear_since)}, not for long enough"
            yield SignalLine(node_id, each.clear_since, is_raised=True, why=why)


# The next chance.


def _chance(draft: drafts.Draft) -> tuple[datetime | None, str]:
    says = _needs(draft)
    if says:
        return None, says
    opens_at = _released_from(draft)
    begins_at, says = _occasion(draft, opens_at)
    if begins_at is None:
        return None, says
    starts_at = _started_from(draft, begins_at)
    if starts_at is None:
        return None, f"{says}, and once a window opens"
    return starts_at, f"{says}{_after(starts_at, draft.at)}"


def _after(starts_at: datetime, at: datetime) -> str:
    return f", at {wording.instant(starts_at)} at the earliest" if starts_at > at else ""


def _needs(draft: drafts.Draft) -> str:
    """Say what stands in the way that time alone does not take away; empty for nothing."""
    trigger, status, around = draft.trigger, draft.status, draft.around
    awaited = _awaited(status)
    if not trigger.is_enabled:
        return "once somebody enables it"
    if status.fault is not None and status.fault.retry_at is None and _waiting(status) is None:
        return "once its definition is changed"
    if awaited is not None:
        return f"once somebody approves firing {awaited.number}"
    if _queued(draft) is not None and _waiting(status) is None:
        return f"once firing {status.open[0].number} is at its end"
    if around.frozen_because and around.frozen_until is None:
        return "once the freeze is lifted"
    return ""


def _waiting(status: model.TriggerStatus) -> model.Firing | None:
    """Give the firing that goes next, where it is the oldest one."""
    first = next(iter(status.open), None)
    return None if first is None or guards.has_begun(first) else first


def _released_from(draft: drafts.Draft) -> datetime:
    """Give the instant from which cooldown and cap are over."""
    trigger, status, at = draft.trigger, draft.status, draft.at
    shut = (guards.cooldown(trigger, status, at), guards.cap(trigger, status, at))
    found = (each.opens_at for each in shut if each is not None)
    return max((each for each in found if each is not None), default=at)


def _started_from(draft: drafts.Draft, at: datetime) -> datetime | None:
    """Give the first instant from another one on that no freeze and no window forbids."""
    until = draft.around.frozen_until
    return windows.opens_at(draft.trigger.guards.windows, at if until is None else max(at, until))


def _occasion(draft: drafts.Draft, opens_at: datetime) -> tuple[datetime | None, str]:
    """Say from when on there is an occasion that is acted upon, as far as time brings it, and what it takes."""
    when, at = draft.trigger.when, draft.at
    waiting = _waiting(draft.status)
    if waiting is not None:
        from_at = opens_at if waiting.released_at is None else waiting.next_try_at or at
        return max(from_at, at), f"firing {waiting.number} goes on"
    fault = draft.status.fault
    if fault is not None and fault.retry_at is not None:
        opens_at = max(opens_at, fault.retry_at)  # what waits already is not looked for
    if isinstance(when, model.Schedule):
        return _run(draft, when, opens_at)
    silent_at = raising.debounced_at(draft.trigger, draft.status)
    if silent_at is not None:
        return max(opens_at, silent_at), "once no further event has come for long enough"
    return max(opens_at, at), _takes(draft, when)


def _run(draft: drafts.Draft, when: model.Schedule, opens_at: datetime) -> tuple[datetime | None, str]:
    """Give the first run that is not dropped."""
    due_at = draft.status.next_run_at
    if due_at is None:
        return None, "never, for it is not due any more"
    if draft.trigger.guards.concurrency is model.ConflictPolicy.QUEUE:
        return max(due_at, opens_at), "with its next run"
    kept_at = due_at if due_at >= opens_at else schedules.next_run(when, opens_at - _INSTANT)
    return kept_at, "with its next run"


def _takes(draft: drafts.Draft, when: _Waited) -> str:
    """Say what an occasion is."""
    if draft.status.is_raised:
        return "once its condition was over and holds again"
    match when:
        case model.Threshold():
            nodes = "a node" if when.nodes_min == 1 else f"{when.nodes_min} nodes"
            holds = f"has held for {when.pending_for}" if when.pending_for else "holds"
            return f"once its condition {holds} on {nodes}"
        case model.Degradation():
            worse = "below" if when.is_below else "above"
            return f"once {when.component} is {when.worse_percent} % {worse} what its own past leads one to expect"
        case model.EventMatch():
            return f"with the next event {when.type}"
        case model.VersionAvailable():
            return _version(when, draft.status.seen_version)
        case model.ByHand():
            return "when somebody fires it"
        case _:
            assert_never(when)


def _version(when: model.VersionAvailable, seen: str) -> str:
    if when.channel:
        return f"once channel {when.channel} of {when.component} points elsewhere than to {seen or 'nothing'}"
    than = f", higher than {seen}" if seen else ""
    return f"once there is a version of {when.component} within {when.versions}{than}"
