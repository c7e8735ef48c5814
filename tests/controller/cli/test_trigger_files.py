"""Files of triggers: what they may say, and where they say what they may not."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from controller.cli import failures, trigger_files
from controller.core import errors
from instar.v1 import analysis_pb2, rollout_pb2, trigger_pb2

GOOD = """# what the night shift wants
[[triggers]]
name = "hot"
kind = "threshold"
enabled = true

[triggers.when.threshold]
condition = "metrics['host.load'] > 4.0"
pending_for = "5m"
nodes_min = 2

[triggers.action.upgrade]
component = "web"
target_version = "stable"
strategy = "blue-green"
policy.windows = ["sat 00:00+24h"]

[triggers.guards]
windows = ["mon-fri 22:00+4h Europe/Berlin", { opens = "1h", duration = "2h" }]
concurrency = "queue"
approval = { deadline = "1d" }

[[triggers]]
name = "slow"
action.notify.message = "it is slow"
[triggers.when.degradation]
component = "web"
measure = { kind = "Mean", series = "seconds", per = "requests" }
worse_percent = 30

[[triggers]]
name = "by hand"
kind = "MANUAL"
action = { rollback = { component = "web" } }
"""


def write(folder: Path, text: str, name: str = "triggers.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_a_file_holds_several_triggers_with_words_in_any_case_and_times_as_people_write_them(tmp_path: Path) -> None:
    hot, slow, by_hand = (one.trigger for one in trigger_files.read(write(tmp_path, GOOD)))
    assert (hot.name, hot.kind, hot.enabled) == ("hot", trigger_pb2.TRIGGER_KIND_THRESHOLD, True)
    assert hot.threshold.pending_for.ToTimedelta() == timedelta(minutes=5)
    assert hot.upgrade.strategy == rollout_pb2.STRATEGY_BLUE_GREEN
    assert list(hot.upgrade.policy.windows[0].days) == [6]
    assert list(hot.guards.windows[0].days) == [1, 2, 3, 4, 5]
    assert hot.guards.windows[1].duration.ToTimedelta() == timedelta(hours=2)
    assert hot.guards.concurrency == rollout_pb2.CONFLICT_POLICY_QUEUE
    assert hot.guards.approval.deadline.ToTimedelta() == timedelta(days=1)
    assert slow.degradation.measure.kind == analysis_pb2.MEASURE_KIND_MEAN
    assert (slow.notify.message, slow.enabled) == ("it is slow", False)
    assert (by_hand.kind, by_hand.WhichOneof("when")) == (trigger_pb2.TRIGGER_KIND_MANUAL, None)
    assert by_hand.rollback.component == "web"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_is_shown_as_json_can_be_applied_again(tmp_path: Path, number: int) -> None:
    told = trigger_files.read(write(tmp_path, GOOD))[number].trigger
    if told.WhichOneof("when") is None:
        told.by_hand.SetInParent()  # as the controller says it
    shown = trigger_files.shown(told) | {"status": {"firings": 3}}
    [again] = trigger_files.read(write(tmp_path, json.dumps(shown, indent=1), "trigger.json"))
    again.trigger.guards.SetInParent()
    told.guards.SetInParent()
    assert again.trigger == told
    listed = write(tmp_path, json.dumps({"triggers": [shown, shown]}), "triggers.json")
    assert len(trigger_files.read(listed)) == 2


WRONG = """[[triggers]]
name = "hot"
kind = "warm"
colour = "red"
[triggers.when.threshold]
condition = 5
pending_for = "soon"
nodes_min = "two"
[triggers.guards]
windows = [
  "someday",
  { opens = "x" },
]
concurrency = "fight"
cooldown = "1 h"
[triggers.guards.approval]
by_another = "no"

[[triggers]]
name = "other"
when = { threshold = {}, event = {} }
notify = {}
[triggers.action.upgrade]
strategy = "sideways"
canary.nodes = -1
canary.analysis.metrics = [
  { name = "x", measure = { kind = "guess" } },
]
[[triggers]]
when.sunrise = {}
action = "notify"
"""


def test_all_that_is_wrong_is_told_at_once_each_with_line_and_field(tmp_path: Path) -> None:
    file = write(tmp_path, WRONG)
    with pytest.raises(failures.CommandError) as caught:
        trigger_files.read(file)
    head, *lines = str(caught.value).splitlines()
    assert head == f"cannot use {file}:"
    assert caught.value.exit_code is failures.Exit.USAGE
    told = [tuple(line.removeprefix(f"{file}:").split(": ")[:2]) for line in lines]
    assert told == [
        ("3", "kind"),
        ("4", "colour"),
        ("6", "when.threshold.condition"),
        ("7", "when.threshold.pending_for"),
        ("8", "when.threshold.nodes_min"),
        ("11", "guards.windows[0]"),
        ("12", "guards.windows[1].opens"),
        ("14", "guards.concurrency"),
        ("15", "guards.cooldown"),
        ("17", "guards.approval.by_another"),
        ("21", "when"),
        ("22", "notify"),
        ("24", "action.upgrade.strategy"),
        ("25", "action.upgrade.canary.nodes"),
        ("27", "action.upgrade.canary.analysis.metrics[0].measure.kind"),
        ("30", "when"),
        ("31", "action"),
    ]
    assert "one of THRESHOLD, DEGRADATION, SCHEDULE, EVENT, VERSION_AVAILABLE, MANUAL" in lines[0]
    assert lines[11].endswith("must be in the table action")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("t.toml", "triggers = 5", "1: triggers"),
        ("t.json", "[]", "1: trigger"),
        ("t.json", '{"triggers": [\n3]}', "2: trigger"),
    ],
)
def test_what_is_no_trigger_is_none(tmp_path: Path, name: str, text: str, line: str) -> None:
    file = write(tmp_path, text, name)
    with pytest.raises(failures.CommandError) as caught:
        trigger_files.read(file)
    assert f"{file}:{line}: " in str(caught.value)


@pytest.mark.parametrize(("name", "text"), [("t.toml", "name = "), ("t.json", "{"), ("t.toml", "\0")])
def test_what_cannot_be_read_at_all_is_an_error_of_usage(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(failures.CommandError) as caught:
        trigger_files.read(write(tmp_path, text, name))
    assert caught.value.exit_code is failures.Exit.USAGE
    with pytest.raises(failures.CommandError):
        trigger_files.read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("when.threshold.nodes_min", 10),
        ("when.threshold.clear", 7),
        ("guards.windows[1].opens", 19),
        ("guards.windows", 19),
        ("action.component", 12),
        ("name", 3),
        ("description", 2),
        ("", 2),
    ],
)
def test_what_the_controller_refuses_is_shown_where_it_stands(tmp_path: Path, field: str, line: int) -> None:
    file = write(tmp_path, GOOD)
    hot = trigger_files.read(file)[0]
    error = errors.InvalidRequestError("cannot have it", code="x", field=field)
    assert list(hot.sentences([error])) == [f"{file}:{line}: {field}: cannot have it"]
    error = errors.InvalidRequestError(f"cannot have it: {field} '7' must be 8", code="x", field=field)
    told = "'7' must be 8" if field else "cannot have it:  '7' must be 8"
    assert list(hot.sentences([error])) == [f"{file}:{line}: {field}: {told}"]
