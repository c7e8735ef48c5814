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
def recover(
    node: _Node,
    *,
    reason: options.Reason,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Let a node whose certificate ran out come back by itself once more."""
    from controller.cli import connection, document
    from instar.v1 import fleet_service_pb2

    request = fleet_service_pb2.PermitRecoveryRequest(node_id=node, reason=reason)
    left = connection.answer(controller, token_file, "fleet.PermitRecovery", request).recoveries_left
    if output is options.Format.JSON:
        document.write({"node_id": node, "recoveries_left": left})
        return
    typer.echo(f"{node} may come back by itself: {left}")


@app.command()
def token(  # noqa: PLR0913  # each option of its own
    node: _Node,
    *,
    ttl: Annotated[str | None, typer.Option("--ttl", help="For so long a join token is good; at most 1h.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Without TLS: make a bearer token instead, in this file, on the machine of the controller."
        ),
    ] = None,
    state_dir: options.StateDir = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Make a join token, by which a node's agent gets its first certificate, once; or with --out a bearer token."""
    from controller.cli import document, failures

    if out is None:
        _join_token(node, ttl, controller, token_file, output)
        return
    if ttl is not None:
        raise failures.usage("--ttl", ttl, "left out with --out: a bearer token is good until another one is made")
    _bearer_token(node, out, state_dir)
    if output is options.Format.JSON:
        document.write({"node_id": node, "token_file": str(out)})
        return
    typer.echo(f"token of {node} in {out}")


def _join_token(node: str, ttl: str | None, controller: str, token_file: Path | None, output: options.Format) -> None:
    from controller.cli import connection, document, spans
    from instar.v1 import fleet_service_pb2

    request = fleet_service_pb2.MakeJoinTokenRequest(node_id=node)
    if ttl is not None:
        request.lifetime.FromTimedelta(spans.parse("--ttl", ttl))
    made = connection.answer(controller, token_file, "fleet.MakeJoinToken", request)
    if output is options.Format.JSON:
        until = made.expire_time.ToJsonString()
        document.write({"node_id": node, "token": made.token, "expires_at": until})
        return
    typer.echo(made.token)


def _bearer_token(node: str, out: Path, state_dir: Path | None) -> None:
    from controller.cli import failures
    from controller.config import settings
    from controller.rpc import principals, register
    from controller.trust import clients, private_files

    loaded = settings.load({"state_dir": str(state_dir) if state_dir else None}, os.environ, None)
    if (loaded.operator_certificate_dir / clients.CERTIFICATE_NAME).exists():
        raise failures.usage(
            "--out", str(out), "left out: this controller speaks TLS, where bearer tokens count nothing"
        )
    made = register.Register(loaded.principals_file).make_token(principals.Principal(principals.Kind.AGENT, node))
    private_files.write(out, f"{made.reveal()}\n")
