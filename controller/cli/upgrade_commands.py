"""`instar upgrade`: see what an upgrade would do, save that, and start it.

Both commands ask the same thing, so what they ask is declared once, as the fields of `Options`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import asking, options

if TYPE_CHECKING:
    from instar.v1 import rollout_pb2, rollout_service_pb2

app = typer.Typer(no_args_is_help=True, help="Plan and start upgrades.")
_COMPONENT_HELP = "Component to change."
_VERSION_HELP = "Version that the nodes shall run, or the name of a channel."


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(asking.Asked):
    """What an upgrade is asked for with, but for what and where to."""

    install: Annotated[bool, typer.Option("--install", help="Install the component where it is missing.")] = False
    restart_allowed: Annotated[
        bool, typer.Option("--restart-allowed", help="Restart where a hot swap is not possible.")
    ] = False
    discard_writes: Annotated[
        bool,
        typer.Option("--discard-writes", help="Going back may drop what was written since to a newer state schema."),
    ] = False
    downgrade_allowed: Annotated[
        bool, typer.Option("--downgrade-allowed", help="The version may be lower than what runs.")
    ] = False
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="COMPONENT=VERSION", help="Change this one by the same rollout; may repeat."),
    ] = None

    def message(self, component: str, version: str) -> rollout_pb2.UpgradeRequest:
        """The request for the controller.

        Raises:
            CommandError: An option cannot be read.
        """
        request = self.request()
        request.component, request.target_version = component, version
        request.install, request.downgrade_allowed = self.install, self.downgrade_allowed
        for text in self.also or ():
            _put_target(request, text)
        return request


def _put_target(request: rollout_pb2.UpgradeRequest, text: str) -> None:
    from controller.cli import failures

    component, _, version = text.partition("=")
    if not component or not version:
        raise failures.usage("--also", text, "COMPONENT=VERSION, for example db=2.1.0")
    request.also.add(component=component, version=version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned(Options):
    """What a plan is asked for with."""

    component: Annotated[str, typer.Argument(help=_COMPONENT_HELP)]
    version: Annotated[str, typer.Argument(help=_VERSION_HELP)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Options):
    """What an upgrade is started with; a saved plan says all of it."""

    component: Annotated[str, typer.Argument(help=_COMPONENT_HELP)] = ""
    version: Annotated[str, typer.Argument(help=_VERSION_HELP)] = ""


@app.command()
@asking.options(Planned)
def plan(
    asked: Planned,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to save the plan to, for `instar upgrade start --plan`.")
    ] = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit code 10 where something would change.")
    ] = False,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show what an upgrade would do; nothing changes."""
    from controller.cli import connection, document, failures, files, plan_tables
    from instar.v1 import rollout_service_pb2

    request = asked.message(asked.component, asked.version)
    message = rollout_service_pb2.PlanUpgradeRequest(upgrade=request)
    found = connection.answer(controller, token_file, "rollouts.PlanUpgrade", message).plan
    if out is not None:
        files.write_plan(out, request, found)
    if output is options.Format.JSON:
        document.write(document.of(found))
    else:
        plan_tables.show(found)
        if out is not None:
            typer.echo(f"saved: {out}")
    if detailed_exitcode and found.waves:
        raise typer.Exit(failures.Exit.HAS_CHANGES)


@app.command()
@asking.options(Started)
def start(  # noqa: PLR0913  # each is an option
    asked: Started,
    *,
    saved: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Apply a saved plan exactly, instead of COMPONENT and VERSION."),
    ] = None,
    request_id: options.RequestId = None,
    watch: options.Watch = False,
    exit_on_pause: options.ExitOnPause = False,
    timeout: options.Timeout = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Start an upgrade; returns when the controller has accepted it."""
    from controller.cli import watching

    message = _fresh(asked) if saved is None else _saved(asked, saved)
    message.request_id = request_id or ""
    watching.start(controller, token_file, message, watching.Wish(timeout, output, watch, exit_on_pause))


def _fresh(asked: Started) -> rollout_service_pb2.StartUpgradeRequest:
    """Whatever plan the fleet gives now."""
    from controller.cli import failures
    from instar.v1 import rollout_service_pb2

    for name, value in (("COMPONENT", asked.component), ("VERSION", asked.version)):
        if not value:
            raise failures.usage(name, value, "given, or a saved plan with --plan")
    return rollout_service_pb2.StartUpgradeRequest(upgrade=asked.message(asked.component, asked.version))


def _saved(asked: Started, file: Path) -> rollout_service_pb2.StartUpgradeRequest:
    """The plan in a file, which says all that is asked for."""
    from controller.cli import failures, files
    from instar.v1 import rollout_service_pb2

    if others := asked.given():
        raise failures.usage("--plan", str(file), f"without {others[0]}: the file says all that is asked for")
    request, found = files.read_plan(file)
    return rollout_service_pb2.StartUpgradeRequest(upgrade=request, plan=found)
