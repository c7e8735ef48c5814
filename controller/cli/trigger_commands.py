"""`instar trigger`: rules by which the fleet is changed or somebody told; what they do, and why they do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options

if TYPE_CHECKING:
    from datetime import datetime

    from controller.cli import failures, trigger_files
    from controller.core import errors
    from instar.v1 import trigger_pb2

app = typer.Typer(no_args_is_help=True, help="Define what fires by itself, see what it does, and why it does nothing.")
_FILE_HELP = "Triggers, in TOML as *.toml, else in JSON."
_Name = Annotated[str, typer.Argument(metavar="TRIGGER", help="Name of the trigger.")]
_Firing = Annotated[str, typer.Argument(metavar="FIRING", help="Identity of the firing.")]


@app.command()
def apply(
    *,
    file: Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help=_FILE_HELP)],
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Make the triggers of a file, or replace those of their names; nothing is sent of a file that cannot be read."""
    from controller.cli import connection, document, failures, tables, trigger_files, trigger_tables
    from instar.v1 import trigger_service_pb2

    applied, sentences = [], list[str]()
    for found in trigger_files.read(file):
        request = trigger_service_pb2.ApplyTriggerRequest(trigger=found.trigger)
        try:
            applied.append(connection.answer(controller, token_file, "triggers.ApplyTrigger", request).trigger)
        except failures.CommandError as error:
            if error.exit_code is not failures.Exit.REFUSED or error.error is None:
                raise
            sentences += found.sentences(_problems(error.error))
    if output is options.Format.JSON:
        document.write({"triggers": [trigger_files.shown(one) for one in applied]})
    else:
        tables.show(trigger_tables.applied(applied))
    if sentences:
        raise trigger_files.refusal(file, sentences, failures.Exit.REFUSED)


def _problems(error: errors.InstarError) -> tuple[errors.InstarError, ...]:
    from controller.core import errors

    return error.problems if isinstance(error, errors.InvalidFieldsError) else (error,)


