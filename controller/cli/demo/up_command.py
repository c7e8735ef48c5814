"""The command `instar up`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Mapping
from typing import Annotated

import typer

from controller.cli import document, options


def up(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the folder when it ends.")] = False,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Run a controller and one node on this machine until Ctrl-C, with throw-away keys, to try things out."""
    from controller.cli import failures
    from controller.cli.demo import process, up

    def ready(places: Mapping[str, str]) -> None:
        if output is options.Format.JSON:
            document.write(places)
        else:
            typer.echo("\n".join(_told(places)))

    try:
        asyncio.run(_until_stopped(up.run(keep=keep, ready=ready)))
    except process.ProcessError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(failures.Exit.FAILED) from error


async def _until_stopped(work: Coroutine[None, None, None]) -> None:
    """Do the work until SIGINT or SIGTERM, which is how it is meant to end."""
    running = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        return


def _told(places: Mapping[str, str]) -> list[str]:
    exports = [f"export {name}={value}" for name, value in places.items() if name.startswith("INSTAR_")]
    others = [f"{name}: {value}" for name, value in places.items() if not name.startswith("INSTAR_")]
    return [
        *others,
        "in another terminal:",
        *(f"  {line}" for line in exports),
        "  instar release build FOLDER -o web.tar && instar release sign web.tar && instar release publish web.tar",
        "  instar upgrade start web VERSION --install --watch",
        "Ctrl-C ends all of it",
    ]
