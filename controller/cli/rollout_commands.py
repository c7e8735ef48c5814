"""`instar rollout`: list, show, watch and revert rollouts."""

from __future__ import annotations

from typing import Annotated

import typer

from controller.cli import options

app = typer.Typer(no_args_is_help=True, help="Look at rollouts, follow them, take them back.")
_Rollout = Annotated[str, typer.Argument(help="Identity or name; a name finds the newest rollout that has it.")]


@app.command("list")
def list_rollouts(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """List the rollouts, newest first."""
    from controller.cli import connection, document, tables
    from instar.v1 import rollout_service_pb2

    request = rollout_service_pb2.ListRolloutsRequest(page_size=limit)
    answer = connection.answer(controller, token_file, "rollouts.ListRollouts", request)
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    tables.show(tables.rollouts(answer.rollouts))


@app.command()
def show(
    rollout: _Rollout,
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show one rollout with each of its changes."""
    from controller.cli import connection, watching
    from instar.v1 import rollout_service_pb2

    request = rollout_service_pb2.GetRolloutRequest(rollout=rollout)
    watching.show(connection.answer(controller, token_file, "rollouts.GetRollout", request).rollout, output)


@app.command()
def watch(
    rollout: _Rollout,
    *,
    timeout: options.Timeout = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Follow a rollout to its end; the exit code tells how it ended."""
    from controller.cli import watching

    raise typer.Exit(watching.follow(controller, token_file, rollout, watching.limit(timeout), output))


@app.command()
def revert(
    rollout: _Rollout,
    *,
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")],
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Take every touched node back; returns when the controller has accepted it."""
    from controller.cli import connection, watching
    from instar.v1 import rollout_service_pb2

    request = rollout_service_pb2.RevertRolloutRequest(rollout=rollout, reason=reason)
    watching.show(connection.answer(controller, token_file, "rollouts.RevertRollout", request).rollout, output)
