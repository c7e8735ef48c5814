"""Golden scenarios: a text file is a session of commands, each with the output that it must give.

Blocks are separated by blank lines; the commands of a file share one state, made by its test::

    # why this block is here
    command key=value flag
    optional input lines
    ----
    expected output

With ``pytest --rewrite`` the outputs are replaced by what the code gives now: read the diff before you believe it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?P<comment>(?:#.*\n|\n)*)"
    r"(?P<head>[^\n#]+)\n"
    r"(?P<input>(?:(?!----\n).+\n)*)"
    r"----\n"
    r"(?P<expected>(?:.+\n)*)"
)


@dataclass(frozen=True, slots=True)
class Case:
    """One command: a word without ``=`` is a flag, and is its own value."""

    position: str
    command: str
    arguments: Mapping[str, str]
    input: str


def run(path: Path, handle: Callable[[Case], str], *, is_rewriting: bool) -> None:
    """Run a file's commands in order and compare, or write, what each gives."""
    text = path.read_text(encoding="utf-8")
    blocks: list[str] = []
    end = 0
    for found in _BLOCK.finditer(text):
        assert found.start() == end, f"{path.name}: cannot read the block behind character {end}"
        end = found.end()
        case = _case(path, text, found)
        actual = handle(case).rstrip("\n") + "\n"
        if not is_rewriting:
            assert actual == found["expected"], f"{case.position}: {found['head']}"
        blocks.append(f"{found['comment'].lstrip()}{found['head']}\n{found['input']}----\n{actual}")
    assert blocks, f"{path.name}: cannot find a block"
    assert not text[end:].strip(), f"{path.name}: cannot read the block behind character {end}"
    if is_rewriting:
        path.write_text("\n".join(blocks), encoding="utf-8")


def _case(path: Path, text: str, found: re.Match[str]) -> Case:
    command, *rest = found["head"].split()
    line = text.count("\n", 0, found.start("head")) + 1
    pairs = (word.partition("=") for word in rest)
    arguments = {name: value if equals else name for name, equals, value in pairs}
    return Case(f"{path.name}:{line}", command, arguments, found["input"])
