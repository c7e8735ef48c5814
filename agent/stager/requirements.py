"""Judges the requirements of a release: each one is a name, one version, and the hashes of its wheels; nothing else.

Rules kept here: no line can name an index, a path, a link or another file, so nothing that the bundle did not lock can
come in. Left out: installing them.

Source: https://pip.pypa.io/en/stable/reference/requirements-file-format/
"""

from __future__ import annotations

import re

from agent.config.errors import ConfigError

TEXT_BYTES_MAX = 1024**2  # ten times a long lock
LINES_MAX = 2000  # packages of one release
COMMENT = re.compile(r"(?:^|\s)#.*$")
REQUIREMENT = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9._, -]*\])?"
    r"\s*==\s*[0-9A-Za-z.!+_-]+"
    r"(?:\s*;[^\\]*?)?"
    r"(?:\s+--hash=sha256:[0-9a-f]{64})+",
    re.ASCII,
)
RULE = "each requirement is name==version, perhaps with a marker, and at least one --hash=sha256:, and nothing else"


def check(name: str, text: str) -> int:
    """Judge the text of a file of requirements; returns how many there are.

    Raises:
        ConfigError: A line is anything else.
    """
    lines = _lines(text)
    if len(lines) > LINES_MAX:
        rule = f"it has at most {LINES_MAX} requirements"
        raise ConfigError(f"cannot use {name}: {rule}", field=name, value=str(len(lines)), rule=rule)
    for line in lines:
        if not REQUIREMENT.fullmatch(line):
            raise ConfigError(f"cannot use {name}: {line[:200]!r}: {RULE}", field=name, value=line[:200], rule=RULE)
    return len(lines)


def _lines(text: str) -> list[str]:
    """Logical lines: continued ones joined, comments and blanks left out."""
    joined = re.sub(r"\\\r?\n", " ", "\n".join(COMMENT.sub("", line) for line in text.splitlines()))
    return [line.strip() for line in joined.splitlines() if line.strip()]
