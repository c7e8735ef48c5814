from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.core import errors, model
from controller.core.triggers import checks
from tests.controller.core.triggers import definitions

pytestmark = pytest.mark.core

DAY = timedelta(days=1)
REQUEST = definitions.UPGRADE.request
Wrong = tuple[model.When, dict[str, Any], str]


def wrong(trigger: model.Trigger) -> list[tuple[str, str]]:
    found = checks.problems(trigger)
    assert all(str(each).startswith("cannot ") and each.rule for each in found)
    return [(each.field, each.code) for each in found]


@pytest.mark.parametrize("kind", model.TriggerKind)
def test_a_kind_is_read_in_any_case_with_dashes_or_underscores(kind: model.TriggerKind) -> None:
    texts = (kind.value, kind.name.lower(), f" {kind.value.lower().replace('_', '-')} ")
    assert {checks.kind(each) for each in (*texts, kind)} == {kind}


@pytest.mark.parametrize("told", ["", "sometimes", "EVENT,SCHEDULE", 1, None])
def test_what_is_no_kind_is_refused_by_its_field(told: Any) -> None:  # noqa: ANN401 it comes from outside
    with pytest.raises(errors.InvalidRequestError, match="THRESHOLD, DEGRADATION, SCHEDULE") as refused:
        checks.kind(told)
    assert (refused.value.code, refused.value.field, refused.value.value) == ("invalid_trigger", "when.kind", str(told))


@pytest.mark.parametrize("kind", model.TriggerKind)
@pytest.mark.parametrize("does", model.TriggerActionKind)
def test_every_kind_goes_with_every_action(kind: model.TriggerKind, does: model.TriggerActionKind) -> None:
    trigger = definitions.trigger(definitions.WHEN[kind], definitions.DOES[does])
    checks.check(trigger)
    assert (trigger.kind, trigger.does) == (kind, does)


@pytest.mark.parametrize(
    ("action", "component", "selector"),
    [(definitions.NOTIFY, "", ""), (definitions.UPGRADE, "web", "zone=a"), (definitions.ROLLBACK, "web", "zone=a")],
)
def test_a_trigger_changes_what_its_action_says(action: model.TriggerAction, component: str, selector: str) -> None:
    trigger = definitions.trigger(action=action)
    assert (trigger.component, trigger.selector) == (component, selector)


@pytest.mark.parametrize(
    "name", ["", "Tide", "tide table", "-tide", "tide.", "t" * 64, "trigger:tide", "tide\n", "tïde"]
)
def test_a_name_is_one_as_others_are(name: str) -> None:
    assert wrong(definitions.trigger(name=name)) == [("name", "invalid_trigger")]


@pytest.mark.parametrize("name", ["t", "tide-table_2.a", "t" * 63])
def test_names_that_others_have_are_taken(name: str) -> None:
    assert wrong(definitions.trigger(name=name)) == []


