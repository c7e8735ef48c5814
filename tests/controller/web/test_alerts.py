"""Alerts as an Alertmanager posts them, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.core import model
from tests.controller.web import house

FIRING = {
    "status": "firing",
    "labels": {"alertname": "HighErrors", "instance": "web-1"},
    "annotations": {"summary": "it fails"},
    "startsAt": "2026-03-01T12:00:00.000Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus/graph",
    "fingerprint": "a1",
}
RESOLVED = FIRING | {"status": "resolved", "endsAt": "2026-03-01T12:20:00Z"}
OLD = FIRING | {"startsAt": "2026-02-27T12:00:00Z", "fingerprint": "b2"}
NOTIFICATION: dict[str, Any] = {
    "version": "4",
    "groupKey": "{}",
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "instar",
    "groupLabels": {},
    "commonLabels": {},
    "commonAnnotations": {},
    "externalURL": "http://alertmanager",
    "alerts": [FIRING, RESOLVED],
}


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[house.Door]:
    async with house.standing(tmp_path) as found:
        yield found


async def test_each_alert_is_an_event_of_its_own(door: house.Door) -> None:
    answer = await door.alerts(NOTIFICATION)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 2)
    begins, ends = door.engine.received
    assert begins == model.ReceivedEvent(
        source="alertmanager/instar",
        id="a1/2026-03-01T12:00:00.000Z/firing",
        type="alertmanager.firing",
        subject="HighErrors",
        at=datetime(2026, 3, 1, 12, tzinfo=UTC),
        data=begins.data,
    )
    assert json.loads(begins.data) == {key: FIRING[key] for key in FIRING if key not in ("status", "fingerprint")}
    assert (ends.id, ends.type) == ("a1/2026-03-01T12:00:00.000Z/resolved", "alertmanager.resolved")
    assert ends.at == datetime(2026, 3, 1, 12, 20, tzinfo=UTC)
    assert door.engine.batches == [(2, "web:alertmanager")]


async def test_an_alertmanager_without_a_receiver_is_told_apart_by_its_address(door: house.Door) -> None:
    assert (await door.alerts(NOTIFICATION | {"receiver": ""})).status_code == 200
    assert {one.source for one in door.engine.received} == {"alertmanager/http://alertmanager"}


async def test_an_alert_that_has_fired_for_long_does_not_keep_others_out(door: house.Door) -> None:
    answer = await door.alerts(NOTIFICATION | {"alerts": [OLD, FIRING]})
    assert (answer.json()["accepted"], answer.json()["stale"]) == (1, 1)
    assert [one.id for one in door.engine.received] == ["a1/2026-03-01T12:00:00.000Z/firing"]
    answer = await door.alerts(NOTIFICATION | {"alerts": [OLD]})
    assert (answer.status_code, answer.json()["stale"]) == (200, 1)


async def test_as_many_alerts_as_a_body_holds_are_taken(door: house.Door) -> None:
    small = {"status": "firing", "labels": {}, "startsAt": FIRING["startsAt"]}
    many = [small | {"fingerprint": str(number)} for number in range(2500)]
    assert (await door.alerts(NOTIFICATION | {"alerts": many})).json()["accepted"] == 2500
    assert [count for count, _ in door.engine.batches] == [1000, 1000, 500]


@pytest.mark.parametrize("token", ["", "another token of some length", "\u00e9", house.TOKEN + "x"])
async def test_who_does_not_know_the_token_is_not_let_in(door: house.Door, token: str) -> None:
    body = json.dumps(NOTIFICATION).encode()
    headers = {"authorization": f"Bearer {token}".strip().encode("latin-1")}
    answer = await door.post("/v1/alertmanager", body, headers)  # type: ignore[arg-type]  # httpx takes bytes as well
    assert (answer.status_code, answer.json()["code"]) == (401, "token_wrong")
    assert answer.headers["www-authenticate"] == "Bearer"
    answer = await door.post("/v1/alertmanager", body, {"authorization": f"Basic {house.TOKEN}"})
    assert answer.status_code == 401
    assert (await door.post("/v1/alertmanager", body)).status_code == 401
    assert door.engine.received == []


async def test_the_secret_of_events_is_no_token(door: house.Door) -> None:
    assert (await door.alerts(NOTIFICATION, house.SECRET.decode())).status_code == 401


@pytest.mark.parametrize(
    ("found", "field"),
    [
        ([], "version"),
        (NOTIFICATION | {"version": "3"}, "version"),
        (NOTIFICATION | {"alerts": {}}, "alerts"),
        (NOTIFICATION | {"alerts": [7]}, "alerts[0]"),
        (NOTIFICATION | {"alerts": [FIRING, FIRING | {"status": "silenced"}]}, "alerts[1].status"),
        (NOTIFICATION | {"alerts": [FIRING | {"status": None}]}, "alerts[0].status"),
        (NOTIFICATION | {"alerts": [FIRING | {"startsAt": "soon"}]}, "alerts[0].startsAt"),
        (NOTIFICATION | {"alerts": [RESOLVED | {"endsAt": 7}]}, "alerts[0].endsAt"),
        (NOTIFICATION | {"alerts": [FIRING | {"fingerprint": ""}]}, "alerts[0].fingerprint"),
        (NOTIFICATION | {"alerts": [FIRING | {"labels": "x"}]}, "alerts[0].labels"),
    ],
)
async def test_what_is_no_notification_is_refused_by_its_field(door: house.Door, found: object, field: str) -> None:
    answer = await door.alerts(found)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, "invalid_event", field)
    assert door.engine.received == []
    assert [asked.actor for asked, _ in door.engine.kept] == ["web:alertmanager"]


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000])
async def test_what_is_no_json_is_refused(door: house.Door, body: bytes) -> None:
    answer = await door.alerts(body)
    assert (answer.status_code, answer.json()["code"]) == (400, "body_invalid")
