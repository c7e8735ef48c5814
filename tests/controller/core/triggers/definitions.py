"""Triggers that nothing is wrong with, one of each kind and one for each action, to be changed by tests."""

from __future__ import annotations

from datetime import timedelta

from controller.core import model
from tests.controller.core import scenario

WEB = model.ComponentName("web")
MEASURE = model.Measure(model.MeasureKind.RATIO, "errors_total", "requests_total")

THRESHOLD = model.Threshold("metrics.cpu > 0.9", clear="metrics.cpu < 0.5", component=WEB, selector="zone=a")
DEGRADATION = model.Degradation(WEB, MEASURE, worse_percent=50, clear_percent=10)
SCHEDULE = model.Schedule("0 2 * * *", "Europe/Berlin")
EVENT = model.EventMatch("build.*", debounce=timedelta(seconds=30))
CHANNEL = model.VersionAvailable(WEB, channel="stable")
RANGE = model.VersionAvailable(WEB, versions=">=1.0.0,<2.0.0")
WHEN: dict[model.TriggerKind, model.When] = {
    model.TriggerKind.THRESHOLD: THRESHOLD,
    model.TriggerKind.DEGRADATION: DEGRADATION,
    model.TriggerKind.SCHEDULE: SCHEDULE,
    model.TriggerKind.EVENT: EVENT,
    model.TriggerKind.VERSION_AVAILABLE: CHANNEL,
    model.TriggerKind.MANUAL: model.ByHand(),
}

NOTIFY = model.Notify("the tide is high")
UPGRADE = model.Upgrade(scenario.request({"selector": "zone=a"}))
ROLLBACK = model.Rollback(WEB, "zone=a")
DOES: dict[model.TriggerActionKind, model.TriggerAction] = {
    model.TriggerActionKind.NOTIFY: NOTIFY,
    model.TriggerActionKind.UPGRADE: UPGRADE,
    model.TriggerActionKind.ROLLBACK: ROLLBACK,
}


def trigger(
    when: model.When = SCHEDULE,
    action: model.TriggerAction = NOTIFY,
    guards: model.Guards | None = None,
    name: str = "tide",
) -> model.Trigger:
    return model.Trigger(
        model.TriggerId("t"), name, when, action, guards or model.Guards(), is_enabled=True, changed_by="ann"
    )
