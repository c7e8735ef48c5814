"""What can be wrong with a request in itself, whatever the fleet is like: its kind, its strategy, its policy.

Rules kept: each refusal is an `InvalidRequestError` that names the field, the value and the rule; the same request is
wrong for ever. Left out: components, versions and nodes (`planner`, `refusals`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import assert_never

from controller.core import errors, model

COUNT_MAX = 1_000_000  # nodes or requests that a policy may speak of; more is a slip of the hand
DURATION_MAX = timedelta(days=365)  # that a policy may speak of; more is a slip of the hand
MIN_HEALTHY_DURATION_MIN = timedelta(milliseconds=100)  # less could pass before a first probe
KINDS = (model.ChangeKind.REMOVE, model.ChangeKind.START, model.ChangeKind.STOP, model.ChangeKind.RESTART)


def check(request: model.UpgradeRequest) -> None:
    """Refuse a request that could not be planned for any fleet.

    Raises:
        InvalidRequestError: The error names the field.
    """
    check_kind(request)
    canary_nodes(request)
    check_policy(request.policy)


def check_kind(request: model.UpgradeRequest) -> None:
    """Refuse a kind that nobody can ask for, or one beside what belongs to a target version.

    Raises:
        InvalidRequestError: The error names the field.
    """
    if request.kind is None:
        return
    if request.kind not in KINDS:
        raise _bad_kind("kind", request.kind.value, f"it must be one of {', '.join(each.value for each in KINDS)}")
    if request.target_version:
        raise _bad_kind("target_version", request.target_version, f"it must be empty for the kind {request.kind.value}")
    if request.install:
        raise _bad_kind("install", "true", f"it must be false for the kind {request.kind.value}")


def _bad_kind(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot plan with {field} {value}: {rule}", code="invalid_kind", field=field, value=value, rule=rule
    )


def check_policy(policy: model.Policy) -> None:
    """Refuse numbers that contradict each other or mean nothing.

    Raises:
        InvalidRequestError: One of them; the error names the field.
    """
    for name in ("max_parallel", "max_failures", "soak_requests_min"):
        count = getattr(policy, name)
        if not 0 <= count <= COUNT_MAX:
            raise _bad_number(name, count, f"it must lie between 0 and {COUNT_MAX}")
    for name, least in _LEAST_DURATIONS.items():
        duration = getattr(policy, name)
        if not least <= duration <= DURATION_MAX:
            raise _bad_number(name, duration, f"it must lie between {least} and {DURATION_MAX}")
    if policy.min_healthy_duration >= policy.healthy_deadline:
        raise _bad_number("healthy_deadline", policy.healthy_deadline, "it must be longer than min_healthy_duration")
    if policy.healthy_deadline >= policy.progress_deadline:
        raise _bad_number("progress_deadline", policy.progress_deadline, "it must be longer than healthy_deadline")
    if policy.soak_duration >= policy.healthy_deadline:
        raise _bad_number("soak_duration", policy.soak_duration, "it must be shorter than healthy_deadline")


_LEAST_DURATIONS = {
    "min_healthy_duration": MIN_HEALTHY_DURATION_MIN,
    "healthy_deadline": MIN_HEALTHY_DURATION_MIN,
    "progress_deadline": MIN_HEALTHY_DURATION_MIN,
    "unknown_deadline": MIN_HEALTHY_DURATION_MIN,
    "soak_duration": timedelta(),
}


def _bad_number(name: str, value: object, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot plan with policy.{name} {value}: {rule}",
        code="invalid_policy",
        field=f"policy.{name}",
        value=str(value),
        rule=rule,
    )


def canary_nodes(request: model.UpgradeRequest) -> int:
    """Read the parameters of the strategy; 0 where it has no canary.

    Raises:
        InvalidRequestError: The strategy does not have them, or they mean nothing.
    """
    match request.strategy:
        case model.Strategy.IMMEDIATE:
            if request.parameters is not None:
                raise _bad_parameters("parameters", "canary", "IMMEDIATE has no parameters")
            return 0
        case model.Strategy.CANARY:
            nodes = (request.parameters or model.CanaryParameters()).nodes
            if not 1 <= nodes <= COUNT_MAX:
                raise _bad_parameters("parameters.nodes", str(nodes), f"it must lie between 1 and {COUNT_MAX}")
            return nodes
        case _:
            assert_never(request.strategy)


def _bad_parameters(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot plan with {field} {value}: {rule}", code="invalid_parameters", field=field, value=value, rule=rule
    )
