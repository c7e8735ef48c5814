"""`instar rollout`: look at rollouts, follow them, lead them, and ask why they stand as they do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller.cli import options

app = typer.Typer(no_args_is_help=True, help="Look at rollouts, follow them, lead them, take them back.")


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
    rollout: options.Rollout,
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
    rollout: options.Rollout,
    *,
    exit_on_pause: options.ExitOnPause = False,
    timeout: options.Timeout = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Follow a rollout to its end; the exit code tells how it ended."""
    from controller.cli import watching

    wish = watching.Wish(timeout, output, ends_on_pause=exit_on_pause)
    raise typer.Exit(watching.follow(controller, token_file, rollout, wish))


def _verb(verb: str, text: str) -> None:
    """Declare the command of one verb."""

    def run(
        rollout: options.Rollout,
        *,
        reason: options.Reason,
        controller: options.Controller = options.CONTROLLER_DEFAULT,
        token_file: options.TokenFile = None,
        output: options.Output = options.Format.TABLE,
    ) -> None:
        from controller.cli import connection, watching
        from instar.v1 import rollout_service_pb2

        name = f"{verb.capitalize()}Rollout"
        request = getattr(rollout_service_pb2, f"{name}Request")(rollout=rollout, reason=reason)
        watching.show(connection.answer(controller, token_file, f"rollouts.{name}", request).rollout, output)

    app.command(verb, help=text)(run)


_verb("pause", "Start nothing more, and stop every clock; what is under way on a node goes on.")
_verb("resume", "Go on where a pause began.")
_verb("promote", "Let the next wave begin now, whatever it still waits for by policy.")
_verb("cancel", "End it where it stands: what can still be given up is, what is done stays.")
_verb("revert", "Take every touched node back; returns when the controller has accepted it.")
_verb("retry", "Try the changes that failed again, and no others.")


@app.command()
def explain(
    rollout: options.Rollout,
    *,
    node: Annotated[str, typer.Option("--node", help="Say it of this node.")] = "",
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Say why a rollout stands as it does, or why a node of it does."""
    from controller.cli import connection, document, judging_tables, tables
    from instar.v1 import rollout_service_pb2

    request = rollout_service_pb2.ExplainRolloutRequest(rollout=rollout, node_id=node)
    answer = connection.answer(controller, token_file, "rollouts.ExplainRollout", request)
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    for line in tables.reasons(answer.reasons):
        typer.echo(line)
    if answer.HasField("judging"):
        for line in judging_tables.evidence(answer.judging):
            typer.echo(line)


@app.command()
def analysis(
    rollout: options.Rollout,
    *,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw canary against control over time.")
    ] = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show how the canary of a rollout is judged, or was, metric by metric."""
    from controller.cli import connection, document, judging_tables, tables
    from instar.v1 import rollout_service_pb2

    request = rollout_service_pb2.GetAnalysisRequest(rollout=rollout)
    answer = connection.answer(controller, token_file, "rollouts.GetAnalysis", request)
    if plot is not None:
        from controller.cli import plotting

        plotting.draw(answer, plot)
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    tables.show(judging_tables.analysis(answer))
    if plot is not None:
        typer.echo(f"drawn: {plot}")