@app.command("list")
def list_triggers(
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """List the triggers by name, and how they stand."""
    from controller.cli import connection, document, tables, trigger_tables
    from instar.v1 import trigger_service_pb2

    request = trigger_service_pb2.ListTriggersRequest()
    answer = connection.answer(controller, token_file, "triggers.ListTriggers", request)
    if output is options.Format.JSON:
        document.write({"triggers": [_document(one) for one in answer.triggers]})
        return
    tables.show(trigger_tables.triggers(answer.triggers))


def _document(told: trigger_pb2.TriggerView) -> dict[str, object]:
    from controller.cli import document, trigger_files

    return trigger_files.shown(told.trigger) | {trigger_files.STATUS: document.of(told.status)}


@app.command()
def show(
    name: _Name,
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show a trigger as it is defined, and how it stands."""
    from controller.cli import connection, document, tables, trigger_tables
    from instar.v1 import trigger_service_pb2

    request = trigger_service_pb2.GetTriggerRequest(name=name)
    answer = connection.answer(controller, token_file, "triggers.GetTrigger", request)
    if output is options.Format.JSON:
        document.write(_document(answer.trigger))
        return
    tables.show(trigger_tables.view(answer.trigger))


@app.command()
def remove(
    name: _Name,
    *,
    reason: options.Reason,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Forget a trigger; its firings are kept."""
    from controller.cli import connection, document
    from instar.v1 import trigger_service_pb2

    request = trigger_service_pb2.RemoveTriggerRequest(name=name, reason=reason)
    connection.answer(controller, token_file, "triggers.RemoveTrigger", request)
    if output is options.Format.JSON:
        document.write({"name": name})
        return
    typer.echo(f"removed: {name}")


def _switch(verb: str, text: str) -> None:
    """Declare the command that lets a trigger fire, or not."""

    def run(
        name: _Name,
        *,
        reason: options.Reason,
        controller: options.Controller = options.CONTROLLER_DEFAULT,
        token_file: options.TokenFile = None,
        output: options.Output = options.Format.TABLE,
    ) -> None:
        from controller.cli import connection, document, tables, trigger_files, trigger_tables
        from instar.v1 import trigger_service_pb2

        method = f"{verb.capitalize()}Trigger"
        request = getattr(trigger_service_pb2, f"{method}Request")(name=name, reason=reason)
        answer = connection.answer(controller, token_file, f"triggers.{method}", request)
        if output is options.Format.JSON:
            document.write(trigger_files.shown(answer.trigger))
            return
        tables.show(trigger_tables.applied([answer.trigger]))

    app.command(verb, help=text)(run)


_switch("enable", "Let a trigger fire.")
_switch("disable", "Let a trigger fire no more, and drop what it holds; what it has begun goes on.")


@app.command()
def fire(
    name: _Name,
    *,
    reason: options.Reason,
    request_id: options.RequestId = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Fire a trigger by hand, through all its guards; returns when the firing is accepted."""
    from controller.cli import connection
    from instar.v1 import trigger_service_pb2

    request = trigger_service_pb2.FireTriggerRequest(name=name, reason=reason, request_id=request_id or "")
    _show(connection.answer(controller, token_file, "triggers.FireTrigger", request).firing, output)


def _show(told: trigger_pb2.Firing, output: options.Format) -> None:
    from controller.cli import document, tables, trigger_tables

    if output is options.Format.JSON:
        document.write(document.of(told))
        return
    tables.show(trigger_tables.firings([told]))


@app.command()
def firings(
    name: Annotated[str, typer.Argument(metavar="TRIGGER", help="Name of the trigger; all where it is left out.")] = "",
    *,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that are not at their end.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """List firings, newest first, and why each stands where it does."""
    from controller.cli import connection, document, tables, trigger_tables
    from instar.v1 import trigger_service_pb2

    request = trigger_service_pb2.ListFiringsRequest(trigger=name, page_size=limit, only_open=only_open)
    answer = connection.answer(controller, token_file, "triggers.ListFirings", request)
    if output is options.Format.JSON:
        document.write(document.of(answer))
        return
    tables.show(trigger_tables.firings(answer.firings))


@app.command("firing")
def one_firing(
    firing: _Firing,
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show one firing: what made it, how it stands and why, and what came of it."""
    from controller.cli import connection
    from instar.v1 import trigger_service_pb2

    request = trigger_service_pb2.GetFiringRequest(firing_id=firing)
    _show(connection.answer(controller, token_file, "triggers.GetFiring", request).firing, output)


@app.command()
def explain(
    name: _Name,
    *,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Say why a trigger fires or does not, guard by guard, and when it may fire next."""
    from controller.cli import connection, document, tables, trigger_tables
    from instar.v1 import trigger_service_pb2

    request = trigger_service_pb2.ExplainTriggerRequest(name=name)
    answer = connection.answer(controller, token_file, "triggers.ExplainTrigger", request)
    if output is options.Format.JSON:
        document.write(document.of(answer.explanation))
        return
    tables.show(trigger_tables.explanation(answer.explanation))


def _decision(verb: str, text: str) -> None:
    """Declare the command of one decision."""

    def run(
        firing: _Firing,
        *,
        reason: Annotated[str, typer.Option(help="Why, for the audit log.")] = "",
        controller: options.Controller = options.CONTROLLER_DEFAULT,
        token_file: options.TokenFile = None,
        output: options.Output = options.Format.TABLE,
    ) -> None:
        from controller.cli import connection
        from instar.v1 import trigger_service_pb2

        method = f"{verb.capitalize()}Firing"
        request = getattr(trigger_service_pb2, f"{method}Request")(firing_id=firing, reason=reason)
        _show(connection.answer(controller, token_file, f"triggers.{method}", request).firing, output)

    app.command(verb, help=text)(run)


_decision("approve", "Let a firing act that waits for it.")
_decision("deny", "Drop a firing before it has acted.")


@app.command("test")
def rehearse(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_FILE_HELP)],
    *,
    since: Annotated[
        str,
        typer.Option(metavar="TIME|WHEN", help="How far back, such as 7d, or from when, such as 2026-12-24T17:00Z."),
    ] = "7d",
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Say when the triggers of a file would have fired, from what was recorded; nothing changes."""
    from controller.cli import connection, document, failures, tables, trigger_files, trigger_tables
    from instar.v1 import trigger_service_pb2

    shown = []
    begins = _begin(since)
    for found in trigger_files.read(file):
        request = trigger_service_pb2.TestTriggerRequest(trigger=found.trigger)
        request.start_time.FromDatetime(begins)
        try:
            answer = connection.answer(controller, token_file, "triggers.TestTrigger", request)
        except failures.CommandError as error:
            raise _placed(found, error) from error
        if output is options.Format.TABLE:
            tables.show(trigger_tables.rehearsal(found.trigger.name, answer.rehearsal))
        shown.append({"name": found.trigger.name, "rehearsal": document.of(answer.rehearsal)})
    if output is options.Format.JSON:
        document.write({"triggers": shown})


def _placed(found: trigger_files.Found, error: failures.CommandError) -> failures.CommandError:
    """The same refusal, with the lines of the file."""
    from controller.cli import failures, trigger_files

    if error.error is None or error.exit_code is not failures.Exit.REFUSED:
        return error
    return trigger_files.refusal(found.file, found.sentences(_problems(error.error)), error.exit_code)


def _begin(since: str) -> datetime:
    from controller import clock
    from controller.cli import spans

    if since[:4].isdecimal() and "-" in since:
        return spans.instant("--since", since)
    return clock.SystemClock().now() - spans.parse("--since", since)
