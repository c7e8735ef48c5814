"""What the agent's log holds: JSON lines, and a warning that stands not at each look."""

from __future__ import annotations

import json
import logging

import pytest

from agent.runner import lines


def record(message: str, level: int = logging.WARNING, at: float = 0.0) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "agent.x", "levelno": level, "levelname": "WARNING", "msg": message})
    made.created = at
    return made


def test_a_warning_that_stands_is_written_once_in_a_while() -> None:
    once = lines.Once()
    written = [at for at in range(0, 1000, 2) if once.filter(record("cannot bring web up", at=at))]
    assert written == [0, 300, 600, 900]
    assert once.filter(record("cannot bring api up", at=1))


@pytest.mark.parametrize("level", [logging.INFO, logging.ERROR])
def test_what_happened_and_what_failed_is_always_written(level: int) -> None:
    once = lines.Once()
    assert all(once.filter(record("the session is open", level)) for _ in range(2))


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    once = lines.Once()
    assert once.filter(record("cannot", at=1e9))
    assert once.filter(record("cannot", at=0))


def test_what_is_remembered_of_warnings_is_bounded() -> None:
    once = lines.Once()
    for number in range(lines.REMEMBERED_MAX + 1):
        once.filter(record(f"cannot {number}"))
    assert once.filter(record("cannot 0"))
    assert not once.filter(record(f"cannot {lines.REMEMBERED_MAX}"))


def test_a_line_is_one_json_object_with_whatever_was_given_beside() -> None:
    made = record("cannot\ndo it")
    made.instance_id = "web-1"
    line = lines.JsonLines().format(made)
    assert "\n" not in line
    told = {"level": "warning", "logger": "agent.x", "message": "cannot\ndo it", "instance_id": "web-1"}
    assert json.loads(line) == told
    assert len(lines.JsonLines().format(record("x" * 99999))) < 5000
