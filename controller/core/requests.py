"""What can be wrong with a request in itself, whatever the fleet is like: its kind, its strategy, its policy.

Rules kept: each refusal is an `InvalidRequestError` that names the field, the value and the rule; the same request is
wrong for ever. The text of a strategy is read here, and nowhere else. Left out: components, versions and nodes
(`planner`, `refusals`), and numbers that mean nothing only for this fleet (`thresholds`).
"""

from __future__ import annotations

import itertools
import re
import zoneinfo
from collections.abc import Iterator
from datetime import timedelta
from typing import assert_never

from controller.core import analyses, errors, model

COUNT_MAX = 1_000_000  # nodes or requests that a policy may speak of; more is a slip of the hand
DURATION_MAX = timedelta(days=365)  # that a policy may speak of; more is a slip of the hand
MIN_HEALTHY_DURATION_MIN = timedelta(milliseconds=100)  # less could pass before a first probe
ALSO_MAX = 32  # components beside the first; more is no upgrade but a migration
PRIORITY_MAX = 1_000_000
APPROVAL_DEADLINE_MIN = timedelta(seconds=1)  # less, and nobody could have looked at what is asked
RULES_MAX = 32  # that a policy may name; as many as there are
WINDOWS_MAX = 64  # that a policy may have; a week of hours is fewer with days than without
WINDOW_DURATION_MAX = timedelta(days=7)
DAY = timedelta(days=1)
PERCENT_MAX = 100
KINDS = (model.ChangeKind.REMOVE, model.ChangeKind.START, model.ChangeKind.STOP, model.ChangeKind.RESTART)

_LABEL = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_WEEKDAYS = frozenset(range(1, 8))  # as ISO numbers them


def check(request: model.UpgradeRequest) -> None:
    """Refuse a request that could not be planned for any fleet.

    Raises:
        InvalidRequestError: The error names the field.
    """
    check_kind(request)
    check_parameters(request)
    check_policy(request.policy)
    check_blue_green(request)
    _check_also(request)
    if not -PRIORITY_MAX <= request.priority <= PRIORITY_MAX:
        rule = f"it must lie between -{PRIORITY_MAX} and {PRIORITY_MAX}"
        raise _bad("priority", request.priority, rule, "invalid_priority")
    _check_approval(request.approval_deadline)


def strategy(told: str | model.Strategy) -> model.Strategy:
    """Read a strategy, in any case and with dashes or underscores.

    Raises:
        InvalidRequestError: Code ``unknown_strategy``.
    """
    if isinstance(told, model.Strategy):
        return told
    found = model.Strategy.__members__.get(told.strip().upper().replace("-", "_"))
    if found is None:
        rule = f"it must be one of {', '.join(model.Strategy.__members__)}"
        raise _bad("strategy", told, rule, "unknown_strategy")
    return found


def check_kind(request: model.UpgradeRequest) -> None:
    """Refuse a kind that nobody can ask for, or one beside what belongs to a target version.

    Raises:
        InvalidRequestError: The error names the field.
    """
    if request.kind is None:
        return
    empty = f"for the kind {request.kind.value}"
    if request.kind not in KINDS:
        rule = f"it must be one of {', '.join(each.value for each in KINDS)}"
        raise _bad("kind", request.kind.value, rule, "invalid_kind")
    if request.target_version:
        raise _bad("target_version", request.target_version, f"it must be empty {empty}", "invalid_kind")
    if request.install:
        raise _bad("install", "true", f"it must be false {empty}", "invalid_kind")
    if request.also:
        raise _bad("also", request.also[0].component, f"it must be empty {empty}", "invalid_kind")
    if request.strategy is model.Strategy.BLUE_GREEN:
        raise _bad("strategy", "BLUE_GREEN", f"it has no two versions {empty}", "invalid_kind")


def check_parameters(request: model.UpgradeRequest) -> None:
    """Refuse parameters that the strategy does not have, or that mean nothing.

    Raises:
        InvalidRequestError: Code ``invalid_parameters``.
    """
    given = request.parameters
    wanted = _PARAMETERS[request.strategy]
    if given is not None and not isinstance(given, wanted):
        name = request.strategy.value
        rule = f"{name} has no parameters" if not wanted else f"{name} has parameters of its own"
        raise _bad("parameters", _NAMES[type(given)], rule, "invalid_parameters")
    match given:
        case None:
            return
        case model.CanaryParameters():
            _check_canary(given, request.kind)
        case model.RollingParameters(batch_nodes=nodes):
            _check_count("parameters.batch_nodes", nodes)
        case model.GradualParameters(percents=percents):
            _check_percents(percents)
        case model.BlueGreenParameters(verify_duration=duration):
            if not timedelta() <= duration <= DURATION_MAX:
                rule = f"it must lie between {timedelta()} and {DURATION_MAX}"
                raise _bad("parameters.verify_duration", duration, rule, "invalid_parameters")
        case _:
            assert_never(given)


