"""Messages as documents, and times as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import duration_pb2, message, timestamp_pb2

from controller.cli import document, failures, spans
from instar.v1 import fleet_service_pb2, node_pb2, operation_pb2, release_pb2, rollout_pb2


def test_a_document_names_every_field_in_snake_case_with_null_for_what_is_not_set() -> None:
    shown = document.of(
        node_pb2.ComponentStatus(
            name="web",
            health=node_pb2.HEALTH_HEALTHY,
            healthy_for=duration_pb2.Duration(seconds=2, nanos=500_000_000),
            instances=[node_pb2.Instance(instance_id="web.1", served=1 << 60)],
        )
    )
    assert shown == {
        "name": "web",
        "version": "",
        "digest": "",
        "permanent_digest": "",
        "health": "HEALTHY",
        "healthy_for": "2.500s",
        "instances": [
            {"instance_id": "web.1", "digest": "", "pid": 0, "state": None, "served": 1 << 60, "restarts": 0}
        ],
        "removed": False,
        "stopped": False,
    }


def test_times_maps_and_absent_parameters_are_written_as_proto_json_writes_them() -> None:
    node = document.of(node_pb2.Node(labels={"zone": "a"}, last_seen_time=timestamp_pb2.Timestamp(seconds=1)))
    assert (node["labels"], node["last_seen_time"]) == ({"zone": "a"}, "1970-01-01T00:00:01Z")
    request = document.of(rollout_pb2.UpgradeRequest(strategy=rollout_pb2.STRATEGY_IMMEDIATE))
    assert (request["strategy"], request["canary"], request["policy"]) == ("IMMEDIATE", None, None)


def test_a_value_that_a_newer_controller_knows_is_shown_as_its_number() -> None:
    assert document.enum_name(77, operation_pb2.Step.DESCRIPTOR) == "77"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("2.5s", timedelta(seconds=2.5)),
        ("5m", timedelta(minutes=5)),
        ("1.5h", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
    ],
)
def test_a_time_has_a_number_and_a_unit(text: str, meant: timedelta) -> None:
    assert spans.parse("--timeout", text) == meant


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "5 s", "5w", "\u0665s", "1e3s"])
def test_what_is_no_time_is_refused_by_the_name_of_the_option(text: str) -> None:
    with pytest.raises(failures.CommandError, match="--timeout") as caught:
        spans.parse("--timeout", text)
    assert caught.value.exit_code is failures.Exit.USAGE


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(), "0s"),
        (timedelta(milliseconds=250), "250ms"),
        (timedelta(seconds=90), "1m 30s"),
        (timedelta(hours=49, seconds=1), "49h 1s"),
        (timedelta(hours=1, minutes=2, seconds=3), "1h 2m"),
    ],
)
def test_a_time_is_shown_in_at_most_two_units(span: timedelta, text: str) -> None:
    assert spans.shown(span) == text


def test_an_instant_says_its_zone() -> None:
    assert spans.instant("--until", "2026-12-24T18:00+01:00") == datetime(2026, 12, 24, 17, tzinfo=UTC)
    assert spans.instant("--until", "2026-12-24T17:00Z") == datetime(2026, 12, 24, 17, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-12-24", "2026-12-24T18:00"])
def test_an_instant_without_a_zone_is_refused_by_the_name_of_the_option(text: str) -> None:
    with pytest.raises(failures.CommandError, match="--until") as caught:
        spans.instant("--until", text)
    assert caught.value.exit_code is failures.Exit.USAGE


NOW = timestamp_pb2.Timestamp(seconds=1_800_000_000, nanos=250_000_000)
REQUEST = rollout_pb2.UpgradeRequest(
    component="web",
    strategy=rollout_pb2.STRATEGY_GRADUAL,
    gradual=rollout_pb2.GradualParameters(percents=[5, 100]),
    policy=rollout_pb2.Policy(
        max_infrastructure_failures=0,
        soak_duration=duration_pb2.Duration(seconds=1, nanos=500_000_000),
        windows=[rollout_pb2.Window(days=[1, 2], opens=duration_pb2.Duration(seconds=60))],
        offline=rollout_pb2.OFFLINE_POLICY_SKIP,
    ),
    also=[rollout_pb2.Target(component="db", version="2.0.0")],
    priority=-1,
    install=True,
)


@pytest.mark.parametrize(
    "told",
    [
        REQUEST,
        rollout_pb2.Plan(fingerprint="f", facts={"a": "b"}, unchanged_nodes=["n-1"]),
        fleet_service_pb2.Freeze(start_time=NOW, emergency=True),
        rollout_pb2.UpgradeRequest(canary=rollout_pb2.CanaryParameters()),
        release_pb2.Edge(methods=[operation_pb2.METHOD_RESTART, operation_pb2.METHOD_HOT_SWAP], cost=3),
        node_pb2.Metric(value=0.5),
    ],
)
def test_a_message_is_read_back_from_its_document(told: message.Message) -> None:
    found = type(told)()
    document.read(document.of(told), found, "it")
    assert found == told


def test_a_document_may_leave_out_what_it_likes_and_says_times_as_people_do() -> None:
    graph = release_pb2.VersionGraph()
    document.read({"component": "web", "barriers": [{"version": "1.4.0", "bake_duration": "1.5h"}]}, graph, "graph")
    assert graph.barriers[0].bake_duration.seconds == 5400


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ([], "graph"),
        ({"colour": "red"}, "graph"),
        ({"component": 7}, "graph.component"),
        ({"edges": {}}, "graph.edges"),
        ({"edges": [7]}, "graph.edges"),
        ({"edges": [{"to": "1.0.0"}]}, "graph.edges"),
        ({"edges": [{"methods": ["SIDEWAYS"]}]}, "graph.edges.methods"),
        ({"edges": [{"cost": -1}]}, "graph.edges.cost"),
        ({"edges": [{"cost": "much"}]}, "graph.edges.cost"),
        ({"edges": [{"no_return": "perhaps"}]}, "graph.edges.no_return"),
        ({"barriers": [{"bake_duration": 7}]}, "graph.barriers.bake_duration"),
        ({"channels": [{"change_time": "yesterday"}]}, "graph.channels.change_time"),
    ],
)
def test_a_document_that_means_nothing_is_refused_by_its_dotted_name(written: object, place: str) -> None:
    with pytest.raises(failures.CommandError, match=f"^cannot use {place} ") as caught:
        document.read(written, release_pb2.VersionGraph(), "graph")
    assert caught.value.exit_code is failures.Exit.USAGE


def test_facts_that_are_no_texts_are_refused() -> None:
    with pytest.raises(failures.CommandError, match=r"^cannot use plan.facts "):
        document.read({"facts": {"policy": 7}}, rollout_pb2.Plan(), "plan")
    with pytest.raises(failures.CommandError, match=r"^cannot use plan.facts "):
        document.read({"facts": "policy"}, rollout_pb2.Plan(), "plan")
