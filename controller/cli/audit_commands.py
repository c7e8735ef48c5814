"""`instar audit`: who did what, and whether the log of it is whole."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options

if TYPE_CHECKING:
    from controller.cli import connection as connections
    from controller.core.audit import chain, checking
    from instar.v1 import audit_pb2, audit_service_pb2

app = typer.Typer(no_args_is_help=True, help="Who did what, and whether the log of it is whole.")

ROWS_DEFAULT = 100
_Since = Annotated[
    str | None,
    typer.Option(
        metavar="HEAD", help="A head that was kept from an earlier verify or export: the log goes through it."
    ),
]


@app.command("list")
def list_rows(  # noqa: PLR0913  # each is an option
    *,
    actor: Annotated[str, typer.Option(help="Only what this caller did, or was refused.")] = "",
    action: Annotated[str, typer.Option(help="Only this, such as rollout.pause; or all of its noun, as rollout.")] = "",
    subject: Annotated[str, typer.Option(help="Only what was done to this.")] = "",
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="The first instant, such as 2026-12-24T17:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="The instant before which it was.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Largest number of rows.")] = ROWS_DEFAULT,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """List what was done and what was refused, newest first."""
    from controller.cli import audit_tables, connection, document, spans, tables
    from instar.v1 import audit_service_pb2

    request = audit_service_pb2.ListAuditRequest(actor=actor, action=action, subject=subject)
    if since is not None:
        request.start_time.FromDatetime(spans.instant("--since", since))
    if until is not None:
        request.end_time.FromDatetime(spans.instant("--until", until))
    rows = connection.with_controller(controller, token_file, lambda link: _listed(link, request, limit))
    if output is options.Format.JSON:
        document.write({"rows": [document.of(one) for one in rows]})
        return
    tables.show(audit_tables.rows(rows))


async def _listed(
    link: connections.Connection, request: audit_service_pb2.ListAuditRequest, limit: int
) -> list[audit_pb2.AuditRow]:
    from controller.cli import connection

    found: list[audit_pb2.AuditRow] = []
    while True:
        request.page_size = min(limit - len(found), ROWS_DEFAULT)
        page = await link.call(link.audit.ListAudit, request, seconds=connection.CALL_SECONDS)
        found += page.rows
        if not page.next_page_token or len(found) >= limit:
            return found
        request.page_token = page.next_page_token


@app.command()
def verify(  # each is an option
    file: Annotated[
        Path | None, typer.Argument(help="An export; the log of the controller where it is left out.")
    ] = None,
    *,
    since: _Since = None,
    by_controller: Annotated[
        bool,
        typer.Option("--by-controller", help="Have the controller look, and believe it; quicker over a slow line."),
    ] = False,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Look for whatever is wrong with the log: here, row by row, believing nobody; exit code 1 where something is."""
    from controller.cli import connection, failures
    from controller.core.audit import chain

    known = None if since is None else chain.parse_head(since, "--since")
    if file is not None and by_controller:
        raise failures.usage("--by-controller", "true", "without FILE: a controller knows its own log only")
    if file is not None:
        report = _verified_file(file, known)
    elif by_controller:
        report = connection.with_controller(controller, token_file, lambda link: _asked(link, known))
    else:
        report = connection.with_controller(controller, token_file, lambda link: _verified(link, known))
    _tell(report, output)
    raise typer.Exit(failures.Exit.FAILED if report.findings else failures.Exit.OK)


def _verified_file(file: Path, since: chain.Head | None) -> checking.Report:
    from controller.cli import audit_files
    from controller.core.audit import checking

    export = audit_files.Export(file)
    running = checking.Check(export.begin, since)
    for record in export.records():
        running.take(record)
    return running.end(export.head, must_have_head=True)


async def _verified(link: connections.Connection, since: chain.Head | None) -> checking.Report:
    from controller.core.audit import checking
    from controller.rpc import audit_convert

    running, head = checking.Check(since=since), None
    async with contextlib.aclosing(_exported(link, None)) as parts:
        async for part in parts:
            for record in part.records:
                running.take(audit_convert.from_record(record))
            if part.HasField("head"):
                head = audit_convert.from_head(part.head)
    return running.end(head, must_have_head=True)


async def _asked(link: connections.Connection, since: chain.Head | None) -> checking.Report:
    from controller.cli import connection
    from controller.rpc import audit_convert
    from instar.v1 import audit_service_pb2

    told = None if since is None else audit_convert.head(since)
    request = audit_service_pb2.VerifyAuditRequest(since=told)
    answer = await link.call(link.audit.VerifyAudit, request, seconds=connection.CALL_SECONDS)
    return audit_convert.from_report(answer)


def _tell(report: checking.Report, output: options.Format) -> None:
    from controller.cli import audit_tables, document

    if output is options.Format.JSON:
        document.write(audit_tables.report(report))
        return
    for finding in report.findings:
        typer.echo(f"{finding.fault.value} {finding.place}: {finding.message}")
    if not report.is_whole:
        typer.echo("so much is wrong that the rest was not looked at")
    verdict = "something is wrong" if report.findings else "whole"
    typer.echo(f"{verdict}; rows: {report.rows}, epochs: {report.epochs}, head: {report.head}")


@app.command()
def export(
    *,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; standard output where left out.")] = None,
    since: _Since = None,
    controller: options.Controller = options.CONTROLLER_DEFAULT,
    token_file: options.TokenFile = None,
) -> None:
    """Write the log as JSON lines that anybody can verify; with a head only what came after it."""
    from controller.cli import connection
    from controller.core.audit import chain

    known = None if since is None else chain.parse_head(since, "--since")
    with _writing(out) as write:
        head = connection.with_controller(controller, token_file, lambda link: _written(link, known, write))
    typer.echo(f"head: {head}", err=out is None)


async def _written(link: connections.Connection, since: chain.Head | None, write: Callable[[str], object]) -> str:
    from controller.cli import audit_files, failures
    from controller.rpc import audit_convert

    async with contextlib.aclosing(_exported(link, since)) as parts:
        async for part in parts:
            if part.HasField("begin"):
                write(audit_files.begin_line(audit_convert.from_head(part.begin)))
            for record in part.records:
                write(audit_files.record_line(audit_convert.from_record(record)))
            if part.HasField("head"):
                head = audit_convert.from_head(part.head)
                write(audit_files.head_line(head))
                return str(head)
    raise failures.CommandError("cannot export the audit log: it came without its head", failures.Exit.FAILED)


async def _exported(
    link: connections.Connection, since: chain.Head | None
) -> AsyncGenerator[audit_service_pb2.ExportAuditResponse]:
    from controller.cli import failures
    from controller.core import errors
    from controller.rpc import audit_convert
    from instar.v1 import audit_service_pb2

    told = None if since is None else audit_convert.head(since)
    try:
        async for part in link.stream(link.audit.ExportAudit, audit_service_pb2.ExportAuditRequest(since=told)):
            yield part
    except errors.UnavailableError as error:
        raise failures.of_controller(error) from error


@contextlib.contextmanager
def _writing(out: Path | None) -> Iterator[Callable[[str], object]]:
    """Write to a file that is whole or not there, or to standard output."""
    from controller.cli import failures

    if out is None:
        yield sys.stdout.write
        return
    draft = out.with_name(f".{out.name}.part")
    try:
        with draft.open("w", encoding="utf-8") as file:
            yield file.write
        draft.replace(out)
    except OSError as fault:
        raise failures.usage("--out", str(out), f"a file that can be written ({fault.strerror})") from fault
    finally:
        draft.unlink(missing_ok=True)
