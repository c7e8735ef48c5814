"""What is told to be wrong, and since when; and that a tree is read by a child."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.core import model
from agent.keeper import digest
from agent.runner import conditions, trees

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
DRIFT = conditions.Finding(conditions.DRIFT, "web", "current was moved")
LOW = conditions.Finding(conditions.DISK_LOW, "", "little is free")


def test_a_condition_has_stood_since_it_was_seen_first() -> None:
    told = conditions.Conditions()
    assert told.see([LOW], NOW)
    assert told.see([LOW, DRIFT], LATER)
    assert told.items == (
        model.Condition("disk_low", "", "little is free", NOW),
        model.Condition("drift", "web", "current was moved", LATER),
    )
    assert not told.see([DRIFT, LOW], LATER)


def test_what_is_no_longer_seen_is_over_and_begins_anew() -> None:
    told = conditions.Conditions()
    told.see([LOW], NOW)
    assert told.see([], NOW)
    assert not told.items
    told.see([LOW], LATER)
    assert [item.since for item in told.items] == [LATER]


def test_another_sentence_about_the_same_thing_is_told_and_is_not_newer() -> None:
    told = conditions.Conditions()
    told.see([DRIFT], NOW)
    assert told.see([conditions.Finding(conditions.DRIFT, "web", "the release was changed on disk")], LATER)
    assert (told.items[0].message, told.items[0].since) == ("the release was changed on disk", NOW)


async def test_a_child_reads_a_tree_and_sees_what_was_changed(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print('hello')\n")
    before = await trees.tree_digest(tmp_path)
    assert before == digest.tree_digest(tmp_path)
    (tmp_path / "main.py").write_text("print('hello!')\n")
    assert await trees.tree_digest(tmp_path) not in {before, ""}
    (tmp_path / "link").symlink_to("main.py")
    assert await trees.tree_digest(tmp_path) == trees.UNREADABLE


async def test_a_tree_that_is_gone_cannot_be_told(tmp_path: Path) -> None:
    assert await trees.tree_digest(tmp_path / "nothing") == ""


def test_conditions_are_bounded_as_the_controller_takes_them() -> None:
    told = conditions.Conditions()
    told.see((conditions.Finding(conditions.DRIFT, f"c{number:03}", "x" * 9999) for number in range(99)), NOW)
    assert [item.component for item in told.items] == [f"c{number:03}" for number in range(64)]
    assert {len(item.message) for item in told.items} == {512}
