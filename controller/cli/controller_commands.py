"""`instar controller`: run a controller, and make the tokens of those who use it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from controller.cli import options

app = typer.Typer(no_args_is_help=True, help="Run a controller, and make the tokens of those who use it.")


@app.command()
def serve(  # noqa: PLR0913  # each is a setting
    *,
    listen: Annotated[str | None, typer.Option(help="Loopback address and port; port 0 takes a free one.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where everything durable is.")] = None,
    heartbeat_period: Annotated[str | None, typer.Option(help="Time between two heartbeats, for example 10s.")] = None,
    self_approval: Annotated[
        str | None, typer.Option(metavar="allow|refuse", help="May who asked for a rollout approve it; refuse.")
    ] = None,
    trust_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with the first root and the online keys; left out, releases are taken unsigned."),
    ] = None,
    config: Annotated[Path | None, typer.Option(envvar="INSTAR_CONFIG", help="TOML file of settings.")] = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Serve until SIGTERM or SIGINT; says on stderr (as JSON on stdout) where it listens once it does."""
    from controller.cli import document
    from controller.config import settings

    flags = {
        "listen": listen,
        "state_dir": str(state_dir) if state_dir else None,
        "heartbeat_period": heartbeat_period,
        "self_approval": self_approval,
        "trust_dir": str(trust_dir) if trust_dir else None,
    }
    loaded = settings.load(flags, os.environ, config)

    from controller import server  # only now: it takes a second, and a wrong setting is to be told at once

    def say(address: str) -> None:
        place = {"listen": address, "state_dir": str(loaded.state_dir), "token_file": str(loaded.operator_token_file)}
        place["releases"] = "signed" if loaded.trust_dir else "unsigned"
        if output is options.Format.JSON:
            document.write(place)
        typer.echo(
            f"listening on {address}; state in {loaded.state_dir}; token in {loaded.operator_token_file};"
            f" releases {'are signed' if loaded.trust_dir else 'are NOT signed'}",
            err=True,
        )

    server.run(loaded, say)


@app.command()
def doctor(
    *,
    state_dir: options.StateDir = None,
    trust_dir: Annotated[Path | None, typer.Option(help="As the controller has it.")] = None,
    config: Annotated[Path | None, typer.Option(envvar="INSTAR_CONFIG", help="TOML file of settings.")] = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Look at the controller of this machine: is its folder in order, are releases signed, does anything expire."""
    from controller.cli import doctor as doctors
    from controller.cli import document, failures, tables
    from controller.config import settings

    flags = {"state_dir": str(state_dir) if state_dir else None, "trust_dir": str(trust_dir) if trust_dir else None}
    found = doctors.checks(settings.load(flags, os.environ, config))
    rows = [(one.name, one.state.value, one.message) for one in found]
    if output is options.Format.JSON:
        names = ("name", "state", "message")
        document.write({"checks": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        tables.show(tables.table(("CHECK", "STATE", ""), rows))
    if any(one.state is doctors.State.FAILED for one in found):
        raise typer.Exit(failures.Exit.FAILED)


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Of the person or service, as the audit log will name it.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="File to write the token to; only its owner can read it.")],
    state_dir: options.StateDir = None,
    output: options.Output = options.Format.TABLE,
) -> None:
    """Make the token of a person or service, on the machine of the controller; one made before ends.

    Who is known already keeps its roles; who is not becomes an admin. `instar principal add` gives less.
    """
    from controller.cli import document
    from controller.config import settings
    from controller.core import roles
    from controller.rpc import principals, register

    loaded = settings.load({"state_dir": str(state_dir) if state_dir else None}, os.environ, None)
    known = register.Register(loaded.principals_file)
    entries = {entry.key: entry.principal for entry in known.entries()}
    new = principals.Principal(principals.Kind.API, name, roles.WHOLE_FLEET_ADMIN)
    made = known.make_token(entries.get((principals.Kind.API, name), new))
    register.write_private(out, f"{made.reveal()}\n")
    if output is options.Format.JSON:
        document.write({"name": name, "token_file": str(out)})
        return
    typer.echo(f"token of {name} in {out}")
