"""Messages as documents, and times as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.protobuf import duration_pb2, timestamp_pb2

from controller.cli import document, failures, spans
from instar.v1 import node_pb2, operation_pb2, rollout_pb2


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
    ],
)
def test_a_time_has_a_number_and_a_unit(text: str, meant: timedelta) -> None:
    assert spans.parse("--timeout", text) == meant


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "5 s", "5d", "\u0665s", "1e3s"])
def test_what_is_no_time_is_refused_by_the_name_of_the_option(text: str) -> None:
    with pytest.raises(failures.CommandError, match="--timeout") as caught:
        spans.parse("--timeout", text)
    assert caught.value.exit_code is failures.Exit.USAGE
