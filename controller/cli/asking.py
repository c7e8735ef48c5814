"""What a rollout is asked for with: options that several commands share, declared once as the fields of a dataclass.

Rules kept here: what was not given is left out of the request, so that the controller's own default counts; words are
read once, here, and an unknown one is refused with those that there are. Left out: which commands there are.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import Enum, unique
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from instar.v1 import rollout_pb2


@unique
class Strategy(Enum):
    """The strategies, as they are written on the command line."""

    IMMEDIATE = "immediate"
    ROLLING = "rolling"
    GRADUAL = "gradual"
    CANARY = "canary"
    BLUE_GREEN = "blue-green"


@unique
class Level(Enum):
    """How much of a request may be wrong."""

    STRICT = "strict"
    NORMAL = "normal"
    PERMISSIVE = "permissive"


@unique
class Offline(Enum):
    """What becomes of nodes that are not connected."""

    WAIT = "wait"
    SKIP = "skip"
    EXPIRE = "expire"


@unique
class Join(Enum):
    """What becomes of nodes that appear later."""

    IGNORE = "ignore"
    INCLUDE = "include"


@unique
class Conflict(Enum):
    """What becomes of the request where another rollout has some of its nodes."""

    REJECT = "reject"
    QUEUE = "queue"
    SUPERSEDE = "supersede"


_COUNT_MAX = (1 << 32) - 1  # what the message holds
_PRIORITY_MAX = (1 << 31) - 1
_PREFIXES = {Offline: "OFFLINE_POLICY_", Join: "JOIN_POLICY_"}
_Count = Annotated[int | None, typer.Option(min=0, max=_COUNT_MAX)]
_Span = Annotated[str | None, typer.Option(metavar="TIME", help="For example 500ms, 10s, 5m or 1h.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Where and how the fleet changes; None where an option was not given.

    A field that a policy has too bears its name there.
    """

    strategy: Annotated[Strategy, typer.Option(case_sensitive=False, help="How the fleet changes.")] = Strategy.CANARY
    canary_nodes: Annotated[
        int | None, typer.Option(min=1, max=_COUNT_MAX, help="canary: nodes of the first wave.")
    ] = None
    analysis: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="canary: how it is judged by what it measures; JSON, or TOML as *.toml."),
    ] = None
    batch: Annotated[int | None, typer.Option(min=1, max=_COUNT_MAX, help="rolling: nodes of a batch.")] = None
    percents: Annotated[
        str | None, typer.Option(metavar="5,25,100", help="gradual: share that is changed after each wave.")
    ] = None
    verify: Annotated[
        str | None, typer.Option(metavar="TIME", help="blue-green: time in which all new versions serve before COMMIT.")
    ] = None
    selector: Annotated[str, typer.Option("--selector", "-l", help="Label selector, such as zone=a,tier!=test.")] = ""
    name: Annotated[str, typer.Option(help="Name of the rollout, for people.")] = ""
    level: Annotated[Level | None, typer.Option(case_sensitive=False, help="How much may be wrong; normal.")] = None
    conflict: Annotated[
        Conflict | None,
        typer.Option("--on-conflict", case_sensitive=False, help="Where another rollout has the nodes; reject."),
    ] = None
    priority: Annotated[
        int | None,
        typer.Option(min=-_PRIORITY_MAX, max=_PRIORITY_MAX, help="The highest that waits for a node is first; 0."),
    ] = None
    approval_deadline: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time within which somebody has to approve it before it begins.")
    ] = None
    never_revert: Annotated[
        bool, typer.Option("--never-revert", help="A fault of the version stops the rollout; nothing goes back.")
    ] = False
    max_parallel: _Count = None
    min_healthy_duration: _Span = None
    healthy_deadline: _Span = None
    progress_deadline: _Span = None
    unknown_deadline: _Span = None
    max_failures: _Count = None
    max_infrastructure_failures: _Count = None
    soak_duration: _Span = None
    soak_requests_min: _Count = None
    floor_percent: Annotated[
        int | None, typer.Option("--floor", min=0, max=100, help="Percent of the nodes that must stay available.")
    ] = None
    domain_label: Annotated[
        str | None, typer.Option("--domain", metavar="LABEL", help="Label that names the failure domain of a node.")
    ] = None
    domain_max_parallel: Annotated[
        int | None, typer.Option("--domain-max", min=1, max=_COUNT_MAX, help="Nodes of one domain out at once; 1.")
    ] = None
    bake_duration: Annotated[
        str | None, typer.Option("--bake", metavar="TIME", help="Time between the end of a wave and the next one.")
    ] = None
    promoted_by_hand: Annotated[
        bool, typer.Option("--promote-by-hand", help="After the first wave, wait for `instar rollout promote`.")
    ] = False
    window: Annotated[
        list[str] | None,
        typer.Option(metavar="WINDOW", help="Start only then, such as 'mon-fri 22:00+4h Europe/Berlin'; may repeat."),
    ] = None
    offline: Annotated[
        Offline | None, typer.Option(case_sensitive=False, help="Nodes that are not connected; wait.")
    ] = None
    offline_deadline: _Span = None
    join: Annotated[Join | None, typer.Option(case_sensitive=False, help="Nodes that appear later; ignore.")] = None
    deadline: _Span = None
    hold_while_firing: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help="Go no further while this rule of the monitor fires; may repeat."),
    ] = None
    revert_max_parallel: Annotated[
        int | None, typer.Option("--revert-parallel", min=0, max=_COUNT_MAX, help="Nodes that go back at once; 0: all.")
    ] = None

    def request(self) -> rollout_pb2.UpgradeRequest:
        """The request for the controller, as far as it is asked for here.

        Raises:
            CommandError: An option cannot be read, or two of them belong to different strategies.
        """
        from instar.v1 import rollout_pb2

        request = rollout_pb2.UpgradeRequest(
            selector=self.selector,
            strategy=rollout_pb2.Strategy.Value(f"STRATEGY_{self.strategy.name}"),
            policy=self._policy(),
            name=self.name,
            priority=self.priority or 0,
            never_revert=self.never_revert,
        )
        if self.level is not None:
            request.level = rollout_pb2.ValidationLevel.Value(f"VALIDATION_LEVEL_{self.level.name}")
        if self.conflict is not None:
            request.conflict = rollout_pb2.ConflictPolicy.Value(f"CONFLICT_POLICY_{self.conflict.name}")
        if self.approval_deadline is not None:
            request.approval_deadline.FromTimedelta(self._span("approval_deadline"))
        self._put_parameters(request)
        return request

    def given(self) -> tuple[str, ...]:
        """The options that were given something else than their default."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        return tuple(self._option(name) for name, value in told.items() if value != [])

    def _put_parameters(self, request: rollout_pb2.UpgradeRequest) -> None:
        from controller.cli import failures, files, spans

        options = ("canary_nodes", "analysis", "batch", "percents", "verify")
        told = [name for name in options if getattr(self, name) is not None]
        if len(told) > 1 and told != ["canary_nodes", "analysis"]:
            rule = f"without {self._option(told[0])}: each belongs to a strategy of its own"
            raise failures.usage(self._option(told[-1]), str(getattr(self, told[-1])), rule)
        if self.canary_nodes is not None:
            request.canary.nodes = self.canary_nodes
        if self.analysis is not None:
            request.canary.analysis.CopyFrom(files.read_analysis(self.analysis))
        if self.batch is not None:
            request.rolling.batch_nodes = self.batch
        if self.percents is not None:
            request.gradual.percents.extend(_percents(self.percents))
        if self.verify is not None:
            request.blue_green.verify_duration.FromTimedelta(spans.parse("--verify", self.verify))

    def _policy(self) -> rollout_pb2.Policy:
        from controller.cli import windows
        from instar.v1 import rollout_pb2

        policy = rollout_pb2.Policy(windows=[windows.parse("--window", one) for one in self.window or ()])
        for field in policy.DESCRIPTOR.fields:
            value = getattr(self, field.name, None)
            if value is None:
                continue
            if field.message_type is not None:
                getattr(policy, field.name).FromTimedelta(self._span(field.name))
            elif isinstance(value, Enum):
                setattr(policy, field.name, _PREFIXES[type(value)] + value.name)
            elif isinstance(value, list):
                getattr(policy, field.name).extend(value)
            else:
                setattr(policy, field.name, value)
        return policy

    def _span(self, name: str) -> timedelta:
        from controller.cli import spans

        return spans.parse(self._option(name), getattr(self, name))

    def _option(self, name: str) -> str:
        """How a field is written on the command line."""
        declared = get_type_hints(type(self), include_extras=True)[name].__metadata__[0]
        if isinstance(declared, typer.models.ArgumentInfo):
            return name.upper()
        words = (declared.default, *(declared.param_decls or ()))  # in an annotation, the default is the first word
        return next((word for word in words if str(word).startswith("--")), "--" + name.replace("_", "-"))


def _percents(text: str) -> list[int]:
    from controller.cli import failures

    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) <= 100 for part in parts):  # noqa: PLR2004  # of a hundred
        raise failures.usage("--percents", text, "whole percents with commas between, for example 5,25,100")
    return [int(part) for part in parts]


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
