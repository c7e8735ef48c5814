"""`instar fleet`: the fleet as a whole."""

from __future__ import annotations

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
