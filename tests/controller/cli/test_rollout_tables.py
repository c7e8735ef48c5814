"""What becomes of the changes of a rollout, in words."""

from __future__ import annotations

import json

import pytest
from google.protobuf import timestamp_pb2

from controller.cli import tables, watching
from instar.v1 import operation_pb2, rollout_pb2, rollout_service_pb2
from tests.controller.cli import scripted

_Change = rollout_pb2.ChangeProgress
PERMANENT, UNKNOWN = operation_pb2.OPERATION_STATE_PERMANENT, operation_pb2.OPERATION_STATE_UNKNOWN
ROLLOUT = rollout_pb2.Rollout(
    rollout_id="r-1",
    name="spring",
    state=rollout_pb2.ROLLOUT_STATE_STUCK,
    plan=rollout_pb2.Plan(waves=[rollout_pb2.Wave(index=1)]),
    wave=1,
    changes=[
        _Change(change=rollout_pb2.Change(node_id="n-1"), wave=1, state=PERMANENT),
        _Change(change=rollout_pb2.Change(node_id="n-2"), wave=1, skipped=True, reason="node_offline"),
        _Change(change=rollout_pb2.Change(node_id="n-3"), wave=1, state=PERMANENT, left=True, reason="no_way_back"),
    ],
)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (_Change(), "waiting"),
        (_Change(skipped=True, reason="node_offline"), "skipped (node_offline)"),
        (_Change(skipped=True, state=UNKNOWN, reason="node_offline"), "skipped UNKNOWN (node_offline)"),
        (_Change(left=True, state=PERMANENT, reason="no_way_back"), "left PERMANENT (no_way_back)"),
        (_Change(reverting=True, state=PERMANENT), "reverting PERMANENT"),
        (
            _Change(state=operation_pb2.OPERATION_STATE_RUNNING, step=operation_pb2.STEP_SOAK, reverting=True),
            "reverting RUNNING SOAK",
        ),
    ],
)
def test_a_change_that_was_dropped_or_left_says_so(told: rollout_pb2.ChangeProgress, words: str) -> None:
    assert tables.where(told) == words


def test_changes_that_were_dropped_or_left_are_shown_and_counted_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted.controller(rollouts_GetRollout=rollout_service_pb2.GetRolloutResponse(rollout=ROLLOUT)):
        assert scripted.instar("rollout", "show", "spring") == 0
        told = capsys.readouterr().out
        assert "spring (r-1) STUCK, 1 of 3 done, 1 skipped, 1 left" in told
        assert "skipped (node_offline)" in told
        assert "left PERMANENT (no_way_back)" in told
        assert scripted.instar("rollout", "show", "spring", "-o", "json") == 0
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert [(one["skipped"], one["left"]) for one in changes] == [(False, False), (True, False), (False, True)]


def test_who_watches_hears_of_a_change_that_is_dropped_once(capsys: pytest.CaptureFixture[str]) -> None:
    with watching._progress() as progress:
        for _ in range(2):
            progress(ROLLOUT)
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "n-2" in line] == ["[1/3] n-2 skipped (node_offline)"]


def test_a_rollout_that_waits_for_the_clock_says_until_when(capsys: pytest.CaptureFixture[str]) -> None:
    told = rollout_pb2.Rollout(name="spring", waiting_for="wave 1 bakes", next_time=timestamp_pb2.Timestamp(seconds=60))
    for rollout, is_told in ((told, True), (ROLLOUT, False)):
        with scripted.controller(rollouts_GetRollout=rollout_service_pb2.GetRolloutResponse(rollout=rollout)):
            assert scripted.instar("rollout", "show", "spring") == 0
        line = "the first of what it waits for by the clock is over at 1970-01-01 00:01:00"
        assert (line in capsys.readouterr().out) is is_told
