"""`instar principal`: who may use the API, and with which roles; in the register, on the machine of the controller.

Rules kept here: whoever may write the register is its administrator, so no call over the network changes it; a running
controller heeds a change within a second. Left out: what roles may do (`controller.rpc.policies`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options

if TYPE_CHECKING:
    from collections.abc import Iterable

    import rich.table

    from controller.rpc import principals, register

app = typer.Typer(no_args_is_help=True, help="Say who may use the API, on the machine of the controller.")
_Name = Annotated[str, typer.Argument(help="Of the person or service, as the audit log names it.")]
_Agent = Annotated[bool, typer.Option("--agent", help="The agent of the node that has this name is meant.")]


@app.command()
def add(
    name: _Name,
    *,
    role: Annotated[
        list[str],
        typer.Option(
            metavar="ROLE[:SELECTOR]",
            help="viewer, operator, approver, publisher or admin; behind a colon, for which nodes alone. Many times.",
        ),
    ],
    scope: Annotated[str, typer.Option(metavar="SELECTOR", help="The same, for all roles that do not say it.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="File for a new token; without it none is made, and none ends.")
    ] = None,
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Grant roles to a person or service, in the place of those before; and make a token, where a file is named."""
    from controller.core import roles
    from controller.rpc import principals, register

    named = [text.partition(":") for text in role]
    grants = tuple(roles.grant(word, own or scope, "role") for word, _, own in named)
    principal = principals.Principal(principals.Kind.API, name, grants)
    known = _register(state_dir)
    if out is None:
        known.put(principal)
    else:
        register.write_private(out, f"{known.make_token(principal).reveal()}\n")
    _say(known.entry(*_key(name, is_agent=False)), output, out)


@app.command("list")
def list_principals(
    *,
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """List everybody who is in the register."""
    from controller.cli import document, tables

    entries = _register(state_dir).entries()
    if output is options.Format.JSON:
        document.write({"principals": list(map(_document, entries))})
        return
    tables.show(_table(entries))


@app.command()
def show(
    name: _Name,
    *,
    agent: _Agent = False,
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Show one of them."""
    _say(_register(state_dir).entry(*_key(name, is_agent=agent)), output)


@app.command()
def remove(
    name: _Name,
    *,
    agent: _Agent = False,
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Forget somebody: the token ends, and streams that are open are cut."""
    from controller.cli import document

    kind, _ = _key(name, is_agent=agent)
    _register(state_dir).remove(kind, name)
    if output is options.Format.JSON:
        document.write({"name": name, "kind": kind.value})
        return
    typer.echo(f"removed: {name}")


@app.command()
def deny(
    name: _Name,
    *,
    reason: Annotated[str, typer.Option(help="Why; whoever is denied is told.")] = "denied",
    agent: _Agent = False,
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Let somebody in no longer, whatever is shown: token, certificate, or token of an issuer (then ISSUER:SUBJECT)."""
    known = _register(state_dir)
    key = _key(name, is_agent=agent)
    known.deny(*key, reason)
    _say(known.entry(*key), output)


@app.command()
def allow(
    name: _Name,
    *,
    agent: _Agent = False,
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Let somebody in again who was denied."""
    known = _register(state_dir)
    key = _key(name, is_agent=agent)
    known.allow(*key)
    _say(known.entry(*key), output)


def _register(state_dir: Path | None) -> register.Register:
    from controller.config import settings
    from controller.rpc import register

    loaded = settings.load({"state_dir": str(state_dir) if state_dir else None}, os.environ, None)
    return register.Register(loaded.principals_file)


def _key(name: str, *, is_agent: bool) -> tuple[principals.Kind, str]:
    from controller.rpc import principals

    return (principals.Kind.AGENT if is_agent else principals.Kind.API), name


def _document(entry: register.Entry) -> dict[str, object]:
    principal = entry.principal
    return {
        "name": principal.name,
        "kind": principal.kind.value,
        "grants": [{"role": each.role.value, "scope": each.scope} for each in principal.grants],
        "has_token": bool(entry.token_hash),
        "denied": entry.denied_because,
    }


def _say(entry: register.Entry, output: options.Format, out: Path | None = None) -> None:
    from controller.cli import document, tables

    if output is options.Format.JSON:
        document.write(_document(entry) | ({"token_file": str(out)} if out else {}))
        return
    tables.show(_table([entry]))
    if out:
        typer.echo(f"token of {entry.principal.name} in {out}")


def _table(entries: Iterable[register.Entry]) -> rich.table.Table:
    from controller.cli import tables

    rows = [
        (
            entry.principal.name,
            entry.principal.kind.value,
            ", ".join(f"{each.role.value}:{each.scope}".rstrip(":") for each in entry.principal.grants) or "-",
            "yes" if entry.token_hash else "no",
            entry.denied_because or "-",
        )
        for entry in entries
    ]
    return tables.table(("NAME", "KIND", "ROLES", "TOKEN", "DENIED"), rows)
