"""`instar component`: start, stop, restart and remove what is installed, and read what it wrote.

The first four are rollouts like any other, so that budgets, waves and the exit codes of a watch are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from controller.cli import asking, options

app = typer.Typer(no_args_is_help=True, help="Start, stop, restart and remove components, and read their logs.")

_LOG_BYTES_MAX = 64 << 10  # what a node sends at most
_LINES_MAX = 10_000  # more than so many bytes can hold, as logs are


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(asking.Asked):
    """What a change of a component is asked for with."""

    component: Annotated[str, typer.Argument(help="Component to change.")]


def _command(kind: str, text: str) -> None:
    """Declare the command of one kind."""

    def run(  # noqa: PLR0913  # each is an option
        asked: Asked,
        *,
        request_id: options.RequestId = None,
        watch: options.Watch = False,
        exit_on_pause: options.ExitOnPause = False,
        timeout: options.Timeout = None,
        controller: options.Controller = options.CONTROLLER_DEFAULT,
        token_file: options.TokenFile = None,
        output: options.Output = options.Format.TABLE,
    ) -> None:
        from controller.cli import watching
        from instar.v1 import operation_pb2, rollout_service_pb2

        request = asked.request()
        request.component = asked.component
        request.kind = operation_pb2.ChangeKind.Value(f"CHANGE_KIND_{kind.upper()}")
        message = rollout_service_pb2.StartUpgradeRequest(upgrade=request, request_id=request_id or "")
        watching.start(controller, token_file, message, watching.Wish(timeout, output, watch, exit_on_pause))

    app.command(kind, help=text)(asking.options(Asked)(run))


_command("start", "Start what was stopped; returns when the controller has accepted it.")
_command("stop", "Stop a component until it is started again, also over a boot.")
_command("restart", "Begin the version that runs anew, in another instance.")
_command("remove", "Take a component from its nodes.")


@app.command()
def logs(
    component: Annotated[str, typer.Argument(help="Component that wrote it.")],
    *,
    node: Annotated[str, typer.Option("--node", help="Identity of the node; it must be connected.")],
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=1, max=_LINES_MAX, help="The last so many lines only.")
    ] = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show the end of what a component wrote on one node."""
    from controller.cli import connection, document
    from instar.v1 import fleet_service_pb2

    max_bytes = _LOG_BYTES_MAX if lines else 0
    request = fleet_service_pb2.ReadLogRequest(node_id=node, component=component, max_bytes=max_bytes)
    answer = connection.answer(controller, token_file, "fleet.ReadLog", request)
    if lines:
        answer.text = "".join(answer.text.splitlines(keepends=True)[-lines:])
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    typer.echo(answer.text, nl=not answer.text.endswith("\n"))
