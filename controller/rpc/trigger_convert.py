"""Triggers between the wire and the core.

Rules kept here: what a message leaves out gets the default of the model, here and nowhere else; all that is wrong in a
trigger is told at once, each with its dotted field. Left out: what a trigger may be (`controller.core.triggers`), what
comes of it (`firing_convert`), and upgrade requests (`request_convert`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, assert_never

from google.protobuf import duration_pb2, message

from controller.core import errors, model
from controller.rpc import analysis_convert, convert, request_convert
from instar.v1 import rollout_pb2, trigger_pb2

_DEGRADATION = model.Degradation(model.ComponentName(""), model.Measure(model.MeasureKind.LEVEL, ""), 0, 0)
_GUARDS = model.Guards()  # for the defaults, as the one above
_Part = TypeVar("_Part")


def trigger(value: model.Trigger) -> trigger_pb2.Trigger:
    """A trigger, every default said."""
    told = trigger_pb2.Trigger(
        trigger_id=value.id,
        name=value.name,
        kind=convert.number(trigger_pb2.TriggerKind.Value, "TRIGGER_KIND_", value.kind),
        guards=_guards(value.guards),
        enabled=value.is_enabled,
        description=value.description,
        revision=value.revision,
        change_time=convert.timestamp(value.changed_at),
        changed_by=value.changed_by,
    )
    _put_when(told, value.when)
    _put_action(told, value.action)
    return told


def _put_when(told: trigger_pb2.Trigger, value: model.When) -> None:
    match value:
        case model.Threshold():
            told.threshold.CopyFrom(_threshold(value))
        case model.Degradation():
            told.degradation.CopyFrom(_degradation(value))
        case model.Schedule(cron, time_zone, missed):
            told.schedule.cron, told.schedule.time_zone = cron, time_zone
            told.schedule.missed = convert.number(trigger_pb2.MissedPolicy.Value, "MISSED_POLICY_", missed)
        case model.EventMatch(type, filter, debounce):
            match = trigger_pb2.EventMatch(type=type, filter=filter, debounce=convert.duration(debounce))
            told.event.CopyFrom(match)
        case model.VersionAvailable(component, channel, versions, prereleases):
            told.version_available.component = component
            told.version_available.channel, told.version_available.versions = channel, versions
            told.version_available.prereleases = prereleases
        case model.ByHand():
            told.by_hand.SetInParent()
        case _:
            assert_never(value)


def _threshold(value: model.Threshold) -> trigger_pb2.Threshold:
    return trigger_pb2.Threshold(
        condition=value.condition,
        clear=value.clear,
        component=value.component,
        selector=value.selector,
        pending_for=convert.duration(value.pending_for),
        keep_firing_for=convert.duration(value.keep_firing_for),
        nodes_min=value.nodes_min,
    )


def _degradation(value: model.Degradation) -> trigger_pb2.Degradation:
    return trigger_pb2.Degradation(
        component=value.component,
        measure=analysis_convert.measure(value.measure),
        worse_percent=value.worse_percent,
        clear_percent=value.clear_percent,
        below=value.is_below,
        window=convert.duration(value.window),
        past=convert.duration(value.past),
        pending_for=convert.duration(value.pending_for),
        keep_firing_for=convert.duration(value.keep_firing_for),
        scope=convert.number(trigger_pb2.TriggerScope.Value, "TRIGGER_SCOPE_", value.scope),
        least_exposure=value.least_exposure,
    )


def _put_action(told: trigger_pb2.Trigger, value: model.TriggerAction) -> None:
    match value:
        case model.Notify(text):
            told.notify.CopyFrom(trigger_pb2.Notify(message=text))
        case model.Upgrade(request):
            told.upgrade.CopyFrom(request_convert.request(request))
        case model.Rollback(component, selector):
            told.rollback.CopyFrom(trigger_pb2.Rollback(component=component, selector=selector))
        case _:
            assert_never(value)


def _guards(value: model.Guards) -> trigger_pb2.Guards:
    approval = None
    if value.approval is not None:
        deadline = convert.duration(value.approval.deadline)
        approval = trigger_pb2.ApprovalGuard(deadline=deadline, by_another=value.approval.by_another)
    return trigger_pb2.Guards(
        windows=map(request_convert.window, value.windows),
        cooldown=convert.duration(value.cooldown),
        firings_per_hour_max=value.firings_per_hour_max,
        concurrency=convert.number(rollout_pb2.ConflictPolicy.Value, "CONFLICT_POLICY_", value.concurrency),
        approval=approval,
        held_max=convert.duration(value.held_max),
    )


def from_trigger(told: trigger_pb2.Trigger) -> model.Trigger:
    """A definition from outside, its defaults filled in; without what the controller gives.

    Raises:
        InvalidFieldsError: Parts of it mean nothing here, each of which it names.
    """
    problems: list[errors.InvalidRequestError] = []
    when = _tried(_from_when, told, problems)
    action = _tried(_from_action, told, problems)
    guards = _tried(_from_guards, told.guards, problems)
    if when is None or action is None or guards is None:
        raise errors.InvalidFieldsError(_summary(told.name, problems), problems)
    return model.Trigger(
        id=model.TriggerId(""),
        name=told.name,
        when=when,
        action=action,
        guards=guards,
        is_enabled=told.enabled,
        description=told.description,
    )


def _summary(name: str, problems: list[errors.InvalidRequestError]) -> str:
    return f"cannot accept trigger {name[:100]!r}: " + "; ".join(str(one).partition(": ")[2] for one in problems)


_Told = TypeVar("_Told", bound=message.Message)


def _tried(read: Callable[[_Told], _Part], told: _Told, problems: list[errors.InvalidRequestError]) -> _Part | None:
    """A part, or nothing and one problem more."""
    try:
        return read(told)
    except errors.InvalidRequestError as error:
        problems.append(error)
        return None


def _from_when(told: trigger_pb2.Trigger) -> model.When:
    value_of = trigger_pb2.TriggerKind.Value
    kind = convert.member(model.TriggerKind, value_of, "TRIGGER_KIND_", int(told.kind), "kind")
    when = _told_when(told)
    if when is None and kind is model.TriggerKind.MANUAL:
        return model.ByHand()
    if when is None:
        rule = "one of threshold, degradation, schedule, event, version_available, by_hand"
        raise convert.refusal("when", "" if kind is None else kind.value, rule)
    if kind is not None and kind is not _kind(when):
        raise convert.refusal("kind", kind.value, f"{_kind(when).value}, as what is told of it, or left out")
    return when


def _kind(when: model.When) -> model.TriggerKind:
    return model.Trigger(model.TriggerId(""), "", when, model.Notify()).kind


def _told_when(told: trigger_pb2.Trigger) -> model.When | None:
    name = told.WhichOneof("when")
    match name:
        case None:
            return None
        case "threshold":
            return _from_threshold(told.threshold)
        case "degradation":
            return _from_degradation(told.degradation)
        case "schedule":
            return _from_schedule(told.schedule)
        case "event":
            return _from_event_match(told.event)
        case "version_available":
            return _from_version_available(told.version_available)
        case "by_hand":
            return model.ByHand()
        case _:
            assert_never(name)


def _from_threshold(told: trigger_pb2.Threshold) -> model.Threshold:
    return model.Threshold(
        condition=told.condition,
        clear=told.clear,
        component=model.ComponentName(told.component),
        selector=told.selector,
        pending_for=_span(told, "pending_for", "when.threshold", timedelta()),
        keep_firing_for=_span(told, "keep_firing_for", "when.threshold", timedelta()),
        nodes_min=told.nodes_min if told.HasField("nodes_min") else 1,
    )


def _from_degradation(told: trigger_pb2.Degradation) -> model.Degradation:
    place, usual = "when.degradation", _DEGRADATION
    value_of = trigger_pb2.TriggerScope.Value
    scope = convert.member(model.RuleScope, value_of, "TRIGGER_SCOPE_", int(told.scope), f"{place}.scope")
    return model.Degradation(
        component=model.ComponentName(told.component),
        measure=analysis_convert.from_measure(told.measure, f"{place}.measure"),
        worse_percent=told.worse_percent,
        clear_percent=told.clear_percent if told.HasField("clear_percent") else told.worse_percent,
        is_below=told.below,
        window=_span(told, "window", place, usual.window),
        past=_span(told, "past", place, usual.past),
        pending_for=_span(told, "pending_for", place, usual.pending_for),
        keep_firing_for=_span(told, "keep_firing_for", place, usual.keep_firing_for),
        scope=scope or usual.scope,
        least_exposure=told.least_exposure if told.HasField("least_exposure") else usual.least_exposure,
    )


def _from_schedule(told: trigger_pb2.Schedule) -> model.Schedule:
    value_of = trigger_pb2.MissedPolicy.Value
    missed = convert.member(model.MissedPolicy, value_of, "MISSED_POLICY_", int(told.missed), "when.schedule.missed")
    return model.Schedule(told.cron, told.time_zone or "UTC", missed or model.MissedPolicy.SKIP)


def _from_event_match(told: trigger_pb2.EventMatch) -> model.EventMatch:
    return model.EventMatch(told.type, told.filter, _span(told, "debounce", "when.event", timedelta()))


def _from_version_available(told: trigger_pb2.VersionAvailable) -> model.VersionAvailable:
    return model.VersionAvailable(
        model.ComponentName(told.component), told.channel, told.versions, prereleases=told.prereleases
    )


def _from_action(told: trigger_pb2.Trigger) -> model.TriggerAction:
    name = told.WhichOneof("action")
    match name:
        case None:
            raise convert.refusal("action", "", "one of notify, upgrade, rollback")
        case "notify":
            return model.Notify(told.notify.message)
        case "upgrade":
            return model.Upgrade(_from_upgrade(told.upgrade))
        case "rollback":
            return model.Rollback(model.ComponentName(told.rollback.component), told.rollback.selector)
        case _:
            assert_never(name)


def _from_upgrade(told: rollout_pb2.UpgradeRequest) -> model.UpgradeRequest:
    try:
        return request_convert.from_request(told, has_version=False)
    except errors.InvalidRequestError as error:
        raise convert.refusal(f"action.upgrade.{error.field}", error.value, error.rule) from error


def _from_guards(told: trigger_pb2.Guards) -> model.Guards:
    value_of = rollout_pb2.ConflictPolicy.Value
    field = "guards.concurrency"
    concurrency = convert.member(model.ConflictPolicy, value_of, "CONFLICT_POLICY_", int(told.concurrency), field)
    most = told.firings_per_hour_max if told.HasField("firings_per_hour_max") else _GUARDS.firings_per_hour_max
    return model.Guards(
        windows=tuple(request_convert.from_window(one, "guards.windows") for one in told.windows),
        cooldown=_span(told, "cooldown", "guards", _GUARDS.cooldown),
        firings_per_hour_max=most,
        concurrency=concurrency or _GUARDS.concurrency,
        approval=_from_approval(told.approval) if told.HasField("approval") else None,
        held_max=_span(told, "held_max", "guards", _GUARDS.held_max),
    )


def _from_approval(told: trigger_pb2.ApprovalGuard) -> model.ApprovalGuard:
    convert.refuse_unless(told.HasField("deadline"), "guards.approval.deadline", "", "given")
    deadline = convert.span(told.deadline, "guards.approval.deadline")
    return model.ApprovalGuard(deadline, told.by_another if told.HasField("by_another") else True)


def _span(told: message.Message, name: str, place: str, default: timedelta) -> timedelta:
    if not told.HasField(name):
        return default
    found: duration_pb2.Duration = getattr(told, name)
    return convert.span(found, f"{place}.{name}")
