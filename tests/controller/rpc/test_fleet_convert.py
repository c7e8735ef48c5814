"""Nodes, freezes and statistics on the wire, and what operators may say of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controller.core import errors, model
from controller.rpc import convert, fleet_convert
from instar.v1 import fleet_service_pb2, node_pb2

NOW = datetime(2026, 3, 1, 12, 30, 0, 250_000, tzinfo=UTC)
DIGEST = model.Digest("sha256:" + "a" * 64)


def node(**facts: object) -> model.Node:
    component = model.InstalledComponent(
        name=model.ComponentName("web"),
        version="1.0.0",
        digest=DIGEST,
        permanent_digest=DIGEST,
        health=model.Health.UNKNOWN,
        healthy_for=timedelta(seconds=1.5),
        instances=(model.Instance("web.1", DIGEST, 42, model.InstanceState.ACTIVE, 99, restarts=3),),
        is_stopped=True,
    )
    return model.Node(
        id=model.NodeId("n-1"),
        labels={"zone": "a"},
        capabilities=frozenset({"driver.handover", "a"}),
        agent_version="1.0.0",
        fence=3,
        is_connected=True,
        last_seen_at=NOW,
        components={component.name: component},
        conditions=(model.Condition("drift", "web", "its files were changed", NOW),),
        **facts,  # type: ignore[arg-type]  # the test's own facts
    )


def test_a_node_is_shown_with_what_it_said_of_itself() -> None:
    shown = fleet_convert.node(node(), [model.Metric("system.cpu.utilization", "", 0.5)])
    assert (shown.node_id, dict(shown.labels), list(shown.capabilities)) == (
        "n-1",
        {"zone": "a"},
        ["a", "driver.handover"],
    )
    assert shown.components[0].health == node_pb2.HEALTH_UNSPECIFIED
    assert shown.components[0].healthy_for.ToTimedelta() == timedelta(seconds=1.5)
    assert shown.components[0].instances[0].pid == 42
    assert shown.metrics[0].value == 0.5
    assert (shown.operation_id, shown.active_operations, shown.max_operations) == ("", 0, 1)
    assert (shown.cordon_reason, shown.quarantine_reason) == ("", "")
    assert shown.components[0].stopped
    assert shown.components[0].instances[0].restarts == 3
    assert [(one.code, one.component, one.message) for one in shown.conditions] == [
        ("drift", "web", "its files were changed")
    ]
    assert shown.conditions[0].since_time.ToDatetime(UTC) == NOW


def test_a_node_is_shown_with_what_operators_decided_and_with_what_holds_it() -> None:
    held = node(
        cordoned_because="disk", quarantined_because="odd answers", operation_id=model.OperationId("r-1/1/n-1/web/1")
    )
    shown = fleet_convert.node(held, [])
    assert (shown.cordon_reason, shown.quarantine_reason) == ("disk", "odd answers")
    assert (shown.operation_id, shown.active_operations) == ("r-1/1/n-1/web/1", 1)


def test_statistics_are_shown_whole() -> None:
    metrics = model.MetricCounts(is_collecting=True, series=11, samples=12, refused=13, fresh_nodes=14, capped_nodes=15)
    counted = model.Statistics(1, 2, 3, 4, 5, 6, timedelta(seconds=7), 8, 9, 10, metrics)
    shown = fleet_convert.statistics(counted)
    assert (shown.queued, shown.active, shown.completed, shown.failed, shown.distributed) == (1, 2, 3, 4, 5)
    assert (shown.timed_out, shown.mean_duration.seconds) == (6, 7)
    assert (shown.total_nodes, shown.active_nodes, shown.refused) == (8, 9, 10)
    told = shown.metrics
    counts = (told.series, told.samples, told.refused, told.fresh_nodes, told.capped_nodes)
    assert (told.collecting, counts) == (True, (11, 12, 13, 14, 15))
    none = fleet_convert.statistics(model.Statistics(0, 0, 0, 0, 0, 0, None, 0, 0, 0))
    assert not none.HasField("mean_duration")


def test_a_freeze_is_shown_whole() -> None:
    freeze = model.Freeze(model.FreezeId("f-1"), "zone=a", NOW, None, "holidays", "ann", is_emergency=True)
    shown = fleet_convert.freeze(freeze)
    assert (shown.freeze_id, shown.selector, shown.reason, shown.actor) == ("f-1", "zone=a", "holidays", "ann")
    assert shown.start_time.ToDatetime(UTC) == NOW
    assert shown.emergency
    assert not shown.HasField("end_time")


def test_a_freeze_begins_now_and_lasts_until_it_is_lifted_where_it_does_not_say() -> None:
    asked = fleet_convert.from_freeze(fleet_service_pb2.Freeze(reason="holidays", selector="zone=a"), NOW)
    assert asked == fleet_convert.AskedFreeze("zone=a", NOW, None, "holidays")


def test_a_freeze_lasts_from_when_to_when_it_says() -> None:
    day = timedelta(days=1)
    message = fleet_service_pb2.Freeze(
        reason="holidays", start_time=convert.timestamp(NOW + day), end_time=convert.timestamp(NOW + 2 * day)
    )
    asked = fleet_convert.from_freeze(message, NOW)
    assert (asked.since, asked.until) == (NOW + day, NOW + 2 * day)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (fleet_service_pb2.Freeze(), "freeze.reason"),
        (fleet_service_pb2.Freeze(reason="x", end_time=convert.timestamp(NOW)), "freeze.end_time"),
        (
            fleet_service_pb2.Freeze(
                reason="x",
                start_time=convert.timestamp(NOW + timedelta(days=2)),
                end_time=convert.timestamp(NOW + timedelta(days=1)),
            ),
            "freeze.end_time",
        ),
        (
            fleet_service_pb2.Freeze(
                reason="x",
                start_time=convert.timestamp(NOW - timedelta(days=2)),
                end_time=convert.timestamp(NOW - timedelta(days=1)),
            ),
            "freeze.end_time",
        ),
    ],
)
def test_a_freeze_that_would_never_be_in_force_is_refused(message: fleet_service_pb2.Freeze, field: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot") as caught:
        fleet_convert.from_freeze(message, NOW)
    assert caught.value.field == field


def test_labels_to_set_and_to_take_away_are_read() -> None:
    asked = fleet_service_pb2.LabelNodeRequest(labels={"zone": "b", "example.org/tier": "x"}, removed_keys=["old"])
    assert fleet_convert.from_labels(asked) == ({"zone": "b", "example.org/tier": "x"}, ("old",))


@pytest.mark.parametrize(
    ("labels", "removed", "field"),
    [
        ({}, [], "labels"),
        ({f"k{number}": "" for number in range(fleet_convert.LABELS_MAX)}, ["one-more"], "labels"),
        ({"zone": "a"}, ["zone"], "removed_keys"),
    ],
)
def test_nothing_to_label_too_much_and_what_is_both_are_refused(
    labels: dict[str, str], removed: list[str], field: str
) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^cannot") as caught:
        fleet_convert.from_labels(fleet_service_pb2.LabelNodeRequest(labels=labels, removed_keys=removed))
    assert caught.value.field == field