WHEN: list[Wrong] = [
    (definitions.THRESHOLD, {"condition": " ", "clear": ""}, "threshold.condition"),
    (definitions.THRESHOLD, {"condition": ""}, "threshold.clear"),
    (definitions.THRESHOLD, {"component": "Web!"}, "threshold.component"),
    (definitions.THRESHOLD, {"pending_for": -timedelta.resolution}, "threshold.pending_for"),
    (definitions.THRESHOLD, {"pending_for": DAY + timedelta.resolution}, "threshold.pending_for"),
    (definitions.THRESHOLD, {"keep_firing_for": -timedelta.resolution}, "threshold.keep_firing_for"),
    (definitions.THRESHOLD, {"keep_firing_for": DAY + timedelta.resolution}, "threshold.keep_firing_for"),
    (definitions.THRESHOLD, {"nodes_min": 0}, "threshold.nodes_min"),
    (definitions.THRESHOLD, {"nodes_min": 1_000_001}, "threshold.nodes_min"),
    (definitions.DEGRADATION, {"component": ""}, "degradation.component"),
    (definitions.DEGRADATION, {"component": "w" * 41}, "degradation.component"),
    (definitions.DEGRADATION, {"worse_percent": 0, "clear_percent": 0}, "degradation.worse_percent"),
    (definitions.DEGRADATION, {"worse_percent": 10_001}, "degradation.worse_percent"),
    (definitions.DEGRADATION, {"worse_percent": 100, "is_below": True}, "degradation.worse_percent"),
    (definitions.DEGRADATION, {"clear_percent": -1}, "degradation.clear_percent"),
    (definitions.DEGRADATION, {"clear_percent": 51}, "degradation.clear_percent"),
    (definitions.DEGRADATION, {"window": timedelta(milliseconds=299)}, "degradation.window"),
    (definitions.DEGRADATION, {"past": timedelta(hours=3, seconds=1)}, "degradation.past"),
    (definitions.DEGRADATION, {"past": timedelta(seconds=19), "window": timedelta(seconds=1)}, "degradation.past"),
    (definitions.DEGRADATION, {"past": timedelta(minutes=19), "window": timedelta(minutes=20)}, "degradation.past"),
    (definitions.DEGRADATION, {"pending_for": DAY + timedelta.resolution}, "degradation.pending_for"),
    (definitions.DEGRADATION, {"keep_firing_for": -timedelta.resolution}, "degradation.keep_firing_for"),
    (definitions.DEGRADATION, {"least_exposure": 0.0}, "degradation.least_exposure"),
    (definitions.DEGRADATION, {"least_exposure": 2e12}, "degradation.least_exposure"),
    (definitions.DEGRADATION, {"least_exposure": float("nan")}, "degradation.least_exposure"),
    (definitions.SCHEDULE, {"cron": "0 2 * *"}, "schedule.cron"),
    (definitions.SCHEDULE, {"cron": "* " * 200}, "schedule.cron"),
    (definitions.SCHEDULE, {"cron": f"{'9' * 5_000} * * * *"}, "schedule.cron"),
    (definitions.SCHEDULE, {"cron": "0 0 30 2 *"}, "schedule.cron"),
    (definitions.SCHEDULE, {"cron": "0 0 */30 2 MON#5"}, "schedule.cron"),
    (definitions.SCHEDULE, {"time_zone": "Mars/Olympus"}, "schedule.time_zone"),
    (definitions.SCHEDULE, {"time_zone": "../etc/passwd"}, "schedule.time_zone"),
    (definitions.SCHEDULE, {"time_zone": "Europe"}, "schedule.time_zone"),
    (definitions.SCHEDULE, {"time_zone": ""}, "schedule.time_zone"),
    (definitions.EVENT, {"type": ""}, "event.type"),
    (definitions.EVENT, {"type": "build done"}, "event.type"),
    (definitions.EVENT, {"type": "build.*.done"}, "event.type"),
    (definitions.EVENT, {"type": "b" * 201}, "event.type"),
    (definitions.EVENT, {"debounce": -timedelta.resolution}, "event.debounce"),
    (definitions.EVENT, {"debounce": DAY + timedelta.resolution}, "event.debounce"),
    (definitions.CHANNEL, {"component": ""}, "version_available.component"),
    (definitions.CHANNEL, {"channel": "Stable!"}, "version_available.channel"),
    (definitions.CHANNEL, {"channel": ""}, "version_available.channel"),
    (definitions.CHANNEL, {"versions": "*"}, "version_available.versions"),
]


@pytest.mark.parametrize(("when", "changes", "field"), WHEN)
def test_each_part_of_when_it_fires_has_its_bounds(when: model.When, changes: dict[str, Any], field: str) -> None:
    assert wrong(definitions.trigger(replace(when, **changes))) == [(f"when.{field}", "invalid_trigger")]


@pytest.mark.parametrize(
    ("measure", "fields"),
    [
        (replace(definitions.MEASURE, series=""), ["series"]),
        (replace(definitions.MEASURE, series="s" * 201), ["series"]),
        (replace(definitions.MEASURE, per=""), ["per"]),
        (replace(definitions.MEASURE, per="two\nlines"), ["per"]),
        (replace(definitions.MEASURE, query="up", per_query="up"), ["query", "per_query"]),
        (model.Measure(model.MeasureKind.RATE, "errors_total", "requests_total"), ["per"]),
        (model.Measure(model.MeasureKind.QUANTILE, "seconds", quantile_percent=100), ["quantile_percent"]),
        (model.Measure(model.MeasureKind.QUANTILE, "seconds", quantile_percent=0), ["quantile_percent"]),
        (model.Measure(model.MeasureKind.QUANTILE, "seconds"), []),
        (model.Measure(model.MeasureKind.LEVEL, "queue"), []),
    ],
)
def test_a_measure_has_the_series_of_its_kind(measure: model.Measure, fields: list[str]) -> None:
    trigger = definitions.trigger(replace(definitions.DEGRADATION, measure=measure))
    assert wrong(trigger) == [(f"when.degradation.measure.{each}", "invalid_trigger") for each in fields]


@pytest.mark.parametrize("when", [definitions.RANGE, replace(definitions.RANGE, versions="*", prereleases=True)])
def test_a_range_of_versions_is_taken(when: model.VersionAvailable) -> None:
    assert wrong(definitions.trigger(when)) == []


def test_a_range_that_is_none_is_refused_as_elsewhere() -> None:
    when = replace(definitions.RANGE, versions="~1.0")
    assert wrong(definitions.trigger(when)) == [("when.version_available.versions", "invalid_comparators")]


