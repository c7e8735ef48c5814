"""A node's keeper, as the demo asks it: what runs there now, and to stop it all.

Rules kept: one connection for each question; who does not answer within ASK_SECONDS has failed. Left out: every verb
that would change what a rollout is at work on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ASK_SECONDS = 10.0  # a keeper answers within a millisecond, on a busy machine within a second
ANSWER_BYTES_MAX = 1 << 20  # far more than the keeper of a few components can say


@dataclass(frozen=True, slots=True)
class Tree:
    """The processes of a node that an upgrade of its agent must leave alone.

    Args:
        services: Process id of each committed instance, by its id.
    """

    keeper_pid: int
    services: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Seen:
    """A node as its keeper sees it.

    Args:
        keeper_digest: The release that the keeper runs from; empty for the packaged one.
    """

    tree: Tree
    keeper_digest: str


async def look(socket: Path) -> Seen:
    """What runs on a node now.

    Raises:
        OSError: The keeper does not answer.
    """
    pid = (await _ask(socket, "hello"))["pid"]
    held = await _ask(socket, "inspect")
    services = {one["id"]: one["pid"] for one in held["instances"] if one["is_kept"]}
    return Seen(Tree(pid, services), held["keeper_digest"])


async def shut_down(socket: Path) -> None:
    """Have the keeper stop what it keeps and its agent, and end.

    Raises:
        OSError: The keeper does not answer.
    """
    await _ask(socket, "shutdown", components="stop")


async def _ask(socket: Path, verb: str, **body: str) -> Mapping[str, Any]:
    async with asyncio.timeout(ASK_SECONDS):
        reader, writer = await asyncio.open_unix_connection(socket, limit=ANSWER_BYTES_MAX)
        try:
            writer.write(json.dumps({"id": 1, "do": verb, **body}).encode() + b"\n")
            line = await reader.readline()
        finally:
            writer.close()
    if not line.endswith(b"\n"):
        raise ConnectionResetError(f"cannot ask {socket} to {verb}: it hung up")
    answer: Mapping[str, Any] = json.loads(line)
    if "ok" not in answer:
        raise ConnectionRefusedError(f"cannot ask {socket} to {verb}: {answer.get('error')}")
    result: Mapping[str, Any] = answer["ok"]
    return result
