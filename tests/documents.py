"""Documents whose parts are made from the code: what stands between the marks of a part is compared, or made anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"

Parts = Mapping[str, Callable[[], Iterator[str]]]


def check(document: Path, parts: Parts, *, is_rewriting: bool) -> None:
    """Compare a document with the code, or rewrite it; a part that is named a diagram is drawn by mermaid."""
    text = document.read_text(encoding="utf-8")
    expected = _filled(text, parts)
    if is_rewriting:
        document.write_text(expected, encoding="utf-8")
    else:
        assert text == expected, f"{document.name} differs: run pytest with --rewrite, and read the diff"


def _filled(text: str, parts: Parts) -> str:
    for name, lines in parts.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        assert text.count(begin) == text.count(end) == 1, f"there is no place for the {name}"
        body = "\n".join(lines())
        fenced = f"```mermaid\n{body}\n```" if name.endswith("diagram") else body
        head, tail = text.partition(begin)[0], text.partition(end)[2]
        text = f"{head}{begin}{fenced}\n{end}{tail}"
    return text