def _check_canary(given: model.CanaryParameters, kind: model.ChangeKind | None) -> None:
    _check_count("parameters.nodes", given.nodes)
    if given.analysis is not None:
        analyses.check(given.analysis, kind)


def _check_count(field: str, nodes: int) -> None:
    if not 1 <= nodes <= COUNT_MAX:
        raise _bad(field, nodes, f"it must lie between 1 and {COUNT_MAX}", "invalid_parameters")


def _check_percents(percents: tuple[int, ...]) -> None:
    is_growing = all(low < high for low, high in itertools.pairwise((0, *percents)))
    if not is_growing or percents[-1:] != (PERCENT_MAX,):
        text = ",".join(map(str, percents))
        rule = f"they must be above 0, grow, and end at {PERCENT_MAX}"
        raise _bad("parameters.percents", text, rule, "invalid_parameters")


def check_policy(policy: model.Policy) -> None:
    """Refuse numbers that contradict each other or mean nothing.

    Raises:
        InvalidRequestError: One of them; the error names the field.
    """
    for name, least, most in _COUNTS:
        count = getattr(policy, name)
        if count is not None and not least <= count <= most:
            raise _bad_number(name, count, f"it must lie between {least} and {most}")
    for name, shortest in _LEAST_DURATIONS.items():
        duration = getattr(policy, name)
        if not shortest <= duration <= DURATION_MAX:
            raise _bad_number(name, duration, f"it must lie between {shortest} and {DURATION_MAX}")
    for name, value, rule in (*_contradictions(policy), *bad_windows(policy.windows)):
        raise _bad_number(name, value, rule)


def check_rules(policy: model.Policy, known: frozenset[str]) -> None:
    """Refuse rules that the monitor does not have: what nobody looks for would hold the rollout for ever.

    Raises:
        InvalidRequestError: Code ``rule_unknown``.
    """
    for name in policy.hold_while_firing:
        if name not in known:
            rule = f"it must be one of the rules {', '.join(sorted(known))}" if known else "no rules are configured"
            raise _bad("policy.hold_while_firing", name, rule, "rule_unknown")


def _contradictions(policy: model.Policy) -> Iterator[tuple[str, object, str]]:
    """Give each number that cannot stand beside another one: its name, its value and why."""
    if policy.min_healthy_duration >= policy.healthy_deadline:
        yield "healthy_deadline", policy.healthy_deadline, "it must be longer than min_healthy_duration"
    if policy.healthy_deadline >= policy.progress_deadline:
        yield "progress_deadline", policy.progress_deadline, "it must be longer than healthy_deadline"
    if policy.soak_duration >= policy.healthy_deadline:
        yield "soak_duration", policy.soak_duration, "it must be shorter than healthy_deadline"
    shortest = policy.soak_duration + policy.min_healthy_duration
    if policy.deadline is not None and not shortest < policy.deadline <= DURATION_MAX:
        rule = f"it must be longer than soak_duration and min_healthy_duration, and at most {DURATION_MAX}"
        yield "deadline", policy.deadline, rule
    if policy.domain_label and _LABEL.fullmatch(policy.domain_label) is None:
        yield "domain_label", policy.domain_label, "it must be the name of a label"
    if len(policy.hold_while_firing) > RULES_MAX or len({*policy.hold_while_firing}) < len(policy.hold_while_firing):
        yield "hold_while_firing", ",".join(policy.hold_while_firing), f"there are at most {RULES_MAX}, each once"


def bad_windows(windows: tuple[model.Window, ...]) -> Iterator[tuple[str, object, str]]:
    """Give what is wrong with windows: the name within what has them, the value and the rule."""
    if len(windows) > WINDOWS_MAX:
        yield "windows", len(windows), f"there are at most {WINDOWS_MAX}"
    for index, each in enumerate(windows):
        name = f"windows[{index}]"
        if not each.days <= _WEEKDAYS:
            days = ",".join(map(str, sorted(each.days)))
            yield f"{name}.days", days, "days are numbered from 1 for Monday to 7 for Sunday"
        if not timedelta() <= each.opens < DAY:
            yield f"{name}.opens", each.opens, "it must be a time of the day"
        if not timedelta() < each.duration <= WINDOW_DURATION_MAX:
            yield f"{name}.duration", each.duration, "it must be longer than nothing and at most a week"
        if not _is_zone(each.time_zone):
            yield f"{name}.time_zone", each.time_zone, "it must be an IANA name, for example Europe/Berlin"


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False  # no such name; not a name at all; the name of a folder of zones
    return True


