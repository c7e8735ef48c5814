"""`instar upgrade`: see what an upgrade would do, and start it.

Both commands ask the same thing, so what they ask is declared once, as the fields of `Asked`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import asking, options

if TYPE_CHECKING:
    from instar.v1 import rollout_pb2

app = typer.Typer(no_args_is_help=True, help="Plan and start upgrades.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(asking.Asked):
    """What an upgrade is asked for with."""

    component: Annotated[str, typer.Argument(help="Component to change.")]
    version: Annotated[str, typer.Argument(help="Version that the nodes shall run.")]
    install: Annotated[bool, typer.Option("--install", help="Install the component where it is missing.")] = False
    restart_allowed: Annotated[
        bool, typer.Option("--restart-allowed", help="Restart where a hot swap is not possible.")
    ] = False
    discard_writes: Annotated[
        bool,
        typer.Option("--discard-writes", help="Going back may drop what was written since to a newer state schema."),
    ] = False

    def message(self) -> rollout_pb2.UpgradeRequest:
        """The request for the controller."""
        request = self.request()
        request.component, request.target_version, request.install = self.component, self.version, self.install
        return request


@app.command()
@asking.options(Asked)
def plan(
    asked: Asked,
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show what an upgrade would do; nothing changes."""
    from controller.cli import connection, document, tables
    from instar.v1 import rollout_service_pb2

    request = rollout_service_pb2.PlanUpgradeRequest(upgrade=asked.message())
    answer = connection.answer(controller, token_file, "rollouts.PlanUpgrade", request)
    if output is options.Format.JSON:
        document.write(document.of(answer.plan))
        return
    tables.show(tables.plan(answer.plan))
    if answer.plan.unchanged_nodes:
        typer.echo(f"unchanged: {', '.join(answer.plan.unchanged_nodes)}")


@app.command()
@asking.options(Asked)
def start(  # noqa: PLR0913  # each is an option
    asked: Asked,
    *,
    request_id: Annotated[
        str | None, typer.Option(help="Chosen by the caller: asking again with the same one starts nothing twice.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the rollout to its end; the exit code tells it.")
    ] = False,
    timeout: options.Timeout = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Start an upgrade; returns when the controller has accepted it."""
    from controller.cli import watching

    watching.start(controller, token_file, asked.message(), request_id, watching.Wish(watch, timeout, output))
