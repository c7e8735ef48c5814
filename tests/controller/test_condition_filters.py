from __future__ import annotations

import dataclasses
import json
import time
from datetime import UTC, datetime

import pytest

from controller import conditions
from controller.core import errors, model

EVENT = model.ReceivedEvent(
    source="/alerts",
    id="17",
    type="alertmanager.firing",
    subject="web",
    at=datetime(2026, 1, 1, 12, tzinfo=UTC),
    data=json.dumps(
        {
            "labels": {"severity": "critical", "le": "0.5"},
            "value": 1.5,
            "count": 3,
            "huge": 2**70,
            "list": [1, "x", None],
            "none": None,
            "urgent": True,
        }
    ),
)


def matches(text: str, event: model.ReceivedEvent = EVENT) -> bool | None:
    return conditions.compile_filter(text, "when.filter").matches(event)


@pytest.mark.parametrize(
    "text",
    [
        'event.source == "/alerts"',
        'event.id == "17" && event.type.startsWith("alertmanager.")',
        'event.subject in ["web", "db"]',
        'event.time > timestamp("2025-12-31T00:00:00Z")',
        "event.time.getHours() == 12",
        'event.data.labels.severity == "critical"',
        'event.data["value"] > 1.0',
        "event.data.count == 3",
        "event.data.count > 2.5",
        "event.data.huge > 1e20 && event.data.huge < 1e22",
        "event.data.count + 1 > 3",
        'event.data.list[1] == "x"',
        'event.data.list.exists(each, each == "x")',
        "event.data.none == null",
        "event.data.urgent == true",
        "has(event.data.value) && !has(event.data.absent)",
        '"labels" in event.data',
    ],
)
def test_a_filter_sees_all_that_an_event_says(text: str) -> None:
    assert matches(text) is True


@pytest.mark.parametrize("text", ['event.source == "x"', "event.data.count > 3", "!(event.data.urgent == true)"])
def test_what_is_not_so_does_not_pass(text: str) -> None:
    assert matches(text) is False


@pytest.mark.parametrize(
    "text",
    [
        "event.data.absent == 1",
        "event.data.labels.absent == 'x'",
        "event.data.labels.severity > 1",
        "event.data.list[7] == 1",
        "event.data.value / 0.0 > 1.0",
        "event.data.count / 0 == 1",
    ],
)
def test_what_is_missing_or_of_another_type_is_unknown(text: str) -> None:
    assert matches(text) is None


def test_a_time_that_the_sender_does_not_tell_is_missing() -> None:
    event = dataclasses.replace(EVENT, at=None)
    assert matches('event.time > timestamp("1960-01-01T00:00:00Z")', event) is None
    assert matches('event.time != timestamp("1960-01-01T00:00:00Z")', event) is None
    assert matches('event.id == "17" || event.time > timestamp("1960-01-01T00:00:00Z")', event) is True


@pytest.mark.parametrize(
    "data",
    [
        "",
        "[1]",
        "17",
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": 1' + "0" * 999 + "}",
        '{"a": 1',
        "[" * 100_000,
        '{"a": ' * 5_000,
    ],
)
def test_data_that_cannot_be_read_is_missing_and_the_rest_is_not(data: str) -> None:
    event = dataclasses.replace(EVENT, data=data)
    assert matches("event.data.size() >= 0", event) is None
    assert matches('event.id == "17"', event) is True


def test_an_event_without_data_has_an_empty_object() -> None:
    assert matches("event.data.size() == 0", model.ReceivedEvent("a", "1", "b")) is True


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Syntax error"),
        ('event.sorce == "a"', "undeclared reference to 'event.sorce'"),
        ('event == "a"', "undeclared reference to 'event'"),
        ("event.id == 1", "no matching overload"),
        ("event.id", "it gives STRING, and must give a bool"),
        ("event.data.urgent", "it gives DYN, and must give a bool"),
        ("has(event.time)", "must give a bool"),
        ("node.connected", "undeclared reference"),
        ("event.data.list.all(a, event.data.list.all(b, a != b))", "it may take"),
        (" || ".join(['event.id == "1"'] * 20_000), "longer than"),
    ],
)
def test_what_cannot_be_a_filter_is_refused_when_it_is_made(text: str, why: str) -> None:
    started = time.monotonic()
    with pytest.raises(errors.InvalidRequestError, match=r"cannot use when\.filter") as refusal:
        conditions.compile_filter(text, "when.filter")
    assert time.monotonic() - started < 1
    assert why in str(refusal.value)
    assert (refusal.value.code, refusal.value.field) == ("invalid_condition", "when.filter")
    assert "over event" in str(refusal.value.rule)


def test_a_list_without_end_is_stopped_and_leaves_it_unknown() -> None:
    event = dataclasses.replace(EVENT, data=json.dumps({"list": [1] * 50_000}))
    started = time.monotonic()
    assert matches("event.data.list.all(each, each == 1)", event) is None
    assert time.monotonic() - started < 5
