from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from controller.cli.demo import exchange, figures, receiver, record

START = datetime(2026, 1, 1, tzinfo=UTC)


def request(
    seconds: float, latency_ms: float = 5.0, node_id: str = "a", failure: exchange.Failure | None = None
) -> record.Record:
    return record.Record(
        due_at=START + timedelta(seconds=seconds),
        latency_ms=latency_ms,
        node_id=node_id,
        kind=record.Kind.KEEP_ALIVE,
        version="" if failure else "1.0.0",
        failure=failure,
    )


def span(name: str, node_id: str, begin: float, end: float, span_id: str = "01", parent_id: str = "") -> receiver.Span:
    return receiver.Span(
        trace_id="aa",
        span_id=span_id,
        parent_id=parent_id,
        name=name,
        started_at=START + timedelta(seconds=begin),
        ended_at=START + timedelta(seconds=end),
        attributes={"host.id": node_id} if node_id else {},
    )


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    requests = (request(0.25), request(1, failure=exchange.Failure.RESET))
    path = tmp_path / "requests.tsv"
    path.write_text("".join(record.line(one) for one in requests) + "half a li", encoding="ascii")

    assert tuple(record.read(path)) == requests
    assert record.number(path) == 2


def test_a_failed_request_counts_once_and_by_what_went_wrong() -> None:
    sums = figures.figures([request(0), request(1, failure=exchange.Failure.REFUSED)], ())

    assert (sums.total, sums.failed, dict(sums.failures)) == (2, 1, {"refused": 1})
    assert sums.by_version == {"1.0.0": 1}


def test_a_swap_is_the_time_from_switch_to_drained_of_the_request_s_own_node() -> None:
    trace = receiver.Trace(
        "aa",
        (span("switch", "a", 1, 1.1), span("soak", "a", 1.1, 4), span("drain", "a", 4, 5), span("switch", "b", 8, 9)),
    )
    swaps = figures.windows(trace)

    assert swaps == (figures.Window("a", START + timedelta(seconds=1), START + timedelta(seconds=5)),)
    requests = [request(0.9), request(1.0, latency_ms=70), request(5.0), request(5.1), request(2, node_id="b")]
    sums = figures.figures(requests, swaps)
    assert (sums.during_swap, sums.p99_ms_during_swap, sums.p50_ms) == (2, 70, 5)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert figures.percentile(list(range(1, 101)), 99) == 99
    assert figures.percentile([7.0], 50) == 7.0
    assert figures.percentile([], 99) is None


def test_an_orphan_is_a_span_whose_parent_never_came() -> None:
    root = span("RUN rollout", "", 0, 9, span_id="01")
    child = span("wave", "", 0, 9, span_id="02", parent_id="01")
    lost = span("soak", "a", 0, 9, span_id="03", parent_id="99")
    trace = receiver.Trace("aa", (root, child, lost))

    assert trace.roots == (root,)
    assert trace.orphans == (lost,)
    assert trace.node_ids == {"a"}
