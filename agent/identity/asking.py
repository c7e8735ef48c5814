"""Asks the disposable child for one piece of key work.

Rules kept: it has a deadline and is killed at it; it gets nothing but its question. Left out: what it does (`child`).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

SECONDS_MAX = 60.0  # a slow host takes two


class KeyWorkError(Exception):
    """The child could not do it."""


async def ask(verb: str, question: Mapping[str, str]) -> Mapping[str, Any]:
    """Ask, and return what it answers.

    Raises:
        KeyWorkError: It could not do it, or took too long.
    """
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent.identity", verb, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(SECONDS_MAX):
            out, complaint = await child.communicate(json.dumps(question).encode())
    except TimeoutError as error:
        raise KeyWorkError(f"cannot {verb}: the child took longer than {SECONDS_MAX:.0f} s") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return _answer(verb, out, complaint)


def _answer(verb: str, out: bytes, complaint: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(out)
    except ValueError as error:
        told = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise KeyWorkError(f"cannot {verb}: the child said {told!r}") from error
    if "error" in found:
        raise KeyWorkError(f"cannot {verb}: {found['error']}")
    return dict(found)
