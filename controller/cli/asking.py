"""What a rollout is asked for with: options that several commands share, declared once as the fields of a dataclass.

Rules kept here: what was not given is left out of the request, so that the controller's own default counts. Left out:
which commands there are.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, unique
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from instar.v1 import rollout_pb2


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
    """Where and how the fleet changes; None where an option was not given."""

    strategy: Annotated[Strategy, typer.Option(case_sensitive=False, help="How the fleet changes.")] = Strategy.CANARY
    canary_nodes: Annotated[int | None, typer.Option(min=1, max=_COUNT_MAX, help="Nodes of the first wave.")] = None
    selector: Annotated[str, typer.Option("--selector", "-l", help="Label selector, such as zone=a,tier!=test.")] = ""
    name: Annotated[str, typer.Option(help="Name of the rollout, for people.")] = ""
    max_parallel: _Count = None
    min_healthy_duration: _Span = None
    healthy_deadline: _Span = None
    progress_deadline: _Span = None
    unknown_deadline: _Span = None
    max_failures: _Count = None
    soak_duration: _Span = None
    soak_requests_min: _Count = None

    def request(self) -> rollout_pb2.UpgradeRequest:
        """The request for the controller, as far as it is asked for here."""
        from instar.v1 import rollout_pb2

        canary = None
        if self.canary_nodes is not None:
            canary = rollout_pb2.CanaryParameters(nodes=self.canary_nodes)
        return rollout_pb2.UpgradeRequest(
            selector=self.selector,
            strategy=rollout_pb2.Strategy.Value(f"STRATEGY_{self.strategy.name}"),
            canary=canary,
            policy=self._policy(),
            name=self.name,
        )

    def _policy(self) -> rollout_pb2.Policy:
        from controller.cli import spans
        from instar.v1 import rollout_pb2

        policy = rollout_pb2.Policy()
        for field in policy.DESCRIPTOR.fields:
            value = getattr(self, field.name, None)
            if isinstance(value, str):
                option = "--" + field.name.replace("_", "-")
                getattr(policy, field.name).FromTimedelta(spans.parse(option, value))
            elif value is not None:
                setattr(policy, field.name, value)
        return policy


def options(kind: type[Asked]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, whose first argument is such a dataclass, the fields of it as options."""

    def asking(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(kind, include_extras=True) | get_type_hints(command, include_extras=True)
        own = [one for one in inspect.signature(command).parameters.values() if one.name != "asked"]
        asked = list(inspect.signature(kind).parameters.values())

        @functools.wraps(command)
        def run(**arguments: Any) -> None:  # noqa: ANN401  # typer has checked them
            command(kind(**{one.name: arguments.pop(one.name) for one in asked}), **arguments)

        parameters = [one.replace(annotation=hints[one.name], kind=one.KEYWORD_ONLY) for one in [*asked, *own]]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions have room for it
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        del run.__wrapped__  # else the signature of the command itself would be read
        return run

    return asking
