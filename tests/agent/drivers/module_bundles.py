"""What the tests of modules put into releases, and how they ask the host."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent.core import model
from tests.instar_handover import module_releases

HOST = Path(__file__).with_name("module_host_service.py")
MANIFEST = model.Manifest(
    name="billing.rules",
    version="1.0.0",
    driver="module",
    command=("python", "app.py"),
    environment={},
    sockets=(),
    readiness=None,
    health=None,
    metrics=None,
    prepare_timeout=timedelta(seconds=10),
    drain_timeout=timedelta(seconds=5),
    stop_timeout=timedelta(seconds=5),
    options=model.ModuleOptions(host="web", file="rules.py", suspend_timeout=timedelta(seconds=1)),
)


def rules(version: str, **more: Any) -> str:  # noqa: ANN401  # of the template
    """Text of a version."""
    told = {"schema": module_releases.SCHEMA, "known": ">=1.0.0,<3.0.0", "change": "state", "more": "", "last": ""}
    return module_releases.RULES.format(version=version, state=more.pop("state", {"totals": {}}), **{**told, **more})


async def ask(address: tuple[str, int]) -> list[str]:
    """Ask the host once; the words of its answer."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2].decode().split()
