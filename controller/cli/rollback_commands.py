"""`instar rollback`: take a fleet back at once, and keep everything else from starting meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from controller.cli import watching
    from instar.v1 import rollout_service_pb2

app = typer.Typer(no_args_is_help=True, help="Take a fleet back at once.")


@app.callback()
def rollback() -> None:
    """Take a fleet back at once."""


@app.command()
def emergency(  # noqa: PLR0913  # each is an option
    *,
    reason: options.Reason,
    component: Annotated[str, typer.Option(help="Component; every one where it is left out.")] = "",
    selector: options.Selector = "",
    within: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time in which the nodes must be back; 5m.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow until the nodes are back; exit code 0 if all of them are.")
    ] = False,
    timeout: options.Timeout = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Stop everything, take the nodes back in parallel, and freeze them until `instar freeze remove`."""
    from controller.cli import connection, spans, watching
    from instar.v1 import rollout_service_pb2

    request = rollout_service_pb2.RollBackEmergencyRequest(component=component, selector=selector, reason=reason)
    if within is not None:
        request.time_limit.FromTimedelta(spans.parse("--within", within))
    wish = watching.Wish(timeout, output, is_watching=watch)
    _ = wish.limit  # wrong is to be told before anything is begun
    answer = connection.answer(controller, token_file, "rollouts.RollBackEmergency", request)
    if not watch:
        _show(answer, output)
        return
    raise typer.Exit(_followed(controller, token_file, answer, wish))


def _show(answer: rollout_service_pb2.RollBackEmergencyResponse, output: options.Format) -> None:
    from controller.cli import document, tables

    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    tables.show(tables.rollouts(answer.rollouts))
    typer.echo(f"frozen until: instar freeze remove {answer.freeze_id} --reason ...")


def _followed(
    address: str,
    token_file: Path | None,
    answer: rollout_service_pb2.RollBackEmergencyResponse,
    wish: watching.Wish,
) -> int:
    """Follow what goes back; 0 where all of it is back."""
    from controller.cli import failures, tables, watching

    watched = watching.follow_all(address, token_file, [one.rollout_id for one in answer.rollouts], wish)
    del answer.rollouts[:]
    answer.rollouts.extend(watched.seen)
    _show(answer, wish.output)
    if not watched.has_ended:
        return failures.Exit.WAIT_TIMED_OUT
    is_back = all(tables.state(one) == "REVERTED" for one in watched.seen)
    return failures.Exit.OK if is_back else failures.Exit.FAILED
