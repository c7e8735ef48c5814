"""What can be wrong with the definition of a trigger in itself, whatever the fleet is like.

Rules kept: all that is wrong is said at once, each by its field, value and rule; what a request or a policy may say is
decided by `requests`. Left out: whether conditions are CEL, which the shell compiles, and whether components, channels
and series exist, for they may come later.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import assert_never

from controller.core import errors, model, requests, selector, versions
from controller.core.triggers import schedules

NAME_RULE = "it has 1 to 63 lower-case letters, digits, dots, dashes and underscores between letters or digits"
COMPONENT_NAME_CHARS_MAX = 40  # as in manifests
TEXT_CHARS_MAX = 1_000  # of a description or a message
TYPE_CHARS_MAX = 200  # of an event; those of CloudEvents are reversed names of domains
SERIES_CHARS_MAX = 200  # as in the rules of the monitor
DURATION_MAX = timedelta(days=1)  # of what has to hold, to be over, or to be quiet
WINDOW_MIN = timedelta(milliseconds=300)  # three looks of the monitor, as short as these can be
WINDOW_MAX = timedelta(hours=1)  # with the past, less than what is kept in memory
PAST_MIN = timedelta(seconds=20)  # as in the rules of the monitor: of quick heartbeats fifteen pieces with a few each
PAST_MAX = timedelta(hours=3)
PERCENT_MAX = 10_000  # a hundred times worse
PERCENT_BELOW_MAX = 99  # nothing is by more than itself below something
EXPOSURE_MAX = 1e12  # events, seconds or readings
FIRINGS_PER_HOUR_MAX = 1_000  # each of which is remembered for an hour
HELD_MIN = timedelta(seconds=1)
ANY_VERSION = "*"

_NAME = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?")
_TYPE = re.compile(r"[^\s*]+\*?|\*")
_PER = frozenset({model.MeasureKind.RATIO, model.MeasureKind.MEAN})
_Problems = Iterator[errors.InvalidRequestError]


def kind(told: str | model.TriggerKind) -> model.TriggerKind:
    """Read the kind of a trigger, in any case and with dashes or underscores.

    Raises:
        InvalidRequestError: It is none.
    """
    if isinstance(told, model.TriggerKind):
        return told
    found = model.TriggerKind.__members__.get(str(told).strip().upper().replace("-", "_"))
    if found is None:
        raise _bad("when.kind", told, f"it is one of {', '.join(model.TriggerKind.__members__)}")
    return found


def check(trigger: model.Trigger) -> None:
    """Refuse a definition that means nothing.

    Raises:
        InvalidFieldsError: With all that is wrong.
    """
    found = problems(trigger)
    if found:
        many = "one field is" if len(found) == 1 else f"{len(found)} fields are"
        raise errors.InvalidFieldsError(f"cannot accept trigger {trigger.name[:63]!r}: {many} wrong", found)


def problems(trigger: model.Trigger) -> tuple[errors.InvalidRequestError, ...]:
    """Give all that is wrong with a definition in itself."""
    return (*_named(trigger), *_when(trigger.when), *_action(trigger), *_guards(trigger.guards))


def _named(trigger: model.Trigger) -> _Problems:
    yield from _name("name", trigger.name)
    yield from _text("description", trigger.description)


def _when(when: model.When) -> _Problems:
    match when:
        case model.Threshold():
            yield from _threshold(when)
        case model.Degradation():
            yield from _degradation(when)
        case model.Schedule():
            yield from _raised_by(lambda: schedules.check(when))
        case model.EventMatch():
            yield from _event(when)
        case model.VersionAvailable():
            yield from _version(when)
        case model.ByHand():
            pass
        case _:
            assert_never(when)


def _threshold(when: model.Threshold) -> _Problems:
    at = "when.threshold"
    if not when.condition.strip():
        field = "clear" if when.clear else "condition"
        rule = "it belongs to a condition, and there is none" if when.clear else "it is there"
        yield _bad(f"{at}.{field}", when.clear, rule)
    if when.component:
        yield from _component(f"{at}.component", when.component)
    yield from _selector(f"{at}.selector", when.selector)
    yield from _duration(f"{at}.pending_for", when.pending_for)
    yield from _duration(f"{at}.keep_firing_for", when.keep_firing_for)
    yield from _count(f"{at}.nodes_min", when.nodes_min, 1, requests.COUNT_MAX)


def _degradation(when: model.Degradation) -> _Problems:
    at = "when.degradation"
    yield from _component(f"{at}.component", when.component)
    yield from _measure(f"{at}.measure", when.measure)
    yield from _count(f"{at}.worse_percent", when.worse_percent, 1, PERCENT_BELOW_MAX if when.is_below else PERCENT_MAX)
    if not 0 <= when.clear_percent <= when.worse_percent:
        rule = f"it lies between 0 and worse_percent, which is {when.worse_percent}"
        yield _bad(f"{at}.clear_percent", when.clear_percent, rule)
    yield from _duration(f"{at}.window", when.window, WINDOW_MIN, WINDOW_MAX)
    yield from _duration(f"{at}.past", when.past, PAST_MIN, PAST_MAX)
    if when.past < when.window:
        yield _bad(f"{at}.past", when.past, f"it is no shorter than window, which is {when.window}")
    yield from _duration(f"{at}.pending_for", when.pending_for)
    yield from _duration(f"{at}.keep_firing_for", when.keep_firing_for)
    if not (math.isfinite(when.least_exposure) and 0 < when.least_exposure <= EXPOSURE_MAX):
        yield _bad(f"{at}.least_exposure", when.least_exposure, f"it is above 0 and at most {EXPOSURE_MAX:g}")


def _measure(at: str, measure: model.Measure) -> _Problems:
    chars = f"it has 1 to {SERIES_CHARS_MAX} printable characters"
    if not _is_series(measure.series):
        yield _bad(f"{at}.series", measure.series, chars)
    if measure.kind in _PER and not _is_series(measure.per):
        yield _bad(f"{at}.per", measure.per, f"{measure.kind.value} is one series per another, and {chars}")
    if measure.kind not in _PER and measure.per:
        yield _bad(f"{at}.per", measure.per, f"{measure.kind.value} is of one series alone")
    if measure.kind is model.MeasureKind.QUANTILE:
        yield from _count(f"{at}.quantile_percent", measure.quantile_percent, 1, 99)
    for name in ("query", "per_query"):
        if getattr(measure, name):
            rule = "what nodes report themselves is not asked for by a query"
            yield _bad(f"{at}.{name}", getattr(measure, name), rule)


def _is_series(name: str) -> bool:
    return 0 < len(name) <= SERIES_CHARS_MAX and name.isprintable()


def _event(when: model.EventMatch) -> _Problems:
    at = "when.event"
    if len(when.type) > TYPE_CHARS_MAX or not _TYPE.fullmatch(when.type):
        rule = f"it has 1 to {TYPE_CHARS_MAX} characters without blanks, of which only the last may be *"
        yield _bad(f"{at}.type", when.type, rule)
    yield from _duration(f"{at}.debounce", when.debounce)


def _version(when: model.VersionAvailable) -> _Problems:
    at = "when.version_available"
    yield from _component(f"{at}.component", when.component)
    if bool(when.channel) is bool(when.versions):
        field, value = ("versions", when.versions) if when.versions else ("channel", when.channel)
        yield _bad(f"{at}.{field}", value, "exactly one of channel and versions is given")
    if when.channel:
        yield from _name(f"{at}.channel", when.channel)
    if when.versions not in ("", ANY_VERSION):
        yield from _raised_by(lambda: versions.parse_comparators(when.versions, f"{at}.versions"))


def _action(trigger: model.Trigger) -> _Problems:
    match trigger.action:
        case model.Notify(message=message):
            yield from _text("action.notify.message", message)
        case model.Upgrade(request=request):
            yield from _request(trigger.when, request)
        case model.Rollback(component=component, selector=chosen):
            yield from _component("action.rollback.component", component)
            yield from _selector("action.rollback.selector", chosen)
        case _:
            assert_never(trigger.action)


def _request(when: model.When, request: model.UpgradeRequest) -> _Problems:
    at = "action.upgrade"
    yield from _component(f"{at}.component", request.component)
    yield from _selector(f"{at}.selector", request.selector)
    yield from _raised_by(lambda: requests.check(request), f"{at}.")
    finds = when.component if isinstance(when, model.VersionAvailable) else None
    if request.kind is None and not request.target_version and finds != request.component:
        why = "finds no version" if finds is None else f"finds versions of {finds}"
        yield _bad(f"{at}.target_version", "", f"it is given, for the trigger {why} by itself")


def _guards(guards: model.Guards) -> _Problems:
    for name, value, rule in requests.bad_windows(guards.windows):
        yield _bad(f"guards.{name}", value, rule)
    yield from _duration("guards.cooldown", guards.cooldown, timedelta(), requests.DURATION_MAX)
    yield from _count("guards.firings_per_hour_max", guards.firings_per_hour_max, 1, FIRINGS_PER_HOUR_MAX)
    yield from _duration("guards.held_max", guards.held_max, HELD_MIN, requests.DURATION_MAX)
    if guards.approval is not None:
        least = requests.APPROVAL_DEADLINE_MIN
        yield from _duration("guards.approval.deadline", guards.approval.deadline, least, requests.DURATION_MAX)


def _name(field: str, name: str) -> _Problems:
    if not _NAME.fullmatch(name):
        yield _bad(field, name, NAME_RULE)


def _component(field: str, name: str) -> _Problems:
    if not _NAME.fullmatch(name) or len(name) > COMPONENT_NAME_CHARS_MAX:
        yield _bad(field, name, f"it names a component, in at most {COMPONENT_NAME_CHARS_MAX} characters")


def _text(field: str, text: str) -> _Problems:
    if len(text) > TEXT_CHARS_MAX:
        yield _bad(field, text, f"it has at most {TEXT_CHARS_MAX} characters")


def _selector(field: str, text: str) -> _Problems:
    for each in _raised_by(lambda: selector.parse(text)):
        yield _renamed(each, field)


def _duration(field: str, span: timedelta, least: timedelta = timedelta(), most: timedelta = DURATION_MAX) -> _Problems:
    if not least <= span <= most:
        yield _bad(field, span, f"it lies between {least} and {most}")


def _count(field: str, count: int, least: int, most: int) -> _Problems:
    if not least <= count <= most:
        yield _bad(field, count, f"it lies between {least} and {most}")


def _raised_by(checked: Callable[[], object], within: str = "") -> _Problems:
    """Give what a check refuses; the fields of what it looks at lie within another one."""
    try:
        checked()
    except errors.InvalidRequestError as error:
        yield _renamed(error, f"{within}{error.field}")


def _renamed(error: errors.InvalidRequestError, field: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(str(error), code=error.code, field=field, value=error.value, rule=error.rule)


def _bad(field: str, value: object, rule: str) -> errors.InvalidRequestError:
    shown = str(value)[:TYPE_CHARS_MAX]
    return errors.InvalidRequestError(
        f"cannot have a trigger with {field} {shown!r}: {rule}",
        code="invalid_trigger",
        field=field,
        value=shown,
        rule=rule,
    )
