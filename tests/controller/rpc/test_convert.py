"""What all conversions of the API share: the words of the wire, times, and reasons."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import pytest
from google.protobuf import duration_pb2, timestamp_pb2

from controller.core import errors, model
from controller.rpc import convert
from instar.v1 import node_pb2, operation_pb2, rollout_pb2

NOW = datetime(2026, 3, 1, 12, 30, 0, 250_000, tzinfo=UTC)
ENUMS: list[tuple[Any, str, set[Any]]] = [  # Any: the stubs know no type of enum wrappers
    (node_pb2.Health, "HEALTH_", set(model.Health) - {model.Health.UNKNOWN}),
    (node_pb2.InstanceState, "INSTANCE_STATE_", set(model.InstanceState)),
    (operation_pb2.ChangeKind, "CHANGE_KIND_", set(model.ChangeKind)),
    (operation_pb2.Method, "METHOD_", set(model.Method)),
    (operation_pb2.OperationState, "OPERATION_STATE_", set(model.OperationState)),
    (operation_pb2.Step, "STEP_", set(model.Step)),
    (rollout_pb2.RolloutState, "ROLLOUT_STATE_", set(model.RolloutState)),
    (rollout_pb2.Strategy, "STRATEGY_", set(model.Strategy)),
    (rollout_pb2.ValidationLevel, "VALIDATION_LEVEL_", set(model.ValidationLevel)),
    (rollout_pb2.OfflinePolicy, "OFFLINE_POLICY_", set(model.OfflinePolicy)),
    (rollout_pb2.JoinPolicy, "JOIN_POLICY_", set(model.JoinPolicy)),
    (rollout_pb2.ConflictPolicy, "CONFLICT_POLICY_", set(model.ConflictPolicy)),
]


@pytest.mark.parametrize(("kind", "prefix", "members"), ENUMS)
def test_the_words_of_the_wire_are_those_of_the_core(kind: Any, prefix: str, members: set[Enum]) -> None:  # noqa: ANN401 # as above
    names = [value.name for value in kind.DESCRIPTOR.values]
    assert sorted(names) == sorted([f"{prefix}UNSPECIFIED", *(prefix + member.value for member in members)])


def test_a_word_is_read_as_it_was_written_and_none_stands_for_unset() -> None:
    value_of = rollout_pb2.Strategy.Value
    for strategy in model.Strategy:
        told = convert.number(value_of, "STRATEGY_", strategy)
        assert convert.member(model.Strategy, value_of, "STRATEGY_", told, "strategy") is strategy
    assert convert.number(value_of, "STRATEGY_", None) == 0
    assert convert.member(model.Strategy, value_of, "STRATEGY_", 0, "strategy") is None


def test_a_word_from_the_future_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot") as caught:
        convert.member(model.Strategy, rollout_pb2.Strategy.Value, "STRATEGY_", 77, "strategy")
    assert (caught.value.field, caught.value.value) == ("strategy", "77")
    assert caught.value.rule == "one of IMMEDIATE, ROLLING, GRADUAL, CANARY, BLUE_GREEN"


def test_times_pass_both_ways() -> None:
    told = convert.timestamp(NOW)
    assert told is not None
    assert convert.instant(told, "since") == NOW
    assert convert.timestamp(None) is None
    assert convert.span(convert.duration(timedelta(milliseconds=1500)), "soak") == timedelta(seconds=1.5)
    assert convert.optional_duration(None) is None
    assert convert.optional_duration(timedelta()) == duration_pb2.Duration()


def test_times_that_are_none_are_refused_by_the_name_of_the_field() -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot") as caught:
        convert.instant(timestamp_pb2.Timestamp(seconds=1 << 60), "freeze.start_time")
    assert caught.value.field == "freeze.start_time"
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot") as caught:
        convert.span(duration_pb2.Duration(seconds=1 << 62), "policy.deadline")
    assert caught.value.field == "policy.deadline"


@pytest.mark.parametrize("text", ["", "x" * (convert.REASON_CHARS_MAX + 1)])
def test_a_reason_is_given_and_short_enough_to_be_read(text: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=re.escape("cannot pause the rollout: reason")) as caught:
        convert.reason(text, "pause the rollout")
    assert (caught.value.code, caught.value.field) == ("reason_invalid", "reason")
    longest = "x" * convert.REASON_CHARS_MAX
    assert convert.reason(longest, "pause the rollout") == longest
