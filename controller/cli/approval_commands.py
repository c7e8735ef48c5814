"""`instar approval`: see what waits for somebody's word, and give or deny it."""

from __future__ import annotations

from typing import Annotated

import typer

from controller.cli import options

app = typer.Typer(no_args_is_help=True, help="Approve or deny rollouts that wait for it.")
_Remark = Annotated[str, typer.Option(help="Why, for the audit log.")]


@app.command("list")
def list_approvals(
    *,
    decided: Annotated[bool, typer.Option("--all", help="Also those that were decided, expired or withdrawn.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """List what waits for an approval, newest first."""
    from controller.cli import connection, document, tables
    from instar.v1 import rollout_service_pb2

    request = rollout_service_pb2.ListApprovalsRequest(decided=decided, page_size=limit)
    answer = connection.answer(controller, token_file, "rollouts.ListApprovals", request)
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    tables.show(tables.approvals(answer.approvals))


def _decision(verb: str, text: str) -> None:
    """Declare the command of one decision."""

    def run(
        rollout: options.Rollout,
        *,
        reason: _Remark = "",
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


_decision("approve", "Let the rollout begin, as it was planned; somebody else than who asked for it has to do so.")
_decision("deny", "Cancel the rollout before it has begun.")
