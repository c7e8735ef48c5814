from __future__ import annotations

from pathlib import Path

import pytest

from tests import datadriven

pytestmark = pytest.mark.core

TEXT = """\
# Why it is here.
add left=1 right=2
----
3

add left=2 right=2 loud
more
lines
----
4!
2 lines
"""


def handle(case: datadriven.Case) -> str:
    total = int(case.arguments["left"]) + int(case.arguments["right"])
    lines = case.input.splitlines()
    return f"{total}{'!' if 'loud' in case.arguments else ''}\n" + (f"{len(lines)} lines" if lines else "")


def test_what_the_file_says_passes(tmp_path: Path) -> None:
    path = tmp_path / "sums.txt"
    path.write_text(TEXT)
    datadriven.run(path, handle, is_rewriting=False)
    assert path.read_text() == TEXT


def test_what_the_file_does_not_say_fails_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "sums.txt"
    path.write_text(TEXT.replace("4!", "5!"))
    with pytest.raises(AssertionError, match=r"sums.txt:6: add left=2 right=2 loud"):
        datadriven.run(path, handle, is_rewriting=False)


def test_rewriting_makes_the_file_say_what_the_code_does_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "sums.txt"
    path.write_text(TEXT.replace("4!", "5!").replace("3\n", "7\n"))
    datadriven.run(path, handle, is_rewriting=True)
    assert path.read_text() == TEXT


@pytest.mark.parametrize("text", ["", "add left=1 right=2\n", TEXT + "\nadd left=1 right=1\n", "----\n3\n"])
def test_a_file_that_cannot_be_read_whole_is_no_success(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sums.txt"
    path.write_text(text)
    with pytest.raises(AssertionError, match="cannot"):
        datadriven.run(path, handle, is_rewriting=False)
