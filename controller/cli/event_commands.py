"""`instar event`: tell the controller that something happened, as a CloudEvent."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from controller.cli import options

app = typer.Typer(no_args_is_help=True, help="Tell the controller that something happened.")


@app.callback()
def event() -> None:
    """Tell the controller that something happened."""


@app.command()
def send(  # noqa: PLR0913  # each is an option
    *,
    source: Annotated[str, typer.Option(help="Who sends it; with the id it tells events apart.")],
    type_: Annotated[str, typer.Option("--type", help="Such as com.example.build.finished.")],
    event_id: Annotated[
        str | None, typer.Option("--id", help="Of the event: one that was sent before counts once; made if left out.")
    ] = None,
    subject: Annotated[str, typer.Option(help="What it is about.")] = "",
    time: Annotated[
        str | None, typer.Option(metavar="WHEN", help="When it happened, such as 2026-12-24T17:00Z; now if left out.")
    ] = None,
    data: Annotated[str, typer.Option(metavar="JSON", help='An object, such as \'{"version": "1.2.0"}\'.')] = "{}",
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Send one event; returns when it is durable, with the firings that came of it."""
    from controller.cli import connection, document, spans
    from instar.v1 import trigger_pb2, trigger_service_pb2

    told = trigger_pb2.Event(
        source=source,
        id=secrets.token_hex(16) if event_id is None else event_id,
        spec_version="1.0",
        type=type_,
        subject=subject,
        data=data,
    )
    if time is not None:
        told.time.FromDatetime(spans.instant("--time", time))
    request = trigger_service_pb2.SendEventsRequest(events=[told])
    answer = connection.answer(controller, token_file, "triggers.SendEvents", request)
    if output is options.Format.JSON:
        document.write({"id": told.id} | document.of(answer))
        return
    word = "taken" if answer.accepted else "known already"
    typer.echo(f"{word}: {told.source} {told.id}; firings: {', '.join(answer.firing_ids) or 'none'}")
