"""Servers that are no good Prometheus: each is a real HTTP server, and each of its answers a typed error."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from controller.config import sources
from controller.core import errors, model
from controller.core.analysis import samples
from controller.metrics import answers, prometheus, queries
from tests.controller.metrics import real_prometheus as real

Answer = Callable[[real.Request], None]
AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
SUBJECT = queries.Subject(model.RolloutId("r-1"), model.ComponentName("web"), "2.0.0")
NODE = model.NodeId("web-1")
OTHER = model.NodeId("web-2")
LEVEL = model.JudgedMetric("queue", model.Measure(model.MeasureKind.LEVEL, "queue"))
SECOND = timedelta(seconds=1)
CALLER, CONTROLLER, SOURCE = errors.Blame.CALLER, errors.Blame.CONTROLLER, errors.Blame.SOURCE


async def ask(
    answer: Answer,
    at: datetime = AT + 2 * SECOND,
    **changes: Any,  # noqa: ANN401  # of the server
) -> samples.Sample:
    with real.serving(answer) as address:
        server = sources.Server("main", f"http://{address}", step=SECOND)
        source = prometheus.Prometheus(replace(server, **changes))
        async with contextlib.aclosing(source):
            found = await source.samples(SUBJECT, [LEVEL], {NODE: AT}, [OTHER], past=3 * SECOND, began_at=AT, at=at)
    return found["queue"]


async def refused(answer: Answer, **changes: Any) -> errors.SourceError:  # noqa: ANN401  # of the server
    with pytest.raises(errors.SourceError, match=r"^cannot use what the Prometheus server main answers: ") as caught:
        await ask(answer, **changes)
    return caught.value


def saying(body: object, status: int = 200, **headers: str) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)
    return lambda request: real.reply(request, text, status, **headers)


def matrix(*series: tuple[str, list[tuple[float, str]]], **more: object) -> dict[str, object]:
    """An answer with these values, at seconds behind the anchor."""
    result = [
        {"metric": {"instance": name}, "values": [[AT.timestamp() + second, value] for second, value in points]}
        for name, points in series
    ]
    return {"status": "success", "data": {"resultType": "matrix", "result": result}, **more}


def parts(series: dict[str, dict[float, str]]) -> Answer:
    """Answer for the span that is asked for."""

    def answer(request: real.Request) -> None:
        form = httpx.QueryParams(request.asked.decode())
        start, end = (float(form[name]) - AT.timestamp() for name in ("start", "end"))
        shown = {
            name: [(at, value) for at, value in points.items() if start <= at <= end] for name, points in series.items()
        }
        real.reply(request, json.dumps(matrix(*((name, list(points)) for name, points in shown.items() if points))))

    return answer


async def test_values_that_are_no_numbers_are_missing_and_others_count() -> None:
    series: dict[str, dict[float, str]] = {
        "web-1:9100": {-2: "1", -1: "NaN", 0: "3", 1: "+Inf", 2: "5"},
        "web-2:9100": {1: "-Inf"},
        "db-1:9100": {1: "7"},
    }
    found = await ask(parts(series))
    assert (found.before[0], found.before_exposure[0], found.after[0], found.after_exposure[0]) == (2.0, 2.0, 5.0, 1.0)
    assert np.isnan([found.before[1], found.before_exposure[1], found.after[1], found.after_exposure[1]]).all()


SPAN = answers.Span(start_ms=0, step_ms=1000, steps=3)


def body(*points: tuple[float, str]) -> bytes:
    found = {"metric": {"instance": "web-1"}, "values": points}
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": [found]}}).encode()


def test_a_point_is_put_where_it_belongs_and_is_missing_where_it_is_no_number() -> None:
    grid = answers.read(sources.Server("main", ""), body((0, "1"), (1, "+Inf"), (2, "-Inf")), SPAN)
    assert (grid.rows, grid.values[0][0]) == ({"web-1": 0}, 1.0)
    assert np.isnan(grid.values[0][1:]).all()


@pytest.mark.parametrize("points", [[(1, "1"), (1, "2")], [(0.5, "1")], [(-1, "1")], [(3, "1")]])
def test_a_point_that_was_not_asked_for_or_comes_twice_is_refused(points: list[tuple[float, str]]) -> None:
    with pytest.raises(errors.SourceError) as caught:
        answers.read(sources.Server("main", ""), body(*points), SPAN)
    assert caught.value.code == "wrong_answer"


async def test_what_lies_before_the_change_of_a_node_is_no_evidence() -> None:
    series: dict[str, dict[float, str]] = {
        f"web-{number}": {float(second): str(second) for second in range(-2, 6)} for number in (1, 2)
    }
    with real.serving(parts(series)) as address:
        source = prometheus.Prometheus(sources.Server("main", f"http://{address}", step=SECOND))
        async with contextlib.aclosing(source):
            canary = {NODE: AT + 2.5 * SECOND}
            found = await source.samples(
                SUBJECT, [LEVEL], canary, [OTHER], past=3 * SECOND, began_at=AT, at=AT + 5 * SECOND
            )
    queue = found["queue"]
    assert (queue.after[0], queue.after_exposure[0]) == (4.5, 2.0)  # the seconds 4 and 5
    assert (queue.after[1], queue.after_exposure[1]) == (4.5, 2.0)  # an untouched node's from then on, too
    assert (queue.before[0], queue.before_exposure[0]) == (-1.0, 3.0)


async def test_steps_that_are_long_over_are_asked_for_once() -> None:
    spans: list[str] = []

    def answer(request: real.Request) -> None:
        form = httpx.QueryParams(request.asked.decode())
        spans.append(form["end"])
        real.reply(request, json.dumps(matrix()))

    with real.serving(answer) as address:
        source = prometheus.Prometheus(sources.Server("main", f"http://{address}", step=SECOND))
        async with contextlib.aclosing(source):
            for seconds in (1, 70, 71):
                at = AT + seconds * SECOND
                await source.samples(SUBJECT, [LEVEL], {NODE: AT}, [OTHER], past=3 * SECOND, began_at=AT, at=at)
    ends = [float(each) - AT.timestamp() for each in spans]
    assert sorted(ends) == [0, 0, 1, 60, 60, 70, 71]


@pytest.mark.parametrize(
    ("answer", "code", "blame", "is_retryable"),
    [
        (
            saying("", 302, location="http://user:secret@elsewhere.example/x?token=secret"),
            "redirected",
            CONTROLLER,
            False,
        ),
        (saying("", 308), "redirected", CONTROLLER, False),
        (saying({"status": "error", "error": "parse error"}, 400), "query_refused", CALLER, False),
        (saying({"status": "error", "error": "too many samples"}, 422), "query_refused", CALLER, False),
        (saying("who are you", 401), "not_allowed", CONTROLLER, False),
        (saying("", 403), "not_allowed", CONTROLLER, False),
        (saying("<html>", 404), "wrong_address", CONTROLLER, False),
        (saying("slow down", 429), "server_failed", SOURCE, True),
        (saying("", 503), "server_failed", SOURCE, True),
        (saying("a teapot", 418), "server_failed", SOURCE, False),
        (saying("<html>hello</html>"), "wrong_answer", SOURCE, False),
        (saying("[" * 200_000), "wrong_answer", SOURCE, False),
        (saying([]), "wrong_answer", SOURCE, False),
        (saying({"status": "error"}), "wrong_answer", SOURCE, False),
        (saying({"status": "success", "data": {"resultType": "vector", "result": []}}), "wrong_answer", SOURCE, False),
        (saying(matrix(("web-1", [(0, "much")]))), "wrong_answer", SOURCE, False),
        (saying(matrix(("web-1", [(0.5, "1")]))), "wrong_answer", SOURCE, False),
        (saying(matrix(("web-1", [(0, "1"), (0, "1")]))), "wrong_answer", SOURCE, False),
        (saying(matrix(("web-1", [(-9, "1")]))), "wrong_answer", SOURCE, False),
        (saying(matrix(("web-1", [(float("1e300"), "1")]))), "wrong_answer", SOURCE, False),
        (saying({"status": "success", "data": {"resultType": "matrix", "result": [7]}}), "wrong_answer", SOURCE, False),
        (saying(matrix(("web-1:1", []), ("web-1:2", []))), "duplicate_series", CALLER, False),
        (saying(matrix(*((f"n{n}", []) for n in range(20_001)))), "too_many_series", CALLER, False),
        (saying(matrix(warnings=["some shards are away"])), "partial", SOURCE, True),
        (saying("x", content_encoding="gzip"), "wrong_answer", SOURCE, True),
    ],
)
async def test_an_answer_that_does_not_count_says_whose_fault_it_is(
    answer: Answer, code: str, blame: errors.Blame, *, is_retryable: bool
) -> None:
    error = await refused(answer)
    assert (error.code, error.blame, error.is_retryable) == (code, blame, is_retryable)
    assert "secret" not in str(error)


async def test_a_redirect_says_where_it_leads_and_is_not_followed() -> None:
    asked: list[str] = []

    def there(request: real.Request) -> None:
        asked.append(request.path)
        real.reply(request, json.dumps(matrix()))

    with real.serving(there) as address:
        error = await refused(saying("", 307, location=f"http://{address}/api/v1/query_range"))
    assert f"it sends to http://{address}, and redirects are not followed" in str(error)
    assert asked == []


async def test_a_server_that_is_silent_is_given_up() -> None:
    over = threading.Event()

    def answer(request: real.Request) -> None:
        over.wait()
        request.close_connection = True

    try:
        error = await refused(answer, time_out=timedelta(milliseconds=100))
    finally:
        over.set()
    assert (error.code, error.blame, error.is_retryable) == ("timed_out", SOURCE, True)


def dripping(gone: threading.Event, part: bytes, pause: float) -> Answer:
    """Answer without an end, until nobody listens any more."""

    def answer(request: real.Request) -> None:
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):
            while not gone.wait(pause):
                request.wfile.write(part)
        request.close_connection = True

    return answer


async def test_a_server_that_never_ends_is_given_up_however_often_it_sends() -> None:
    gone = threading.Event()
    try:
        error = await refused(dripping(gone, b" ", 0.01), time_out=timedelta(milliseconds=200))
    finally:
        gone.set()
    assert (error.code, error.is_retryable) == ("timed_out", True)


async def test_an_answer_that_is_too_long_is_given_up() -> None:
    gone = threading.Event()
    try:
        error = await refused(dripping(gone, b" " * (1 << 20), 0.0), time_out=timedelta(minutes=1))
    finally:
        gone.set()
    assert (error.code, error.blame) == ("too_large", CALLER)
    assert f"{answers.TEXT_CHARS_MAX}" not in str(error)


async def test_an_answer_that_breaks_off_is_an_outage() -> None:
    def answer(request: real.Request) -> None:
        request.send_response(200)
        request.send_header("content-length", "1000")
        request.end_headers()
        request.wfile.write(b"{")
        request.close_connection = True

    error = await refused(answer)
    assert (error.code, error.is_retryable) == ("unreachable", True)


async def test_nobody_there_is_an_outage() -> None:
    with real.serving(saying("")) as address:
        pass
    error = await refused(saying(""), url=f"http://{address}")
    assert (error.code, error.blame, error.is_retryable) == ("unreachable", SOURCE, True)


async def test_evidence_of_too_many_steps_is_not_asked_for() -> None:
    with pytest.raises(errors.SourceError) as caught:
        await ask(saying(matrix()), at=AT + 5001 * SECOND)
    assert (caught.value.code, caught.value.blame) == ("too_long", CALLER)


async def test_a_token_is_sent_and_shown_to_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str | None] = []

    def answer(request: real.Request) -> None:
        seen.append(request.headers["authorization"])
        real.reply(request, "", 401)

    file = tmp_path / "token"
    file.write_text("s3cret\n")
    with caplog.at_level(logging.DEBUG):
        error = await refused(answer, token_file=file)
    assert set(seen) == {"Bearer s3cret"}
    assert "s3cret" not in f"{error}{error.__cause__!r}{error.__context__!r}{caplog.text}"


@pytest.mark.parametrize("form", ["text", "json", "escaped", "location", "warning"])
async def test_a_token_that_a_server_repeats_is_told_to_nobody(tmp_path: Path, form: str) -> None:
    token = "s3cret/s3cret/s3cret"  # noqa: S105  # of the test

    def answer(request: real.Request) -> None:
        shown = request.headers["authorization"]
        told = json.dumps({"status": "error", "error": f"who is {shown}?"})
        match form:
            case "text":
                real.reply(request, f"who is {shown}?", 400)
            case "location":
                real.reply(request, "", 302, location=f"http://{token}.example/")
            case "warning":
                real.reply(request, json.dumps(matrix(warnings=[shown])), 200)
            case _:
                real.reply(request, told.replace("/", "\\/") if form == "escaped" else told, 400)

    file = tmp_path / "token"
    file.write_text(token)
    error = await refused(answer, token_file=file)
    assert "s3cret" not in f"{error}{error.__cause__!r}{error.__context__!r}"


@pytest.mark.parametrize("content", [None, b"", b"two words", "schlüssel".encode(), b"one\ntwo", b"x" * 20_000])
async def test_a_token_that_is_none_asks_nothing(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    error = await refused(saying(matrix()), token_file=file)
    assert (error.code, error.blame, error.is_retryable) == ("token_unusable", CONTROLLER, False)


async def test_a_server_is_found_by_its_name() -> None:
    servers = prometheus.Servers([sources.Server("main", "http://127.0.0.1:9090")])
    async with contextlib.aclosing(servers):
        assert list(servers) == ["main"]
        assert servers.named("main") is servers.named("main")
        with pytest.raises(errors.NotFoundError, match="'other'") as caught:
            servers.named("other")
    assert (caught.value.code, caught.value.rule) == ("source_not_found", "one of main")
