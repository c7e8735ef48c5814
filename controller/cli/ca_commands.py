"""`instar ca`: make the authorities, replace one while all goes on, and give certificates to users of the API.

All of it works on the controller's own files, on its machine; a controller that runs sees each change at its next
connection.
"""

from __future__ import annotations

import os
from enum import Enum, unique
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.config import settings
    from controller.core import roles
    from controller.trust import authorities

app = typer.Typer(no_args_is_help=True, help="The authorities whose certificates agents, listeners and callers show.")
DOMAIN_DEFAULT = "instar"
DAYS_MAX = 397  # what public authorities gave at most; a user who left is locked out by then


@unique
class Which(Enum):
    """Whose certificates an authority signs."""

    AGENTS = "agents"
    SERVERS = "servers"
    CLIENTS = "clients"


@unique
class Step(Enum):
    """How far a rotation shall go."""

    TRUST = "trust"
    SIGN = "sign"
    DROP = "drop"


@app.command()
def init(
    *,
    domain: Annotated[str, typer.Option(help="Trust domain in the names of all who get certificates.")] = (
        DOMAIN_DEFAULT
    ),
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Make the three authorities, once."""
    from controller import clock
    from controller.trust import authorities

    _show(authorities.create(_folder(state_dir), domain, clock.SystemClock().now()), output)


@app.command()
def rotate(
    which: Annotated[Which, typer.Argument(help="Whose certificates it signs.")],
    step: Annotated[
        Step, typer.Argument(help="trust a new one; then have it sign; then drop the old one. Each when its time is.")
    ],
    *,
    force: Annotated[bool, typer.Option("--force", help="Now, though somebody may be locked out by it.")] = False,
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Replace an authority, in three steps, while everything goes on."""
    from controller import clock
    from controller.trust import authorities

    folder, kind, now = _folder(state_dir), authorities.Kind(which.value), clock.SystemClock().now()
    if step is Step.TRUST:
        found = authorities.begin_rotation(folder, kind, now)
    elif step is Step.SIGN:
        found = authorities.sign_with_new(folder, kind, now, is_forced=force)
    else:
        found = authorities.drop_old(folder, kind, now, is_forced=force)
    _show(found, output)


@app.command()
def show(*, state_dir: options.StateDir = None, output: options.Output = options.Format.TABLE) -> None:
    """Show the authorities, what each does, and until when."""
    from controller.trust import authorities

    _show(authorities.load(_folder(state_dir)), output)


@app.command()
def bundle(
    *,
    out: Annotated[Path, typer.Option("--out", help="File for the authorities of the listeners, as PEM.")],
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Write what the controller is checked against, for who shows a token; `client` writes it beside a certificate."""
    from controller.cli import document
    from controller.trust import authorities, private_files

    private_files.write(out, authorities.load(_folder(state_dir)).bundle(authorities.Kind.SERVERS))
    if output is options.Format.JSON:
        document.write({"file": str(out)})
        return
    typer.echo(f"authorities of the listeners in {out}")


@app.command()
def client(
    name: Annotated[str, typer.Argument(help="Of the person or service, as the audit log will name it.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder for ca.pem, client.pem and client.key.")],
    role: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE[:SELECTOR]", help="As `instar principal add` takes it. Many times."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="For so long the certificate is valid.")] = 30,
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Give a person or service a certificate, with its key and the authority of the controller beside it.

    Without a role who is known already keeps its own, and who is not becomes an admin.
    """
    from controller import clock
    from controller.cli import document
    from controller.trust import authorities, clients

    grants = _grants(role or ())
    made = clients.issue(authorities.load(_folder(state_dir)), name, days, clock.SystemClock().now())
    _put_grants(made.identity.name, grants, state_dir)
    made.write(out)
    if output is options.Format.JSON:
        document.write({"name": made.identity.uri, "folder": str(out), "expires_at": _time(made.expires_at)})
        return
    typer.echo(f"certificate of {made.identity.uri} in {out}, until {_time(made.expires_at)}")


def _folder(state_dir: Path | None) -> Path:
    return _settings(state_dir).authorities_dir


def _settings(state_dir: Path | None) -> settings.Settings:
    from controller.config import settings

    return settings.load({"state_dir": str(state_dir) if state_dir else None}, os.environ, None)


def _grants(named: Sequence[str]) -> tuple[roles.Grant, ...]:
    from controller.core import roles

    return tuple(roles.grant(word, scope, "role") for word, _, scope in (text.partition(":") for text in named))


def _put_grants(name: str, grants: tuple[roles.Grant, ...], state_dir: Path | None) -> None:
    """Have the register grant a role to whoever shows the certificate."""
    from controller.core import roles
    from controller.rpc import principals, register

    known = register.Register(_settings(state_dir).principals_file)
    if grants:
        known.put(principals.Principal(principals.Kind.API, name, grants))
    else:
        known.take_in(principals.Principal(principals.Kind.API, name, roles.WHOLE_FLEET_ADMIN))


def _show(found: authorities.Authorities, output: options.Format) -> None:
    from controller.cli import document, tables

    rows: list[dict[str, Any]] = [
        {
            "kind": kind.value,
            "role": each.role.value,
            "since": _time(each.since),
            "expires_at": _time(each.certificate.not_valid_after_utc),
            "fingerprint": _fingerprint(each),
        }
        for kind, known in found.of.items()
        for each in known
    ]
    if output is options.Format.JSON:
        document.write({"domain": found.domain, "authorities": rows})
        return
    typer.echo(f"trust domain {found.domain}")
    tables.show(tables.authorities(rows))


def _fingerprint(each: authorities.Authority) -> str:
    from cryptography.hazmat.primitives import hashes

    return each.certificate.fingerprint(hashes.SHA256()).hex()


def _time(at: Any) -> str:  # noqa: ANN401  # an instant; the annotation would import what `--help` need not
    return str(at.isoformat(timespec="seconds"))
