"""`instar fleet`: the fleet as a whole."""

from __future__ import annotations

from typing import Annotated

import typer

from controller.cli import options

app = typer.Typer(no_args_is_help=True, help="The fleet as a whole.")


@app.callback()
def fleet() -> None:
    """The fleet as a whole."""


@app.command()
def stats(
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Count the work of the fleet."""
    from controller.cli import connection, document, tables
    from instar.v1 import fleet_service_pb2

    request = fleet_service_pb2.GetStatisticsRequest()
    found = connection.answer(controller, token_file, "fleet.GetStatistics", request).statistics
    if output is options.Format.JSON:
        document.write(document.of(found))
        return
    tables.show(tables.statistics(found))


@app.command()
def rules(
    *,
    rule: Annotated[str, typer.Option(metavar="NAME", help="This rule alone.")] = "",
    node: Annotated[str, typer.Option(metavar="ID", help="This node alone.")] = "",
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show the rules of the monitor, and where one fires, is about to, or is unknown."""
    from controller.cli import connection, document, tables
    from instar.v1 import fleet_service_pb2

    request = fleet_service_pb2.ListRuleStatesRequest(rule=rule, node_id=node)
    found = connection.answer(controller, token_file, "fleet.ListRuleStates", request)
    if output is options.Format.JSON:
        document.write(document.of(found))
        return
    tables.show(tables.rules(found))
    tables.show(tables.standings(found.standings))
    if found.left_out:
        typer.echo(f"and {found.left_out} more")
    if not found.HasField("look_time"):
        typer.echo("nobody has looked yet since the controller is up: every rule is unknown")
