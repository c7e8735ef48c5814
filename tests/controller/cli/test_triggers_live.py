"""Triggers from the command line and over HTTP: a real controller, the real program, agents that do as told."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from controller.core import secret
from controller.web import secrets
from tests import documents
from tests.controller.cli import house

SECRET = b"correct horse battery staple"
TOKEN = "a token that an Alertmanager shows"  # noqa: S105  # of the test
QUICK = 'policy = { soak_duration = "0s", min_healthy_duration = "100ms" }'
TRIGGERS = f"""[[triggers]]
name = "night"
kind = "manual"
enabled = true
[triggers.action.upgrade]
component = "web"
target_version = "1.0.0"
strategy = "immediate"
install = true
{QUICK}
[triggers.guards]
cooldown = "0s"
approval = {{ deadline = "1h" }}

[[triggers]]
name = "built"
enabled = true
when.event = {{ type = "build.*", filter = "event.data.component == 'web'" }}
action.notify.message = "there is a build"
guards.cooldown = "0s"

[[triggers]]
name = "alarm"
enabled = true
when.event = {{ type = "alertmanager.firing", filter = "event.data.labels.severity == 'page'" }}
action.notify = {{}}
"""


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[house.House]:
    found = house.House(tmp_path)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "token").write_text(TOKEN)
    file = tmp_path / "controller.toml"
    file.write_text(
        f'[web]\nlisten = "127.0.0.1:0"\nevents_secret_file = "{tmp_path / "secret"}"\n'
        f'alertmanager_token_file = "{tmp_path / "token"}"\n'
    )
    async with found.serving("127.0.0.1:0", "--config", str(file)):
        yield found


async def apply(home: house.House, text: str = TRIGGERS) -> house.Outcome:
    file = home.folder / "triggers.toml"
    file.write_text(text)
    return await home.instar("trigger", "apply", "-f", file, "-o", "json")


async def firings(home: house.House, trigger: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = (await home.instar("trigger", "firings", trigger, "-o", "json")).document[
        "firings"
    ]
    return found


async def test_a_trigger_acts_once_somebody_else_has_approved_it(home: house.House) -> None:
    await home.publish("1.0.0")
    async with home.nodes("n-1"):
        applied = await apply(home)
        assert applied.code == 0, applied
        assert [one["changed_by"] for one in applied.document["triggers"]] == ["operator"] * 3
        fired = await home.instar("trigger", "fire", "night", "--reason", "now", "--request-id", "a", "-o", "json")
        assert fired.document["state"] == "APPROVAL_AWAITED", fired
        firing = fired.document["firing_id"]
        again = await home.instar("trigger", "fire", "night", "--reason", "now", "--request-id", "a", "-o", "json")
        assert again.document["firing_id"] == firing
        assert "approve" in (await home.instar("trigger", "explain", "night")).out
        own = await home.instar("trigger", "approve", firing)
        assert (own.code, "operator asked for it" in own.err) == (8, True), own
        other = home.folder / "other.token"
        await home.instar("controller", "token", "bob", "--out", other)
        approved = await home.instar("trigger", "approve", firing, "--token-file", other, "-o", "json")
        assert approved.code == 0, approved
        async with asyncio.timeout(house.DEADLINE_SECONDS):
            while (found := (await firings(home, "night"))[0])["state"] != "SUCCEEDED":
                assert found["state"] in ("ACTING", "RUNNING"), found
        shown = await home.instar("rollout", "show", str(found["rollout_id"]), "-o", "json")
        assert (shown.document["state"], shown.document["actor"]) == ("SUCCEEDED", "trigger:night")
        late = await home.instar("trigger", "deny", firing, "--token-file", other)
        assert late.code == 8
        assert "night" in (await home.instar("trigger", "list")).out
        view = await home.instar("trigger", "show", "night", "-o", "json")
        (home.folder / "again.json").write_text(view.out)
        same = await home.instar("trigger", "apply", "-f", home.folder / "again.json", "-o", "json")
        assert same.document["triggers"][0]["revision"] == 1, same


async def test_a_trigger_that_is_off_is_not_fired_and_one_that_is_gone_is_not_found(home: house.House) -> None:
    assert (await apply(home)).code == 0
    off = await home.instar("trigger", "disable", "night", "--reason", "lunch", "-o", "json")
    assert off.document["enabled"] is False
    refused = await home.instar("trigger", "fire", "night", "--reason", "now")
    assert (refused.code, "night" in refused.err) == (8, True)
    on = await home.instar("trigger", "enable", "night", "--reason", "back", "-o", "json")
    assert (on.document["enabled"], on.document["revision"]) == (True, 3)
    assert (await home.instar("trigger", "remove", "night", "--reason", "old")).code == 0
    for command in (
        ("show", "night"),
        ("explain", "night"),
        ("fire", "night", "--reason", "x"),
        ("enable", "night", "--reason", "x"),
        ("remove", "night", "--reason", "x"),
        ("approve", "t-none.1"),
        ("deny", "nonsense"),
    ):
        gone = await home.instar("trigger", *command)
        assert gone.code == 8, command
        assert gone.err.startswith("cannot "), gone


async def test_a_file_is_rehearsed_on_what_was_recorded(home: house.House) -> None:
    file = home.folder / "nightly.toml"
    nightly = '[[triggers]]\nname = "nightly"\nwhen.schedule.cron = "0 3 * * *"\naction.notify = {}\n'
    file.write_text(nightly)
    found = await home.instar("trigger", "test", file, "--since", "3d", "-o", "json")
    assert found.code == 0, found
    [told] = found.document["triggers"]
    assert (told["name"], told["rehearsal"]["acted"]) == ("nightly", 3)
    assert {one["state"] for one in told["rehearsal"]["firings"]} == {"SUCCEEDED"}
    shown = await home.instar("trigger", "test", file, "--since", "3d")
    assert "nightly would have fired 3 times" in shown.out
    assert (await home.instar("trigger", "list", "-o", "json")).document == {"triggers": []}
    file.write_text(nightly.replace("0 3", "0 99"))
    wrong = await home.instar("trigger", "test", file)
    assert (wrong.code, f"{file}:3: when.schedule.cron: " in wrong.err) == (8, True), wrong
    assert (await home.instar("trigger", "test", file, "--since", "99d")).code == 8


async def test_what_the_controller_refuses_is_told_by_line_and_field(home: house.House) -> None:
    bad = TRIGGERS.replace('"build.*"', '"build *"').replace("data.labels.severity ==", "data.labels.severity =")
    bad = bad.replace(
        'cooldown = "0s"\napproval = { deadline = "1h" }', 'cooldown = "0s"\napproval = { deadline = "0s" }'
    )
    bad = bad.replace('target_version = "1.0.0"\n', "")
    found = await apply(home, bad)
    assert found.code == 8, found
    assert found.document == {"triggers": []}
    places = re.findall(r"triggers\.toml:(\d+): ([a-z._]+): ", found.err)
    lines = bad.splitlines()
    assert [(lines[int(line) - 1].split(" =")[0].split(".")[-1].strip("[]"), field) for line, field in places] == [
        ("upgrade", "action.upgrade.target_version"),
        ("approval", "guards.approval.deadline"),
        ("event", "when.event.type"),
        ("event", "when.event.filter"),
    ]


async def test_a_controller_that_cannot_listen_for_http_or_read_its_secret_does_not_start(home: house.House) -> None:
    address = web_address(home)
    other = home.folder / "other.toml"
    for text, code, word in (
        (f'[web]\nlisten = "{address}"\n', 8, f"cannot listen on {address}"),
        ('[web]\nlisten = "127.0.0.1:0"\nevents_secret_file = "/nowhere"\n', 2, "web.events_secret_file"),
        ('[web]\nlisten = "0.0.0.0:7480"\n', 2, "web.listen"),
    ):
        other.write_text(text)
        arguments = ("--listen", "127.0.0.1:0", "--state-dir", home.folder / "other", "--config", other)
        found = await home.instar("controller", "serve", *arguments)
        assert (found.code, found.out) == (code, ""), found
        assert word in found.err.splitlines()[-1], found


async def test_each_example_of_the_documentation_is_applied(home: house.House) -> None:
    for file in sorted((documents.DOCS / "examples" / "triggers").glob("*.toml")):
        found = await home.instar("trigger", "apply", "-f", file, "-o", "json")
        assert found.code == 0, found
        for trigger in found.document["triggers"]:
            assert (await home.instar("trigger", "explain", trigger["name"])).code == 0
    listed = await home.instar("trigger", "list", "-o", "json")
    assert len(listed.document["triggers"]) == 7


async def test_events_fire_triggers_once_whichever_way_they_come(home: house.House) -> None:
    assert (await apply(home)).code == 0
    send = ("event", "send", "--source", "ci", "--type", "build.finished")
    sent = await home.instar(*send, "--id", "7", "--data", '{"component": "web"}', "-o", "json")
    assert (sent.code, sent.document["accepted"], len(sent.document["firing_ids"])) == (0, 1, 1), sent
    again = await home.instar(*send, "--id", "7", "--data", '{"component": "web"}', "-o", "json")
    assert (again.document["duplicates"], again.document["firing_ids"]) == (1, [])
    other = await home.instar(*send, "--id", "8", "--data", '{"component": "db"}', "-o", "json")
    assert (other.document["accepted"], other.document["firing_ids"]) == (1, [])
    assert (await home.instar(*send, "--id", "", "--data", "{}")).code == 8
    assert (await home.instar(*send, "--data", "[]")).code == 8
    old = await home.instar(*send, "--time", "2020-01-01T00:00Z")
    assert (old.code, "time" in old.err) == (8, True)

    event = {"specversion": "1.0", "source": "ci", "id": "7", "type": "build.x", "data": {"component": "web"}}
    assert (await post(home, "/v1/events", event))["duplicates"] == 1
    assert len((await post(home, "/v1/events", event | {"id": "9"}))["firings"]) == 1
    late = await refused(home, event | {"id": "10", "time": "2020-01-01T00:00:00Z"})
    assert (late["code"], late["field"]) == ("event_too_old", "events[0].time")
    many = await refused(home, [event | {"id": f"m{number}"} for number in range(1001)])
    assert (many["code"], many["field"]) == ("invalid_event", "events")
    labels = {"alertname": "Down", "severity": "page"}
    now = datetime.now(UTC).isoformat()  # noqa: TID251  # the controller has the same clock
    alert = {"status": "firing", "labels": labels, "startsAt": now, "fingerprint": "f", "annotations": {}}
    notification = {"version": "4", "receiver": "instar", "alerts": [alert]}
    assert len((await post(home, "/v1/alertmanager", notification))["firings"]) == 1
    assert (await post(home, "/v1/alertmanager", notification))["duplicates"] == 1
    for trigger, count in (("built", 2), ("alarm", 1)):
        found = await firings(home, trigger)
        assert [one["state"] for one in found] == ["SUCCEEDED"] * count


async def post(home: house.House, path: str, found: object) -> dict[str, Any]:
    """Post as a sender that may; what was taken."""
    answer = await posted(home, path, found)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def refused(home: house.House, found: object) -> dict[str, Any]:
    """Post events that the engine must refuse; why."""
    answer = await posted(home, "/v1/events", found)
    assert answer.status_code == 400, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def posted(home: house.House, path: str, found: object) -> httpx.Response:
    body = json.dumps(found).encode()
    timestamp = str(int(datetime.now(UTC).timestamp()))  # noqa: TID251  # as above
    headers = {
        "content-type": "application/cloudevents-batch+json"
        if isinstance(found, list)
        else "application/cloudevents+json",
        "authorization": f"Bearer {TOKEN}",
        secrets.TIMESTAMP: timestamp,
        secrets.SIGNATURE: secrets.sign(secret.Secret(SECRET), timestamp, {}, body),
    }
    async with httpx.AsyncClient(trust_env=False, timeout=house.DEADLINE_SECONDS) as client:
        return await client.post(f"http://{web_address(home)}{path}", content=body, headers=headers)


def web_address(home: house.House) -> str:
    """Where the controller says that it listens for HTTP."""
    [found] = re.findall(r"listening on http://([0-9.:]+)", (home.folder / "controller.log").read_text())
    return str(found)
