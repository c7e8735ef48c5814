"""`instar freeze`: times in which nothing starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options

if TYPE_CHECKING:
    from instar.v1 import fleet_service_pb2

app = typer.Typer(no_args_is_help=True, help="Keep operations from starting on nodes for a time.")


@app.command()
def add(  # noqa: PLR0913  # each is an option
    *,
    reason: options.Reason,
    selector: options.Selector = "",
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="When it begins, such as 2026-12-24T17:00Z; now if left out.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="When it ends; until it is removed if left out.")
    ] = None,
    for_: Annotated[str | None, typer.Option("--for", metavar="TIME", help="How long it lasts, such as 48h.")] = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Let nothing start on nodes for a time; what is under way goes on."""
    from controller.cli import connection, document, tables
    from instar.v1 import fleet_service_pb2

    freeze = fleet_service_pb2.Freeze(selector=selector, reason=reason)
    _put_times(freeze, since, until, for_)
    request = fleet_service_pb2.AddFreezeRequest(freeze=freeze)
    answer = connection.answer(controller, token_file, "fleet.AddFreeze", request)
    if output is options.Format.JSON:
        document.write(document.of(answer.freeze))
        return
    tables.show(tables.freezes([answer.freeze]))


def _put_times(freeze: fleet_service_pb2.Freeze, since: str | None, until: str | None, span: str | None) -> None:
    from controller import clock
    from controller.cli import failures, spans

    if until is not None and span is not None:
        raise failures.usage("--for", span, "without --until: each says when it ends")
    begins = None if since is None else spans.instant("--since", since)
    if begins is not None:
        freeze.start_time.FromDatetime(begins)
    if until is not None:
        freeze.end_time.FromDatetime(spans.instant("--until", until))
    if span is not None:
        freeze.end_time.FromDatetime((begins or clock.SystemClock().now()) + spans.parse("--for", span))


@app.command("list")
def list_freezes(
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """List the freezes that are in force or to come."""
    from controller.cli import connection, document, tables
    from instar.v1 import fleet_service_pb2

    answer = connection.answer(controller, token_file, "fleet.ListFreezes", fleet_service_pb2.ListFreezesRequest())
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    tables.show(tables.freezes(answer.freezes))


@app.command()
def remove(
    freeze: Annotated[str, typer.Argument(help="Identity of the freeze.")],
    *,
    reason: options.Reason,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Lift a freeze."""
    from controller.cli import connection, document
    from instar.v1 import fleet_service_pb2

    request = fleet_service_pb2.RemoveFreezeRequest(freeze_id=freeze, reason=reason)
    connection.answer(controller, token_file, "fleet.RemoveFreeze", request)
    if output is options.Format.JSON:
        document.write({"freeze_id": freeze})
        return
    typer.echo(f"lifted: {freeze}")
