"""Alerts as an Alertmanager posts them (webhook, version 4): each is one event.

Rules kept here: an alert that is told again is the same event, until it has ended and begun anew; the end of an alert
is an event of its own. Left out: groups, which are only how alerts travel.

Source: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Never

from controller.core import errors, model
from controller.web import cloud_events

FIRING = "firing"
RESOLVED = "resolved"
VERSION = "4"
_KEPT = ("labels", "annotations", "values", "startsAt", "endsAt", "generatorURL")  # of an alert, as data of the event


def read(found: object) -> tuple[model.ReceivedEvent, ...]:
    """The alerts of a notification.

    Raises:
        InvalidRequestError: It is no notification of version 4, or one of its alerts is none.
    """
    if not isinstance(found, Mapping) or found.get("version") != VERSION:
        _refuse("version", str(found.get("version", "")) if isinstance(found, Mapping) else "", VERSION)
    alerts = found.get("alerts")
    if not isinstance(alerts, list):
        _refuse("alerts", "", "a list of alerts")
    source = f"alertmanager/{found.get('receiver') or found.get('externalURL') or ''}"
    return tuple(_event(one, source, f"alerts[{position}]") for position, one in enumerate(alerts))


def _event(found: object, source: str, place: str) -> model.ReceivedEvent:
    if not isinstance(found, Mapping):
        _refuse(place, "", "an object")
    status = _text(found, "status", place)
    if status not in (FIRING, RESOLVED):
        _refuse(f"{place}.status", status, f"{FIRING} or {RESOLVED}")
    begins, fingerprint = _text(found, "startsAt", place), _text(found, "fingerprint", place)
    at = cloud_events.instant(begins, f"{place}.startsAt")
    if status == RESOLVED:
        at = cloud_events.instant(_text(found, "endsAt", place), f"{place}.endsAt")
    labels = found.get("labels")
    if not isinstance(labels, Mapping):
        _refuse(f"{place}.labels", "", "an object")
    return model.ReceivedEvent(
        source=source,
        id=f"{fingerprint}/{begins}/{status}",
        type=f"alertmanager.{status}",
        subject=str(labels.get("alertname", "")),
        at=at,
        data=json.dumps({name: found[name] for name in _KEPT if name in found}),
    )


def _text(found: Mapping[str, object], name: str, place: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        _refuse(f"{place}.{name}", "", "given, as text")
    return value


def _refuse(field: str, value: str, rule: str) -> Never:
    shown = value[:100]
    raise errors.InvalidRequestError(
        f"cannot take the alerts: {field} {shown!r} must be {rule}",
        code="invalid_event",
        field=field,
        value=shown,
        rule=rule,
    )
