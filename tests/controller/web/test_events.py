"""Events over real HTTP: each way that CloudEvents has, what a signature covers, and everything that is refused."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from controller.core import errors, model, secret
from controller.web import bodies, connections, secrets
from tests.controller.web import house

BUILT = {
    "specversion": "1.0",
    "source": "https://ci.example/web",
    "id": "7",
    "type": "build.finished",
    "subject": "web",
    "time": "2026-03-01T13:00:00+01:00",
    "datacontenttype": "application/json",
    "data": {"version": "1.2.0"},
    "traceparent": "00-1-2-01",
}
EVENT = model.ReceivedEvent(
    *("https://ci.example/web", "7", "build.finished", "web"),
    datetime(2026, 3, 1, 12, tzinfo=UTC),
    '{"version": "1.2.0"}',
)
LEAST = {"specversion": "1.0", "source": "s", "id": "1", "type": "t"}
BINARY = {
    "content-type": "application/json; charset=utf-8",
    "ce-specversion": "1.0",
    "ce-source": "https://ci.example/web",
    "ce-id": "7",
    "ce-type": "build.finished",
    "ce-subject": "we%62",
    "ce-time": "2026-03-01T12:00:00Z",
}
BATCH = {"content-type": "application/cloudevents-batch+json"}


def _whole(data: bytes) -> bytes:
    """An event that is one but for its data."""
    return json.dumps(LEAST).encode().removesuffix(b"}") + b', "data": ' + data + b"}"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[house.Door]:
    async with house.standing(tmp_path) as found:
        yield found


async def refused(door: house.Door, answer: httpx.Response, status: int, code: str, field: str) -> None:
    """See that it was refused as it should be, that nothing got in, and that the process lives."""
    told = answer.json()
    assert (answer.status_code, told["code"], told["field"]) == (status, code, field), told
    assert told["message"].startswith("cannot ")
    assert set(told) == {"code", "field", "rule", "message"}
    assert door.engine.received == []
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://{door.address}/healthz")).json() == {"status": "serving"}


async def test_a_structured_event_is_taken(door: house.Door) -> None:
    answer = await door.events(BUILT)
    assert (answer.status_code, answer.json()) == (
        200,
        {"accepted": 1, "duplicates": 1, "stale": 0, "firings": ["t-1.0"]},
    )
    assert door.engine.received == [EVENT]
    assert door.engine.batches == [(1, "web:events")]


async def test_a_binary_event_is_taken(door: house.Door) -> None:
    assert (await door.events(b'{"version": "1.2.0"}', BINARY)).status_code == 200
    assert door.engine.received == [EVENT]


async def test_an_event_needs_neither_subject_nor_time_nor_data(door: house.Door) -> None:
    assert (await door.events(LEAST)).status_code == 200
    headers = {f"ce-{name}": value for name, value in LEAST.items()}
    assert (await door.events(b"", headers | {"content-type": ""})).status_code == 200
    assert (await door.events(LEAST | {"data": None})).status_code == 200
    assert door.engine.received == [model.ReceivedEvent("s", "1", "t")] * 3


async def test_a_batch_is_taken_whole(door: house.Door) -> None:
    assert (await door.events([LEAST, BUILT], BATCH)).status_code == 200
    assert door.engine.received == [model.ReceivedEvent("s", "1", "t"), EVENT]
    assert door.engine.batches == [(2, "web:events")]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"specversion": "0.3"}, "events[0].specversion"),
        ({"specversion": None}, "events[0].specversion"),
        ({"source": 7}, "events[0].source"),
        ({"id": ["x"]}, "events[0].id"),
        ({"type": {}}, "events[0].type"),
        ({"time": "yesterday"}, "events[0].time"),
        ({"time": "2026-03-01T12:00:00"}, "events[0].time"),
        ({"datacontenttype": "text/plain"}, "events[0].datacontenttype"),
        ({"data_base64": "eA=="}, "events[0].data_base64"),
    ],
)
async def test_what_is_no_event_is_refused_by_its_field(door: house.Door, changed: dict[str, Any], field: str) -> None:
    await refused(door, await door.events(BUILT | changed), 400, "invalid_event", field)
    [(asked, error)] = door.engine.kept
    assert (asked.actor, asked.action, error.field) == ("web:events", "send_events", field)


@pytest.mark.parametrize(
    ("found", "headers", "field"),
    [
        ([LEAST, 7], BATCH, "events[1]"),
        ([LEAST, LEAST | {"specversion": "2"}], BATCH, "events[1].specversion"),
        ({}, BATCH, "events"),
        ([], {}, "events[0]"),
    ],
)
async def test_of_a_batch_of_which_one_is_none_none_is_taken(
    door: house.Door, found: object, headers: dict[str, str], field: str
) -> None:
    await refused(door, await door.events(found, headers), 400, "invalid_event", field)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "body_invalid"),
        (b"{", "body_invalid"),
        (_whole(b'"\xff"'), "body_invalid"),
        (_whole(b"NaN"), "body_invalid"),
        (_whole(b"[" * 100_000 + b"]" * 100_000), "body_invalid"),
        (_whole(b"1" * 10_000), "body_invalid"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "invalid_event"),
    ],
)
async def test_what_is_no_json_is_refused(door: house.Door, body: bytes, code: str) -> None:
    answer = await door.events(body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert door.engine.received == []


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/json", "application/cloudevents+avro", "application/x-www-form-urlencoded"]
)
async def test_another_content_type_is_refused(door: house.Door, kind: str) -> None:
    answer = await door.events(BUILT, {"content-type": kind})
    await refused(door, answer, 415, "content_type_unsupported", "content-type")


async def test_data_of_a_binary_event_is_json(door: house.Door) -> None:
    answer = await door.events(b"<a/>", BINARY | {"content-type": "text/xml"})
    await refused(door, answer, 415, "content_type_unsupported", "content-type")


async def test_the_signature_is_the_one_that_is_documented(door: house.Door) -> None:
    body = json.dumps(BUILT).encode()
    timestamp = str(int(house.NOW.timestamp()))
    digest = hmac.new(house.SECRET, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/cloudevents+json",
        "X-Instar-Timestamp": timestamp,
        "X-Instar-Signature": f"sha256={digest}",
    }
    assert (await door.post("/v1/events", body, headers)).status_code == 200
    lines = "ce-id:7\nce-source:s\nce-specversion:1.0\nce-type:t\n"
    digest = hmac.new(house.SECRET, f"{timestamp}.{lines}{{}}".encode(), hashlib.sha256).hexdigest()
    binary = {
        "CE-Type": "t",
        "CE-Source": "s",
        "CE-Id": "7",
        "CE-SpecVersion": "1.0",
        "Content-Type": "application/json",
    }
    headers = binary | {"X-Instar-Timestamp": timestamp, "X-Instar-Signature": f"sha256={digest}"}
    assert (await door.post("/v1/events", b"{}", headers)).status_code == 200


async def test_who_does_not_know_the_secret_is_not_let_in(door: house.Door) -> None:
    answer = await door.events(BUILT, secret=b"another secret of some length")
    await refused(door, answer, 401, "signature_wrong", secrets.SIGNATURE)
    assert door.engine.kept == []


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({secrets.SIGNATURE: ""}, "signature_wrong"),
        ({secrets.SIGNATURE: "sha256=" + "0" * 64}, "signature_wrong"),
        ({secrets.SIGNATURE: "sha256=\u00e9"}, "signature_wrong"),
        ({secrets.TIMESTAMP: "1"}, "signature_wrong"),
        ({secrets.TIMESTAMP: ""}, "signature_wrong"),
        ({"ce-id": "8"}, "signature_wrong"),
        ({"ce-more": "8"}, "signature_wrong"),
    ],
)
async def test_nothing_of_a_request_can_be_changed_by_another(
    door: house.Door, changed: dict[str, str], code: str
) -> None:
    headers: dict[str, str] = house.signed(b"{}", BINARY) | changed
    latin = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = await door.post("/v1/events", b"{}", latin)  # type: ignore[arg-type]  # httpx takes bytes as well
    await refused(door, answer, 401, code, secrets.SIGNATURE)


async def test_a_body_cannot_be_changed_by_another(door: house.Door) -> None:
    headers = house.signed(json.dumps(BUILT).encode(), {"content-type": "application/cloudevents+json"})
    answer = await door.post("/v1/events", json.dumps(BUILT | {"id": "8"}).encode(), headers)
    await refused(door, answer, 401, "signature_wrong", secrets.SIGNATURE)


@pytest.mark.parametrize("late", [timedelta(minutes=6), timedelta(minutes=-6), timedelta(days=-400 * 50)])
async def test_an_old_signature_is_good_for_nothing(door: house.Door, late: timedelta) -> None:
    answer = await door.events(BUILT, at=house.NOW + late)
    await refused(door, answer, 401, "signature_old", secrets.TIMESTAMP)


@pytest.mark.parametrize("timestamp", ["", "soon", "9" * 30, "1e9", "\u0661"])
async def test_a_timestamp_that_is_none_is_good_for_nothing(door: house.Door, timestamp: str) -> None:
    body, kind = b"{}", {"content-type": "application/cloudevents+json"}
    try:
        signature = secrets.sign(secret.Secret(house.SECRET), timestamp, kind, body)
    except UnicodeEncodeError:
        signature = "none could be made"
    headers = {**kind, secrets.TIMESTAMP: timestamp, secrets.SIGNATURE: signature}
    utf8 = {name: value.encode() for name, value in headers.items()}
    answer = await door.post("/v1/events", body, utf8)  # type: ignore[arg-type]  # httpx takes bytes as well
    assert answer.status_code == 401
    assert door.engine.received == []


async def test_a_new_secret_counts_from_the_next_request_on(door: house.Door) -> None:
    door.secret_file.write_bytes(b"a new secret of some length")
    assert (await door.events(BUILT)).status_code == 401
    assert (await door.events(BUILT, secret=b"a new secret of some length")).status_code == 200
    door.secret_file.unlink()
    answer = await door.events(BUILT)
    assert (answer.status_code, answer.json()["code"]) == (503, "secret_unreadable")


async def test_a_body_that_says_it_is_too_large_is_not_read(door: house.Door) -> None:
    reader, writer = await asyncio.open_connection(*door.address.split(":"))
    writer.write(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "body_too_large"
    writer.close()


async def test_a_body_that_becomes_too_large_is_not_read_to_its_end(door: house.Door) -> None:
    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    with contextlib.suppress(httpx.TransportError):
        answer = await door.post("/v1/events", parts())
        await refused(door, answer, 413, "body_too_large", "body")
    assert bodies.BYTES_MAX < sent < 64 * bodies.BYTES_MAX
    assert door.engine.received == []


async def test_the_largest_body_is_read(door: house.Door) -> None:
    body = json.dumps(LEAST).encode()
    padded = body + b" " * (bodies.BYTES_MAX - len(body))
    assert (await door.events(padded)).status_code == 200
    await_refused = await door.events(padded + b" ")
    assert await_refused.status_code == 413


async def test_a_slow_sender_is_given_up_and_others_are_answered_meanwhile(
    door: house.Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "SECONDS_MAX", 1.0)
    reader, writer = await asyncio.open_connection(*door.address.split(":"))
    writer.write(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
    await writer.drain()
    assert (await door.events(BUILT)).status_code == 200
    async with asyncio.timeout(60):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "body_too_slow"
    writer.close()


@pytest.mark.parametrize("begin", [b"", b"POST /v1/ev", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: "])
async def test_headers_that_do_not_come_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(connections, "HEADERS_SECONDS", 0.5)
    async with house.standing(tmp_path) as door, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(*door.address.split(":"))
        writer.write(begin)
        await writer.drain()
        assert await reader.read() == b""
        writer.close()


async def test_those_who_only_hold_connections_are_gone_before_long_and_others_are_let_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ANSWERED_MAX", 3)
    monkeypatch.setattr(connections, "HEADERS_SECONDS", 1.0)
    async with house.standing(tmp_path) as door, asyncio.timeout(60):
        held = [await asyncio.open_connection(*door.address.split(":")) for _ in range(2)]
        assert (await door.events(BUILT)).status_code == 200
        held.append(await asyncio.open_connection(*door.address.split(":")))
        assert (await door.events(BUILT)).status_code == 503
        for reader, writer in held:
            assert await reader.read() == b""
            writer.close()
        assert (await door.events(BUILT)).status_code == 200


async def test_a_sender_that_goes_away_leaves_nothing_behind(door: house.Door) -> None:
    _, writer = await asyncio.open_connection(*door.address.split(":"))
    writer.write(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
    await writer.drain()
    writer.transport.abort()
    assert (await door.events(BUILT)).status_code == 200


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\x00\x01", b"nonsense\r\n\r\n", b"x" * 70_000])
async def test_what_is_no_http_does_no_harm(door: house.Door, noise: bytes) -> None:
    reader, writer = await asyncio.open_connection(*door.address.split(":"))
    writer.write(noise)
    writer.write_eof()
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(60):
            assert not re.match(rb"HTTP/1.1 [235]", await reader.read())
    writer.close()
    assert (await door.events(BUILT)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/events", 405), ("POST", "/healthz", 405), ("GET", "/", 404), ("POST", "/v1/other", 404)],
)
async def test_what_is_not_here_is_said_in_the_same_form(door: house.Door, method: str, path: str, status: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.request(method, f"http://{door.address}{path}")
    assert (answer.status_code, answer.json()["code"]) == (status, "not_here")


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (errors.InvalidRequestError("cannot", code="event_too_old", field="events[0].time"), 400, "event_too_old"),
        (errors.UnavailableError("cannot", code="triggers_inactive"), 503, "triggers_inactive"),
        (errors.ConflictError("cannot", code="changed"), 503, "changed"),
        (errors.RefusedError("cannot", code="no"), 409, "no"),
        (errors.NotFoundError("cannot", code="none"), 404, "none"),
        (errors.IllegalEventError("cannot", code="ill"), 500, "ill"),
        (RuntimeError("our insides"), 500, "internal"),
    ],
)
async def test_what_the_engine_refuses_leaves_with_its_code(
    door: house.Door, failure: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    door.engine.failure = failure
    answer = await door.events(BUILT)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "our insides" not in answer.text
    assert ("our insides" in caplog.text) is (code == "internal")
    door.engine.failure = None
    assert (await door.events(BUILT)).status_code == 200


async def test_that_a_refusal_cannot_be_kept_does_not_change_the_answer(
    door: house.Door, caplog: pytest.LogCaptureFixture
) -> None:
    door.engine.keeping = errors.UnavailableError("cannot write", code="store")
    await refused(door, await door.events({}), 400, "invalid_event", "events[0].specversion")
    assert "cannot keep that web:events was refused" in caplog.text
