"""`instar node`: look at the nodes, decide what becomes of them, and make the token that an agent shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli import options

if TYPE_CHECKING:
    from instar.v1 import fleet_service_pb2

app = typer.Typer(no_args_is_help=True, help="Look at the nodes, decide what becomes of them, make their tokens.")
_Node = Annotated[str, typer.Argument(help="Identity of the node.")]


@app.command("list")
def list_nodes(
    *,
    selector: options.Selector = "",
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
    node: _Node,
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
def label(
    node: _Node,
    labels: Annotated[list[str], typer.Argument(metavar="KEY=VALUE|KEY-", help="To set, or to take away.")],
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Set labels over those of the node's own configuration, or take labels away."""
    _decide(controller, token_file, "LabelNode", _labels(node, labels), output)


def _labels(node: str, texts: list[str]) -> fleet_service_pb2.LabelNodeRequest:
    from controller.cli import failures
    from instar.v1 import fleet_service_pb2

    request = fleet_service_pb2.LabelNodeRequest(node_id=node)
    for text in texts:
        key, equals, value = text.partition("=")
        if equals:
            request.labels[key] = value
        elif text.endswith("-"):
            request.removed_keys.append(text.removesuffix("-"))
        else:
            raise failures.usage("LABELS", text, "KEY=VALUE to set it, or KEY- to take it away")
    return request


@app.command()
def cordon(
    node: _Node,
    *,
    reason: options.Reason,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Give a node no operations; it counts as unavailable."""
    from instar.v1 import fleet_service_pb2

    request = fleet_service_pb2.CordonNodeRequest(node_id=node, reason=reason)
    _decide(controller, token_file, "CordonNode", request, output)


@app.command()
def uncordon(
    node: _Node,
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """End the cordon of a node, and its quarantine."""
    from instar.v1 import fleet_service_pb2

    _decide(controller, token_file, "UncordonNode", fleet_service_pb2.UncordonNodeRequest(node_id=node), output)


@app.command()
def quarantine(
    node: _Node,
    *,
    reason: options.Reason,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Leave a node that is not trusted out of everything that is planned."""
    from instar.v1 import fleet_service_pb2

    request = fleet_service_pb2.QuarantineNodeRequest(node_id=node, reason=reason)
    _decide(controller, token_file, "QuarantineNode", request, output)


def _decide(controller: str, token_file: Path | None, method: str, request: object, output: options.Format) -> None:
    """Ask for a decision on a node, and print the node as it is then."""
    from controller.cli import connection, document, tables

    answer: Any = connection.answer(controller, token_file, f"fleet.{method}", request)
    if output is options.Format.JSON:
        document.write(document.of(answer.node))
        return
    tables.show(tables.nodes([answer.node]))


@app.command()
def remove(
    node: _Node,
    *,
    reason: options.Reason,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Forget a node; rollouts do not wait for it any longer."""
    from controller.cli import connection, document
    from instar.v1 import fleet_service_pb2

    request = fleet_service_pb2.RemoveNodeRequest(node_id=node, reason=reason)
    connection.answer(controller, token_file, "fleet.RemoveNode", request)
    if output is options.Format.JSON:
        document.write({"node_id": node})
        return
    typer.echo(f"removed: {node}")


@app.command()
def explain(
    node: _Node,
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Say why a node is as it is."""
    from controller.cli import connection, document, tables
    from instar.v1 import fleet_service_pb2

    request = fleet_service_pb2.ExplainNodeRequest(node_id=node)
    answer = connection.answer(controller, token_file, "fleet.ExplainNode", request)
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    for line in tables.reasons(answer.reasons):
        typer.echo(line)


@app.command()
def token(
    node: _Node,
    *,
    out: Annotated[Path, typer.Option("--out", help="File to write the token to; only its owner can read it.")],
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Make the token of a node's agent, on the machine of the controller; one made before ends."""
    from controller.cli import document
    from controller.config import settings
    from controller.rpc import principals, register

    loaded = settings.load({"state_dir": str(state_dir) if state_dir else None}, os.environ, None)
    made = register.Register(loaded.principals_file).make_token(principals.Principal(principals.Kind.AGENT, node))
    register.write_private(out, f"{made.reveal()}\n")
    if output is options.Format.JSON:
        document.write({"node_id": node, "token_file": str(out)})
        return
    typer.echo(f"token of {node} in {out}")