def test_selectors_are_refused_as_elsewhere() -> None:
    code = "invalid_selector"
    of_nodes = definitions.trigger(replace(definitions.THRESHOLD, selector="a b"))
    assert wrong(of_nodes) == [("when.threshold.selector", code)]
    of_upgrade = definitions.trigger(action=model.Upgrade(replace(REQUEST, selector="a b")))
    assert wrong(of_upgrade) == [("action.upgrade.selector", code)]
    of_rollback = definitions.trigger(action=replace(definitions.ROLLBACK, selector="a b"))
    assert wrong(of_rollback) == [("action.rollback.selector", code)]


@pytest.mark.parametrize(
    ("action", "field", "code"),
    [
        (model.Notify("m" * 1_001), "notify.message", "invalid_trigger"),
        (model.Rollback(model.ComponentName("")), "rollback.component", "invalid_trigger"),
        (model.Upgrade(replace(REQUEST, component=model.ComponentName(""))), "upgrade.component", "invalid_trigger"),
        (model.Upgrade(replace(REQUEST, priority=2_000_000)), "upgrade.priority", "invalid_priority"),
        (
            model.Upgrade(replace(REQUEST, policy=model.Policy(max_failures=-1))),
            "upgrade.policy.max_failures",
            "invalid_policy",
        ),
        (model.Upgrade(replace(REQUEST, target_version="")), "upgrade.target_version", "invalid_trigger"),
    ],
)
def test_each_part_of_what_it_does_has_its_bounds(action: model.TriggerAction, field: str, code: str) -> None:
    assert wrong(definitions.trigger(action=action)) == [(f"action.{field}", code)]


def test_only_a_trigger_that_finds_versions_of_the_component_needs_no_target() -> None:
    action = model.Upgrade(replace(REQUEST, target_version=""))
    of_other = replace(definitions.CHANNEL, component=model.ComponentName("api"))
    assert wrong(definitions.trigger(definitions.CHANNEL, action)) == []
    assert wrong(definitions.trigger(of_other, action)) == [("action.upgrade.target_version", "invalid_trigger")]
    restart = model.Upgrade(replace(REQUEST, target_version="", kind=model.ChangeKind.RESTART))
    assert wrong(definitions.trigger(definitions.SCHEDULE, restart)) == []


@pytest.mark.parametrize(
    ("guards", "field"),
    [
        (model.Guards(cooldown=-timedelta.resolution), "cooldown"),
        (model.Guards(cooldown=timedelta(days=366)), "cooldown"),
        (model.Guards(firings_per_hour_max=0), "firings_per_hour_max"),
        (model.Guards(firings_per_hour_max=1_001), "firings_per_hour_max"),
        (model.Guards(held_max=timedelta(0)), "held_max"),
        (model.Guards(held_max=timedelta(days=366)), "held_max"),
        (model.Guards(approval=model.ApprovalGuard(timedelta(0))), "approval.deadline"),
        (model.Guards(approval=model.ApprovalGuard(timedelta(days=366))), "approval.deadline"),
        (model.Guards(windows=(model.Window(DAY, DAY),)), "windows[0].opens"),
        (model.Guards(windows=(model.Window(timedelta(), DAY, time_zone="Mars"),)), "windows[0].time_zone"),
    ],
)
def test_each_guard_has_its_bounds(guards: model.Guards, field: str) -> None:
    assert wrong(definitions.trigger(guards=guards)) == [(f"guards.{field}", "invalid_trigger")]


def test_the_widest_guards_are_taken() -> None:
    year = timedelta(days=365)
    widest = model.Guards(
        (model.Window(timedelta(), timedelta(days=7)),), year, 1_000, approval=model.ApprovalGuard(year), held_max=year
    )
    narrowest = model.Guards(
        (), timedelta(0), 1, approval=model.ApprovalGuard(timedelta(seconds=1)), held_max=timedelta(seconds=1)
    )
    assert [wrong(definitions.trigger(guards=each)) for each in (widest, narrowest)] == [[], []]


def test_all_that_is_wrong_is_said_at_once_and_the_first_stands_for_it() -> None:
    trigger = replace(
        definitions.trigger(replace(definitions.THRESHOLD, nodes_min=0), name="Tide"), description="d" * 1_001
    )
    with pytest.raises(errors.InvalidFieldsError, match="cannot accept trigger 'Tide': 3 fields are wrong") as refused:
        checks.check(trigger)
    assert [each.field for each in refused.value.problems] == ["name", "description", "when.threshold.nodes_min"]
    first = refused.value.problems[0]
    found = refused.value
    assert (found.code, found.field, found.value, found.rule) == (first.code, "name", "Tide", first.rule)
    assert found.blame is errors.Blame.CALLER


def test_a_condition_over_the_metrics_of_the_host_alone_needs_no_component() -> None:
    assert wrong(definitions.trigger(replace(definitions.THRESHOLD, component=model.ComponentName("")))) == []


def test_one_thing_that_is_wrong_is_one() -> None:
    with pytest.raises(errors.InvalidFieldsError, match="one field is wrong"):
        checks.check(definitions.trigger(name="Tide"))
