"""The operation machine: takes one event of an operation and decides what follows.

Rules kept here: pure; an event that `transitions` does not list raises and changes nothing. Whoever drives the machine
makes the new state durable before it performs the effects; what a step tells is bounded here. Left out: who may begin
(`admission`), how a step is done (`agent.drivers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import assert_never

from agent.core import effects, events, model, operation, transitions

RETRY_SECONDS = 0.5  # pause before what may not be given up is tried again; the keeper restarts in less
MESSAGE_CHARS_MAX = 512  # of a failure, for people; as much as the journal keeps
EVIDENCE_MAX = 16  # entries of one step
EVIDENCE_CHARS_MAX = 1024  # of one value; the longest is the end of a log
NO_EVIDENCE: Mapping[str, str] = MappingProxyType({})


class IllegalEventError(Exception):
    """An event that the machine does not allow in this phase; nothing changed."""


def step(state: operation.Operation, event: events.Event) -> operation.Decision:
    """Take one event.

    Raises:
        IllegalEventError: ``TRANSITIONS`` does not allow the event here; nothing changed.
    """
    targets = transitions.TRANSITIONS[state.phase].get(type(event))
    if targets is None:
        raise IllegalEventError(f"cannot take {type(event).__name__} in phase {state.phase.value}")
    decision = _decide(state, event)
    if decision.state.phase not in (state.phase, *targets):
        raise IllegalEventError(f"cannot go from {state.phase.value} to {decision.state.phase.value}")
    return decision


def _decide(state: operation.Operation, event: events.Event) -> operation.Decision:
    match event:
        case events.Began() | events.Succeeded() | events.Failed() | events.RolledBack() | events.Recovered():
            return _decide_work(state, event)
        case events.Ticked() | events.Observed() | events.InstanceLost():
            return _decide_watch(state, event)
        case events.Proceeded() | events.Cancelled() | events.Superseded():
            return _decide_order(state, event)
        case _:
            assert_never(event)


def _decide_work(state: operation.Operation, event: events.Work) -> operation.Decision:
    match event:
        case events.Began():
            return _begin(state, event.at)
        case events.Succeeded():
            return _succeed(state, event)
        case events.Failed():
            return _fail(state, event)
        case events.RolledBack() if state.phase is transitions.Phase.ABORTING:
            return operation.Decision(state)
        case events.RolledBack():
            return _abort(state, event.at, event.fault, event.reason, event.message)
        case events.Recovered():
            return _recover(state, event)
        case _:
            assert_never(event)


def _decide_watch(state: operation.Operation, event: events.Watch) -> operation.Decision:
    match event:
        case events.Ticked():
            return _tick(state, event.at)
        case events.Observed() if state.phase is transitions.Phase.SETTLING:
            return _bake(state, event)
        case events.Observed():
            return _soak(state, event)
        case events.InstanceLost():
            return _lose(state, event)
        case _:
            assert_never(event)


def _decide_order(state: operation.Operation, event: events.Order) -> operation.Decision:
    match event:
        case events.Superseded():
            return operation.Decision(_end(state, transitions.Phase.SUPERSEDED, event.at))
        case _ if state.phase in transitions.DECIDED:
            return operation.Decision(state)
        case events.Proceeded():
            return _proceed(state, event)
        case events.Cancelled():
            return _abort(state, event.at, model.Fault.COMMAND, "cancelled", f"cancelled: {event.reason}")
        case _:
            assert_never(event)


def _begin(state: operation.Operation, at: events.Moment) -> operation.Decision:
    return _enter(state, transitions.FIRST[state.assignment.kind], at)


def _succeed(state: operation.Operation, event: events.Succeeded) -> operation.Decision:
    _check_step(state, event.step)
    match state.phase:
        case transitions.Phase.COMMIT:
            return _commit(state, event)
        case transitions.Phase.SETTLING:
            return _settle(state, event)
        case transitions.Phase.ABORTING:
            ended, record = _record(state, event.at, is_success=True, evidence=event.evidence)
            return operation.Decision(_end(ended, transitions.Phase.ABORTED, event.at), records=(record,))
        case phase:
            ended, record = _record(state, event.at, is_success=True, evidence=event.evidence)
            short_cuts = transitions.SHORT_CUTS.get(state.assignment.kind, transitions.NEXT)
            return replace(_go_on(ended, short_cuts[phase], event.at), records=(record,))


def _check_step(state: operation.Operation, step_: model.Step) -> None:
    if state.phase is transitions.Phase.SETTLING:
        running = {model.Step.BAKE} if state.bake is transitions.Bake.PASSING else set()
        running |= set() if state.is_drained else {model.Step.DRAIN}
    else:
        running = {transitions.STEP_OF[state.phase]}
    if step_ not in running:
        raise IllegalEventError(f"cannot end step {step_.value} in phase {state.phase.value}")


def _go_on(state: operation.Operation, following: transitions.Phase, at: events.Moment) -> operation.Decision:
    match state.assignment.hold_before:
        case model.Step.SWITCH if following is _switch_of(state):
            return _hold(state, transitions.Phase.HELD_BEFORE_SWITCH, at)
        case model.Step.COMMIT if following is transitions.Phase.COMMIT:
            return _hold(state, transitions.Phase.HELD_BEFORE_COMMIT, at)
        case _:
            return _enter(state, following, at)


def _switch_of(state: operation.Operation) -> transitions.Phase:
    """What a hold before SWITCH is before: what ends has no SWITCH, and waits where it would be."""
    is_ending = state.assignment.kind in transitions.ENDING
    return transitions.Phase.COMMIT if is_ending else transitions.Phase.SWITCH


def _hold(state: operation.Operation, phase: transitions.Phase, at: events.Moment) -> operation.Decision:
    return operation.Decision(replace(state, phase=phase, step=state.assignment.hold_before, changed_at=at.wall))


def _proceed(state: operation.Operation, event: events.Proceeded) -> operation.Decision:
    """End the hold that stands, if it is the one that is meant; also before the operation has come to it.

    The only hold behind another one is that before COMMIT: a word that names any other next contradicts itself.
    """
    assignment = state.assignment
    is_onward = event.hold_before is None or (event.step, event.hold_before) == (model.Step.SWITCH, model.Step.COMMIT)
    if assignment.hold_before is not event.step or not is_onward:
        return operation.Decision(state)
    onward = replace(state, assignment=replace(assignment, hold_before=event.hold_before))
    match state.phase:
        case transitions.Phase.HELD_BEFORE_SWITCH:
            return _go_on(onward, _switch_of(state), event.at)
        case transitions.Phase.HELD_BEFORE_COMMIT:  # the last hold: nothing that could be waited for lies behind it
            return _enter(onward, transitions.Phase.COMMIT, event.at)
        case _:
            return operation.Decision(onward)


def _enter(state: operation.Operation, phase: transitions.Phase, at: events.Moment) -> operation.Decision:
    step_ = transitions.STEP_OF[phase]
    entered = replace(state, phase=phase, step=step_, step_started_at=at.wall, changed_at=at.wall)
    if phase is transitions.Phase.SOAK:
        soak_until_seconds = at.monotonic_seconds + state.assignment.soak_duration.total_seconds()
        return operation.Decision(replace(entered, soak_until_seconds=soak_until_seconds))
    return operation.Decision(entered, (effects.Perform(step_),))


def _end(state: operation.Operation, phase: transitions.Phase, at: events.Moment) -> operation.Operation:
    return replace(state, phase=phase, changed_at=at.wall)


def _record(
    state: operation.Operation,
    at: events.Moment,
    *,
    is_success: bool,
    evidence: Mapping[str, str],
    step_: model.Step | None = None,
) -> tuple[operation.Operation, model.StepRecord]:
    index = state.steps_ended + 1
    record = model.StepRecord(
        operation_id=state.assignment.operation_id,
        index=index,
        step=step_ or transitions.STEP_OF[state.phase],
        started_at=state.step_started_at,
        ended_at=at.wall,
        is_success=is_success,
        evidence={key: value[:EVIDENCE_CHARS_MAX] for key, value in list(evidence.items())[:EVIDENCE_MAX]},
    )
    return replace(state, steps_ended=index), record


def _fail(state: operation.Operation, event: events.Failed) -> operation.Decision:
    _check_step(state, event.step)
    match state.phase:
        case transitions.Phase.COMMIT | transitions.Phase.ABORTING:
            # The keeper has not answered, and only it knows: ask until it does.
            return operation.Decision(state, (effects.Perform(event.step, RETRY_SECONDS),))
        case transitions.Phase.SETTLING if event.step is model.Step.DRAIN:
            return operation.Decision(state, (effects.Perform(event.step, RETRY_SECONDS),))
        case transitions.Phase.SETTLING:
            return operation.Decision(state, (effects.MakePermanent(RETRY_SECONDS),))
        case _:
            return _abort(state, event.at, event.fault, event.reason, event.message, event.evidence)


def _abort(
    state: operation.Operation,
    at: events.Moment,
    fault: model.Fault,
    reason: str,
    message: str,
    evidence: Mapping[str, str] = NO_EVIDENCE,
) -> operation.Decision:
    records: tuple[model.StepRecord, ...] = ()
    aborting = replace(state, fault=fault, reason=reason, message=message[:MESSAGE_CHARS_MAX])
    if state.phase in transitions.STEP_OF:
        aborting, record = _record(aborting, at, is_success=False, evidence={"reason": reason, **evidence})
        records = (record,)
    return replace(_enter(aborting, transitions.Phase.ABORTING, at), records=records)


def _commit(state: operation.Operation, event: events.Succeeded) -> operation.Decision:
    committed, record = _record(state, event.at, is_success=True, evidence=event.evidence)
    healthy_by_seconds = event.at.monotonic_seconds + state.assignment.healthy_deadline.total_seconds()
    settling = replace(
        committed,
        phase=transitions.Phase.SETTLING,
        step=model.Step.DRAIN,
        step_started_at=event.at.wall,
        changed_at=event.at.wall,
        healthy_by_seconds=healthy_by_seconds,
    )
    return operation.Decision(settling, (effects.Perform(model.Step.DRAIN),), (record,))


def _settle(state: operation.Operation, event: events.Succeeded) -> operation.Decision:
    settled, record = _record(state, event.at, is_success=True, evidence=event.evidence, step_=event.step)
    if event.step is model.Step.BAKE:
        settled = replace(settled, bake=transitions.Bake.PASSED)
    else:
        settled = replace(settled, is_drained=True)
        if state.bake is transitions.Bake.NOT_NEEDED:
            settled = replace(settled, bake=transitions.Bake.PASSED)
        else:
            settled = replace(settled, step=model.Step.BAKE)
    return operation.Decision(_close(replace(settled, changed_at=event.at.wall), event.at), records=(record,))


def _close(state: operation.Operation, at: events.Moment) -> operation.Operation:
    """End what has settled: drained, and its bake decided."""
    if not state.is_drained:
        return state
    if state.bake is transitions.Bake.PASSED:
        return _end(state, transitions.Phase.PERMANENT, at)
    return _end(state, transitions.Phase.UNWELL, at) if state.bake is transitions.Bake.FAILED else state


def _soak(state: operation.Operation, event: events.Observed) -> operation.Decision:
    if event.health is model.Health.UNHEALTHY:
        reason, why = _unwell(event)
        return _blame(state, event.at, reason, f"cannot keep the new version: {why}")
    is_early = state.soak_until_seconds is None or event.at.monotonic_seconds < state.soak_until_seconds
    if state.phase is not transitions.Phase.SOAK or is_early or event.health is model.Health.UNKNOWN:
        return operation.Decision(state)
    wanted = state.assignment.soak_requests_min
    if event.served < wanted:
        message = f"cannot tell whether the new version is well: it answered {event.served} requests of {wanted}"
        # Too little evidence is none about the version (G8).
        return _abort(state, event.at, model.Fault.INFRASTRUCTURE, "soak_requests_too_few", message)
    evidence = {"served": str(event.served), "health": event.health.value}
    soaked, record = _record(state, event.at, is_success=True, evidence=evidence)
    return replace(_go_on(soaked, transitions.Phase.COMMIT, event.at), records=(record,))


def _unwell(event: events.Observed) -> tuple[str, str]:
    if event.is_flapping:
        return "flapping", "it is now well, now not"
    return "health_probe_failed", "its health probe fails"


def _blame(state: operation.Operation, at: events.Moment, reason: str, message: str) -> operation.Decision:
    return _abort(state, at, model.Fault.VERSION, reason, message)


def _bake(state: operation.Operation, event: events.Observed) -> operation.Decision:
    if state.bake is not transitions.Bake.PENDING:
        return operation.Decision(state)
    if event.health is model.Health.UNHEALTHY:
        reason, why = _unwell(event)
        return _spoil(state, event.at, reason, f"cannot finish the bake: {why}")
    is_well = event.health is model.Health.HEALTHY and event.healthy_for >= state.assignment.min_healthy_duration
    if not is_well:
        return operation.Decision(state)
    return operation.Decision(replace(state, bake=transitions.Bake.PASSING), (effects.MakePermanent(),))


def _spoil(state: operation.Operation, at: events.Moment, reason: str, message: str) -> operation.Decision:
    evidence = {"reason": reason}
    spoiled, record = _record(state, at, is_success=False, evidence=evidence, step_=model.Step.BAKE)
    spoiled = replace(spoiled, bake=transitions.Bake.FAILED, fault=model.Fault.VERSION, reason=reason, message=message)
    return operation.Decision(_close(replace(spoiled, changed_at=at.wall), at), records=(record,))


def _lose(state: operation.Operation, event: events.InstanceLost) -> operation.Decision:
    match state.phase:
        case transitions.Phase.COMMIT | transitions.Phase.ABORTING:
            # The keeper decides the first; the loss may be a consequence of the second.
            return operation.Decision(state)
        case transitions.Phase.SETTLING if state.bake is transitions.Bake.PENDING:
            return _spoil(state, event.at, "instance_died", event.message)
        case transitions.Phase.SETTLING:
            return operation.Decision(state)
        case _:
            return _blame(state, event.at, "instance_died", event.message)


def _tick(state: operation.Operation, at: events.Moment) -> operation.Decision:
    due_seconds = operation.next_deadline(state)
    if due_seconds is None or at.monotonic_seconds < due_seconds:
        return operation.Decision(state)
    if state.phase is transitions.Phase.SETTLING:
        return _spoil(state, at, "healthy_deadline_passed", "cannot finish the bake: not healthy for long enough")
    if state.phase in transitions.HELD:
        message = "cannot go on: no Proceed came before the deadline"
        return _abort(state, at, model.Fault.COMMAND, "hold_expired", message)
    message = f"cannot go on: the deadline passed in {state.phase.value}"
    return _abort(state, at, model.Fault.INFRASTRUCTURE, "deadline_passed", message)


def _recover(state: operation.Operation, event: events.Recovered) -> operation.Decision:
    match state.phase:
        case transitions.Phase.SETTLING:
            return _resettle(state, event.at)
        case transitions.Phase.COMMIT | transitions.Phase.ABORTING:
            return operation.Decision(state, (effects.Perform(transitions.STEP_OF[state.phase]),))
        case transitions.Phase.SWITCH if event.decision is events.KeeperDecision.ON_TRIAL:
            switched, record = _record(state, event.at, is_success=True, evidence=NO_EVIDENCE)
            return replace(_go_on(switched, transitions.Phase.SOAK, event.at), records=(record,))
        case _ if event.decision is events.KeeperDecision.COMMITTED:  # its record was torn: what is outranks it
            return _enter(state, transitions.Phase.COMMIT, event.at)
        case _ if event.decision is events.KeeperDecision.ROLLED_BACK_INSTANCE_DIED:
            return _blame(state, event.at, "instance_died", "cannot go on: the new instance died")
        case _:
            message = f"cannot go on: the agent was away in {state.phase.value}"
            return _abort(state, event.at, model.Fault.INFRASTRUCTURE, "agent_restarted", message)


def _resettle(state: operation.Operation, at: events.Moment) -> operation.Decision:
    """Take up the obligations again; the time while the agent was away is not held against the version."""
    healthy_by_seconds = at.monotonic_seconds + state.assignment.healthy_deadline.total_seconds()
    owed: list[effects.Effect] = [] if state.is_drained else [effects.Perform(model.Step.DRAIN)]
    owed += [effects.MakePermanent()] if state.bake is transitions.Bake.PASSING else []
    return operation.Decision(replace(state, healthy_by_seconds=healthy_by_seconds), tuple(owed))
