"""The command `instar demo`."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import asking, options

if TYPE_CHECKING:
    from controller.cli.demo import report

FAILED_EXIT_CODE = 1  # something that should have held did not
REPLICAS_MAX = 5
NODES_MAX = 50  # more than that, on one machine, measures the machine


def demo(  # noqa: PLR0913  # each is an option
    nodes: Annotated[int, typer.Option(min=1, max=NODES_MAX, help="Number of nodes.")] = 5,
    strategy: Annotated[asking.Strategy, typer.Option(help="How the fleet changes.")] = asking.Strategy.CANARY,
    *,
    bad: Annotated[bool, typer.Option("--bad", help="Go on to a release that has to be undone.")] = False,
    self_upgrade: Annotated[
        bool, typer.Option("--self-upgrade", help="Go on to two releases of the agent itself.")
    ] = False,
    replicas: Annotated[
        int, typer.Option(min=1, max=REPLICAS_MAX, help="Number of controllers; several share a database.")
    ] = 1,
    kill_controller: Annotated[
        bool, typer.Option("--kill-controller", help="Kill the controller that leads in the middle of the upgrade.")
    ] = False,
    store_url: Annotated[
        str,
        typer.Option(
            envvar="INSTAR_STORE_URL",
            help="A database of PostgreSQL, empty and to be thrown away; else a file, or a server of its own.",
            show_default=False,
        ),
    ] = "",
    output: options.Output = options.Format.TABLE,
) -> None:
    """Upgrade a live service under load, on this machine: controller, agents and service as separate processes."""
    from controller.cli.demo import process, scenario
    from controller.core import secret
    from instar.v1 import rollout_pb2

    wanted = scenario.Options(
        nodes=nodes,
        strategy=rollout_pb2.Strategy.Value(f"STRATEGY_{strategy.name}"),
        is_bad=bad,
        is_self_upgrade=self_upgrade,
        replicas=replicas,
        kills_controller=kill_controller,
        store_url=secret.Secret(store_url),
    )
    began_seconds = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began_seconds:6.1f} s  {line}", file=sys.stderr, flush=True)  # noqa: T201 progress

    try:
        found = asyncio.run(_run(scenario.run(wanted, say)))
    except asyncio.CancelledError as error:
        raise typer.Abort from error
    except process.ProcessError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILED_EXIT_CODE) from error
    typer.echo(found.as_json() if output is options.Format.JSON else found.as_text())
    for fault in found.faults:
        typer.echo(f"did not hold: {fault}", err=True)
    if found.faults:
        raise typer.Exit(FAILED_EXIT_CODE)


async def _run(work: Coroutine[None, None, report.Report]) -> report.Report:
    """Do the work; SIGTERM gives it up, and what it has started is stopped first."""
    running = asyncio.current_task()
    assert running is not None  # noqa: S101 a coroutine that runs is in a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await work