def check_blue_green(request: model.UpgradeRequest) -> None:
    """Refuse limits that cannot hold where all nodes switch together.

    Raises:
        InvalidRequestError: Code ``invalid_policy``.
    """
    if request.strategy is not model.Strategy.BLUE_GREEN:
        return
    for name, none in {"floor_percent": 0, "max_parallel": 0, "domain_label": ""}.items():
        value = getattr(request.policy, name)
        if value != none:
            raise _bad_number(name, value, "BLUE_GREEN switches all nodes together")


def _check_also(request: model.UpgradeRequest) -> None:
    names = [request.component, *(each.component for each in request.also)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _bad("also", twice, "each component stands once in a request", "invalid_also")
    if len(request.also) > ALSO_MAX:
        raise _bad("also", len(request.also), f"there are at most {ALSO_MAX}", "invalid_also")


def _check_approval(deadline: timedelta | None) -> None:
    if deadline is not None and not APPROVAL_DEADLINE_MIN <= deadline <= DURATION_MAX:
        rule = f"it must lie between {APPROVAL_DEADLINE_MIN} and {DURATION_MAX}"
        raise _bad("approval_deadline", deadline, rule, "invalid_approval_deadline")


_PARAMETERS: dict[model.Strategy, tuple[type[model.Parameters], ...]] = {
    model.Strategy.IMMEDIATE: (),
    model.Strategy.ROLLING: (model.RollingParameters,),
    model.Strategy.GRADUAL: (model.GradualParameters,),
    model.Strategy.CANARY: (model.CanaryParameters,),
    model.Strategy.BLUE_GREEN: (model.BlueGreenParameters,),
}
_NAMES = {
    model.RollingParameters: "rolling",
    model.GradualParameters: "gradual",
    model.CanaryParameters: "canary",
    model.BlueGreenParameters: "blue_green",
}
_COUNTS = (
    ("max_parallel", 0, COUNT_MAX),
    ("max_failures", 0, COUNT_MAX),
    ("max_infrastructure_failures", 0, COUNT_MAX),
    ("soak_requests_min", 0, COUNT_MAX),
    ("floor_percent", 0, PERCENT_MAX),
    ("domain_max_parallel", 1, COUNT_MAX),
    ("revert_max_parallel", 0, COUNT_MAX),
)
_LEAST_DURATIONS = {
    "min_healthy_duration": MIN_HEALTHY_DURATION_MIN,
    "healthy_deadline": MIN_HEALTHY_DURATION_MIN,
    "progress_deadline": MIN_HEALTHY_DURATION_MIN,
    "unknown_deadline": MIN_HEALTHY_DURATION_MIN,
    "soak_duration": timedelta(),
    "bake_duration": timedelta(),
    "offline_deadline": MIN_HEALTHY_DURATION_MIN,
}


def _bad(field: str, value: object, rule: str, code: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot plan with {field} {value}: {rule}", code=code, field=field, value=str(value), rule=rule
    )


def _bad_number(name: str, value: object, rule: str) -> errors.InvalidRequestError:
    return _bad(f"policy.{name}", value, rule, "invalid_policy")


def canary_nodes(request: model.UpgradeRequest) -> int:
    """Give the number of nodes that go first; 0 where the strategy has no canary."""
    if request.strategy is not model.Strategy.CANARY:
        return 0
    given = request.parameters
    return (given if isinstance(given, model.CanaryParameters) else model.CanaryParameters()).nodes


def analysis(request: model.UpgradeRequest) -> model.Analysis | None:
    """Give how the canary is judged; None where it is not."""
    given = request.parameters
    return given.analysis if isinstance(given, model.CanaryParameters) else None


def batch_nodes(request: model.UpgradeRequest) -> int:
    """Give the number of nodes in a batch of ROLLING."""
    given = request.parameters
    return (given if isinstance(given, model.RollingParameters) else model.RollingParameters()).batch_nodes


def percents(request: model.UpgradeRequest) -> tuple[int, ...]:
    """Give the percentages of GRADUAL."""
    given = request.parameters
    return (given if isinstance(given, model.GradualParameters) else model.GradualParameters()).percents
