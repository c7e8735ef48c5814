"""`instar release graph`: what is declared of the ways between the releases of a component."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options

if TYPE_CHECKING:
    from instar.v1 import release_pb2

app = typer.Typer(no_args_is_help=True, help="Show and declare which release may follow which.")


def print_graph(graph: release_pb2.VersionGraph, output: options.Format) -> None:
    """Print a graph on stdout."""
    from controller.cli import document, tables

    if output is options.Format.JSON:
        document.write(document.of(graph))
        return
    tables.show(tables.edges(graph.edges))
    if graph.barriers:
        tables.show(tables.barriers(graph.barriers))
    if graph.channels:
        tables.show(tables.channels(graph.channels))


@app.command()
def show(
    component: Annotated[str, typer.Argument(help="Name of the component.")],
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show edges, barriers and channels; a version without edges is reached from every lower one."""
    from controller.cli import connection
    from instar.v1 import release_service_pb2

    request = release_service_pb2.GetGraphRequest(component=component)
    print_graph(connection.answer(controller, token_file, "releases.GetGraph", request).graph, output)


@app.command("set")
def set_graph(
    file: Annotated[Path, typer.Argument(help="JSON, or TOML where its name ends so, as `show -o json` prints it.")],
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Declare the edges and barriers of a component, in the place of those before; channels stay."""
    from controller.cli import connection, files
    from instar.v1 import release_service_pb2

    request = release_service_pb2.PutGraphRequest(graph=files.read_graph(file))
    print_graph(connection.answer(controller, token_file, "releases.PutGraph", request).graph, output)
