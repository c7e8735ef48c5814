"""`instar up`: a controller and one agent on this machine, for trying things out.

Rules kept here: they are what `instar demo` starts, each by the command that an operator would use, with throw-away
authorities, so that the first try is as secure as the last; all of it is gone when the command ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from controller.cli import options

if TYPE_CHECKING:
    from controller.cli.demo import fleet

NODE = "local"
HEARTBEAT_PERIOD = "2s"
FAILED_EXIT_CODE = 1


def up(*, output: options.Output = options.Format.TABLE) -> None:
    """Run a controller and one agent on this machine, for trying things out, until this command is ended."""
    from controller.cli.demo import process

    root = Path(tempfile.mkdtemp(prefix="instar-"))
    try:
        with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
            asyncio.run(_up(root, output))
    except process.ProcessError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILED_EXIT_CODE) from error
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def _up(root: Path, output: options.Format) -> None:
    from controller.cli.demo import fleet

    running = asyncio.current_task()
    assert running is not None  # noqa: S101  # a coroutine that runs is in a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    controller = fleet.Controller(root / "controller", None, HEARTBEAT_PERIOD, has_tls=True)
    node = fleet.Node(NODE, root / "n", controller)
    async with contextlib.AsyncExitStack() as started:
        started.push_async_callback(controller.stop)
        await controller.start()
        await node.enrol()
        started.push_async_callback(node.stop)
        await node.start()
        _say(controller, node, output)
        await _ended(controller, node)


async def _ended(controller: fleet.Controller, node: fleet.Node) -> None:
    """Wait for whichever ends first, which nobody has asked for."""
    from controller.cli.demo import process

    ends = [asyncio.ensure_future(each.ended()) for each in (controller.running, node.keeper)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for each in ends:
        each.cancel()
    raise process.ProcessError("cannot go on: the controller or the agent has ended")


def _say(controller: fleet.Controller, node: fleet.Node, output: options.Format) -> None:
    from controller.cli import document

    place = {
        "controller": controller.address,
        "enrol": controller.enrol_address,
        "state_dir": str(controller.state_dir),
        "node_id": node.id,
        "node_config": str(node.config_file),
        "component_address": f"127.0.0.1:{node.port}",
    }
    if output is options.Format.JSON:
        document.write(place)
        return
    typer.echo(f"""\
controller at {controller.address}; nodes come in at {controller.enrol_address}
node {node.id}, its configuration in {node.config_file}; its component web listens on 127.0.0.1:{node.port}
in another terminal:
  export INSTAR_CONTROLLER={controller.address} INSTAR_STATE_DIR={controller.state_dir}
  instar node list
all of it is gone when this command ends""")
