"""`instar node`: look at the nodes, and make the token that an agent shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from controller.cli import options

app = typer.Typer(no_args_is_help=True, help="Look at the nodes, and make their tokens.")


@app.command("list")
def list_nodes(
    *,
    selector: Annotated[
        str, typer.Option("--selector", "-l", help="Label selector, for example zone=a,tier!=test.")
    ] = "",
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """List the nodes."""
    from controller.cli import connection, document, tables
    from instar.v1 import fleet_service_pb2

    request = fleet_service_pb2.ListNodesRequest(selector=selector)
    answer = connection.answer(controller, token_file, "fleet.ListNodes", request)
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    tables.show(tables.nodes(answer.nodes))


@app.command()
def show(
    node: Annotated[str, typer.Argument(help="Identity of the node.")],
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show one node: its components, instances, conditions and metrics."""
    from controller.cli import connection, document, tables
    from instar.v1 import fleet_service_pb2

    request = fleet_service_pb2.GetNodeRequest(node_id=node)
    answer = connection.answer(controller, token_file, "fleet.GetNode", request)
    if output is options.Format.JSON:
        document.write(document.of(answer.node))
        return
    tables.show(tables.nodes([answer.node]))
    tables.show(tables.components(answer.node.components))
    if answer.node.conditions:
        tables.show(tables.conditions(answer.node.conditions))
    tables.show(tables.metrics(answer.node.metrics))


@app.command()
def token(
    node: Annotated[str, typer.Argument(help="Identity of the node.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="File to write the token to; only its owner can read it.")],
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Make the token of a node's agent, on the machine of the controller; one made before ends."""
    from controller.cli import document
    from controller.config import settings
    from controller.rpc import principals

    loaded = settings.load({"state_dir": str(state_dir) if state_dir else None}, os.environ, None)
    register = principals.Register(loaded.principals_file)
    made = register.make_token(principals.Principal(principals.Kind.AGENT, node))
    principals.write_private(out, f"{made}\n")
    if output is options.Format.JSON:
        document.write({"node_id": node, "token_file": str(out)})
        return
    typer.echo(f"token of {node} in {out}")
