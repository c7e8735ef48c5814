"""What `instar up` does: a controller and one node of this machine, to try things out with, until it is interrupted.

Rules kept: it is as secure as what is run in earnest: releases are signed with throw-away keys, whose root the node
pins, and everybody shows a certificate of throw-away authorities; everything started is stopped, also when something
fails. Left out: anything that is installed on the node.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from controller.cli.demo import api, bundles, fleet, ports, process

NODE = "local"
HEARTBEAT_PERIOD = "1s"  # what changes is shown at once


async def run(*, keep: bool, ready: Callable[[Mapping[str, str]], None]) -> None:
    """Run all of it until cancelled.

    Args:
        keep: Whether the folder stays at the end.
        ready: Told where everything is, once all of it works.

    Raises:
        process.ProcessError: A part did not come up, or ended by itself; what it wrote is kept.
    """
    root = Path(tempfile.mkdtemp(prefix="instar-"))
    try:
        async with AsyncExitStack() as started:
            await _serve(root, started, ready)
    except asyncio.CancelledError:
        if not keep:
            shutil.rmtree(root)
        raise


async def _serve(root: Path, started: AsyncExitStack, ready: Callable[[Mapping[str, str]], None]) -> None:
    controller = fleet.Controller(root / "controller", None, HEARTBEAT_PERIOD, has_tls=True)
    started.push_async_callback(controller.stop)
    await controller.start()
    node = fleet.Node(NODE, root / "node", controller)
    await node.enrol()
    started.push_async_callback(node.stop)
    await node.start()
    link = await started.enter_async_context(controller.connect())

    async def is_connected() -> bool:
        return any(one.connected for one in await api.nodes(link))

    await process.until("the node is connected", is_connected, seconds=fleet.READY_SECONDS)
    ready(_places(root, controller, node))
    await controller.running.ended()
    raise controller.running.failure(f"go on in {root}: the controller ended by itself")


def _places(root: Path, controller: fleet.Controller, node: fleet.Node) -> Mapping[str, str]:
    return {
        "folder": str(root),
        **controller.client_environment,
        "node": node.id,
        "node_config": str(node.config_file),
        f"address_of_{bundles.COMPONENT}": f"{ports.HOST}:{node.port}",
    }
