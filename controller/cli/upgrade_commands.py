"""`instar upgrade`: see what an upgrade would do, and start it.

Both commands ask the same thing, so what they ask is declared once, as the fields of `Asked`.
"""

from __future__ import annotations

import functools
import inspect
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, unique
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from controller.cli import options

if TYPE_CHECKING:
    from instar.v1 import rollout_pb2

app = typer.Typer(no_args_is_help=True, help="Plan and start upgrades.")


@unique
class Strategy(Enum):
    """The strategies, as they are written on the command line."""

    IMMEDIATE = "immediate"
    CANARY = "canary"


_COUNT_MAX = (1 << 32) - 1  # what the message holds
_Count = Annotated[int | None, typer.Option(min=0, max=_COUNT_MAX)]
_Span = Annotated[str | None, typer.Option(metavar="TIME", help="For example 500ms, 10s, 5m or 1h.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an upgrade is asked for with; None where an option was not given."""

    component: Annotated[str, typer.Argument(help="Component to change.")]
    version: Annotated[str, typer.Argument(help="Version that the nodes shall run.")]
    strategy: Annotated[Strategy, typer.Option(case_sensitive=False, help="How the fleet changes.")] = Strategy.CANARY
    canary_nodes: Annotated[int | None, typer.Option(min=1, max=_COUNT_MAX, help="Nodes of the first wave.")] = None
    selector: Annotated[str, typer.Option("--selector", "-l", help="Label selector, such as zone=a,tier!=test.")] = ""
    install: Annotated[bool, typer.Option("--install", help="Install the component where it is missing.")] = False
    name: Annotated[str, typer.Option(help="Name of the rollout, for people.")] = ""
    max_parallel: _Count = None
    min_healthy_duration: _Span = None
    healthy_deadline: _Span = None
    progress_deadline: _Span = None
    unknown_deadline: _Span = None
    max_failures: _Count = None
    soak_duration: _Span = None
    soak_requests_min: _Count = None

    def message(self) -> rollout_pb2.UpgradeRequest:
        """The request for the controller."""
        from instar.v1 import rollout_pb2

        canary = None
        if self.canary_nodes is not None:
            canary = rollout_pb2.CanaryParameters(nodes=self.canary_nodes)
        return rollout_pb2.UpgradeRequest(
            component=self.component,
            target_version=self.version,
            selector=self.selector,
            strategy=rollout_pb2.Strategy.Value(f"STRATEGY_{self.strategy.name}"),
            canary=canary,
            policy=self._policy(),
            install=self.install,
            name=self.name,
        )

    def _policy(self) -> rollout_pb2.Policy:
        from controller.cli import spans
        from instar.v1 import rollout_pb2

        policy = rollout_pb2.Policy()
        for field in policy.DESCRIPTOR.fields:
            value = getattr(self, field.name)
            if isinstance(value, str):
                option = "--" + field.name.replace("_", "-")
                getattr(policy, field.name).FromTimedelta(spans.parse(option, value))
            elif value is not None:
                setattr(policy, field.name, value)
        return policy


def _asking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose first argument is an `Asked`, the fields of it as options."""
    hints = get_type_hints(Asked, include_extras=True) | get_type_hints(command, include_extras=True)
    own = [one for one in inspect.signature(command).parameters.values() if one.name != "asked"]
    asked = list(inspect.signature(Asked).parameters.values())

    @functools.wraps(command)
    def run(**arguments: Any) -> None:  # noqa: ANN401  # typer has checked them
        command(Asked(**{one.name: arguments.pop(one.name) for one in asked}), **arguments)

    parameters = [one.replace(annotation=hints[one.name], kind=one.KEYWORD_ONLY) for one in [*asked, *own]]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions have room for it
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    del run.__wrapped__  # else the signature of the command itself would be read
    return run


@app.command()
@_asking
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
@_asking
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
    from controller.cli import connection, watching
    from instar.v1 import rollout_service_pb2

    limit = watching.limit(timeout)
    request = rollout_service_pb2.StartUpgradeRequest(
        upgrade=asked.message(), request_id=request_id or secrets.token_hex(16)
    )
    answer = connection.answer(controller, token_file, "rollouts.StartUpgrade", request)
    if not watch:
        watching.show(answer.rollout, output)
        return
    raise typer.Exit(watching.follow(controller, token_file, answer.rollout.rollout_id, limit, output))
