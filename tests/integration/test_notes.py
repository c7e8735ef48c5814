from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from controller.cli.demo import exchange, record
from tests.integration import notes

AT = datetime(2026, 1, 1, tzinfo=UTC)


def line(version: str, failure: exchange.Failure | None = None) -> str:
    return record.line(record.Record(AT, 6.0, "n1", record.Kind.KEEP_ALIVE, version, failure))


def test_each_request_is_told_of_once_when_its_line_is_whole(tmp_path: Path) -> None:
    path, other = tmp_path / "n1.tsv", tmp_path / "n2.tsv"
    other.write_text("", encoding="ascii")
    whole = [line("1.0.0"), line("1.0.0", exchange.Failure.SERVER_ERROR), line("", exchange.Failure.RESET)]
    path.write_text("".join(whole) + line("1.1.0")[:-1], encoding="ascii")
    requests = notes.Notes([path, other])

    told = requests.since()
    assert (told.answered, told.failed, told.lost, told.p99_ms) == ({"1.0.0": 2}, {"1.0.0": 1}, 1, 6.0)
    assert told.per_second > 0
    with path.open("a", encoding="ascii") as file:
        file.write("\n")
    assert (later := requests.since()).answered == {"1.1.0": 1}
    assert (later.failed, later.lost) == ({}, 0)
